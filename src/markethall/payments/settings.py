"""The settings of payments."""

from typing import Annotated

from pydantic import Field

from markethall.shared.composition.settings import ContextSettings


class PaymentsSettings(ContextSettings):
    payment_provider_timeout_seconds: Annotated[
        float, Field(gt=0, description="Maximum time of a request to the payment provider")
    ] = 8
    payment_reconcile_after_seconds: Annotated[
        float,
        Field(gt=0, description="Seconds before the provider is asked for an unknown outcome"),
    ] = 15

    @property
    def slow_provider_seconds(self) -> float:
        return self.payment_provider_timeout_seconds
