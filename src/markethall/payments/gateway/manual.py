"""The provider of money that arrives outside of the shop: bank transfer, invoice, cash on delivery.

There is no external service, so the gateway keeps no state: it computes every outcome from the
request. The customer gets instructions; staff mark the payment as paid, and pay refunds by hand.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from markethall.payments.contract.api import AwaitTransferAction
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import ActionRequired, Failed, Outcome
from markethall.payments.ports import (
    Capability,
    GatewayManifest,
    GatewayTools,
    OperationRequest,
    OutcomePending,
    PaymentGateway,
    PaymentMethod,
    ProviderSettings,
)
from markethall.shared.composition.settings import SettingsError
from markethall.shared.kernel.countries import Country
from markethall.shared.kernel.model import MAX_AMOUNT
from markethall.shared.kernel.money import Currency, Money

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
    return ManualGateway(settings.manual_payment_methods)


MANIFEST: Final = GatewayManifest(name="manual", build=_build, settings=ManualSettings)


class ManualGateway(PaymentGateway):
    provider = "manual"
    # without REFUND, because staff transfer refunds and mark them as paid
    capabilities = frozenset({Capability.MARK_PAID})

    def __init__(self, methods: Sequence[ManualMethod]) -> None:
        self._methods = {f"{self.provider}:{method.code}": method for method in methods}

    def accepts(self, method: str) -> bool:
        return method in self._methods

    def list_methods(self) -> Sequence[PaymentMethod]:
        return [_to_payment_method(name, method) for name, method in self._methods.items()]

    async def charge(self, request: OperationRequest) -> Outcome:
        """Return the instructions. The deadline counts from the opening of the payment."""
        method = self._methods.get(request.method)
        if method is None:
            return Failed("method_removed")
        instructions = method.instructions.replace("{payment_id}", str(request.payment_id))
        return ActionRequired(
            AwaitTransferAction(instructions=instructions),
            lifetime=timedelta(days=method.deadline_days),
        )

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        if request.kind is OperationKind.REFUND:
            # the outcome is known when staff mark the refund as paid
            raise OutcomePending
        return await self.charge(request)

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        return await self.charge(request)


def _to_payment_method(name: str, method: ManualMethod) -> PaymentMethod:
    limit = method.max_total
    return PaymentMethod(
        method=name,
        name=method.name,
        instructions=method.instructions,
        currencies=method.currencies,
        countries=method.countries,
        max_total=Money(amount=limit.amount, currency=limit.currency) if limit else None,
    )
