"""The manifest and the settings of the sandbox."""

from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from markethall.payments.ports import (
    GatewayManifest,
    GatewayTools,
    PaymentGateway,
    ProviderSettings,
)
from markethall.shared.composition.settings import SettingsError

_NO_MONEY: Final = (
    "MARKETHALL_SANDBOX_IN_PRODUCTION: the payment provider sandbox takes no money; set true to run"
    " a demonstration, or name other providers in MARKETHALL_PAYMENT_PROVIDERS"
)


class SandboxSettings(ProviderSettings):
    sandbox_in_production: Annotated[
        bool,
        Field(
            description="Allow the sandbox in production: orders are paid without real money, so"
            " goods are given away"
        ),
    ] = False

    @model_validator(mode="after")
    def _refuse_production(self) -> Self:
        if self.environment == "production" and not self.sandbox_in_production:
            raise SettingsError([_NO_MONEY])
        return self

    @property
    def lax_settings(self) -> Mapping[str, str]:
        if self.environment != "production":
            return {}
        return {"MARKETHALL_SANDBOX_IN_PRODUCTION": "orders are paid without real money"}


def _build(tools: GatewayTools, _: SandboxSettings) -> PaymentGateway:
    from markethall.payments.gateway.sandbox import SandboxGateway

    return SandboxGateway(tools)


MANIFEST: Final = GatewayManifest(name="sandbox", build=_build, settings=SandboxSettings)
