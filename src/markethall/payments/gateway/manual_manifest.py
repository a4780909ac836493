"""The manifest and the settings of the provider `manual`: money arrives outside of the shop."""

from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from markethall.payments.ports import (
    GatewayManifest,
    GatewayTools,
    PaymentGateway,
    ProviderSettings,
)
from markethall.shared.composition.settings import SettingsError
from markethall.shared.kernel.countries import Country
from markethall.shared.kernel.model import MAX_AMOUNT
from markethall.shared.kernel.money import Currency

_DAYS: Final = Field(ge=1, le=90)


class ManualTotal(BaseModel):
    """An upper bound of the total, in minor units of a currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Annotated[int, Field(ge=1, le=MAX_AMOUNT)]
    currency: Currency


class ManualMethod(BaseModel):
    """A payment method. `{payment_id}` in the instructions stands for the id of the payment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    instructions: Annotated[str, Field(min_length=1, max_length=2000)]
    deadline_days: Annotated[int, _DAYS]
    currencies: frozenset[Currency] | None = None
    countries: frozenset[Country] | None = None
    max_total: ManualTotal | None = None


class ManualSettings(ProviderSettings):
    manual_payment_methods: Annotated[
        tuple[ManualMethod, ...],
        Field(
            description="The methods of the payment provider manual, such as bank transfer: a JSON"
            " array of objects with code, name, instructions, deadline_days (1 to 90) and, if they"
            " are limited, currencies, countries, max_total (amount and currency)"
        ),
    ] = ()

    @model_validator(mode="after")
    def _check_methods(self) -> Self:
        codes = [method.code for method in self.manual_payment_methods]
        if not codes:
            raise SettingsError(["MARKETHALL_MANUAL_PAYMENT_METHODS: is required by manual"])
        if len(set(codes)) < len(codes):
            raise SettingsError(["MARKETHALL_MANUAL_PAYMENT_METHODS: two methods have one code"])
        return self


def _build(_: GatewayTools, settings: ManualSettings) -> PaymentGateway:
    from markethall.payments.gateway.manual import ManualGateway

    return ManualGateway(settings.manual_payment_methods)


MANIFEST: Final = GatewayManifest(name="manual", build=_build, settings=ManualSettings)
