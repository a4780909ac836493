"""The settings of payments."""

from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from markethall.shared.composition.settings import ContextSettings, SettingsError

_ONLY_SANDBOX: Final = (
    "MARKETHALL_SANDBOX_IN_PRODUCTION: the only payment provider is the sandbox, which takes no"
    " money; set true to run a demonstration"
)


class PaymentsSettings(ContextSettings):
    payment_provider_timeout_seconds: Annotated[
        float, Field(gt=0, description="Maximum time of a request to the payment provider")
    ] = 8
    payment_reconcile_after_seconds: Annotated[
        float,
        Field(gt=0, description="Seconds before the provider is asked for an unknown outcome"),
    ] = 15

    sandbox_in_production: Annotated[
        bool,
        Field(
            description="Allow the sandbox in production: orders are paid without real money, so"
            " goods are given away"
        ),
    ] = False

    @model_validator(mode="after")
    def _refuse_sandbox_in_production(self) -> Self:
        """The sandbox is the only provider, and anyone can pay with it."""
        if self.environment == "production" and not self.sandbox_in_production:
            raise SettingsError([_ONLY_SANDBOX])
        return self

    @property
    def lax_settings(self) -> Mapping[str, str]:
        if self.environment != "production" or not self.sandbox_in_production:
            return {}
        return {"MARKETHALL_SANDBOX_IN_PRODUCTION": "orders are paid without real money"}

    @property
    def slow_provider_seconds(self) -> float:
        return self.payment_provider_timeout_seconds
