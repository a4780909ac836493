"""A model of the money of payments: what the provider has done, and what the shop must record.

The model does not read the database. ReportingGateway reports each effect at the provider to it,
before a test lets the answer to the shop get lost.
"""

from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import Outcome, Succeeded
from markethall.payments.ports import OperationRequest, PaymentGateway, ProviderNews

T = TypeVar("T")


@dataclass
class PaymentMoney:
    """The money of one payment at the provider, in minor units, by operation id."""

    amount: int
    charged: dict[UUID, int] = field(default_factory=dict)
    authorized: dict[UUID, int] = field(default_factory=dict)
    captured: dict[UUID, int] = field(default_factory=dict)
    voided: set[UUID] = field(default_factory=set)
    refunded: dict[UUID, int] = field(default_factory=dict)

    @property
    def taken(self) -> int:
        return sum(self.charged.values()) + sum(self.captured.values())

    @property
    def returned(self) -> int:
        return sum(self.refunded.values())

    def check(self) -> None:
        """Check for a second charge and for excessive amounts. Raises AssertionError."""
        assert len(self.charged) + len(self.authorized) <= 1, "two charges"
        assert sum(self.captured.values()) <= sum(self.authorized.values()), "captured too much"
        assert self.returned <= self.taken <= self.amount, "refunded or taken too much"


class MoneyModel:
    """The money of all payments at the provider."""

    def __init__(self) -> None:
        self.payments: dict[UUID, PaymentMoney] = {}
        self.currencies: dict[UUID, str] = {}

    def open(self, payment_id: UUID, amount: int, currency: str) -> None:
        self.payments[payment_id] = PaymentMoney(amount)
        self.currencies[payment_id] = currency

    def record(self, request: OperationRequest, outcome: Outcome | None) -> None:
        """Record a success. Each operation has one effect, however often it is reported."""
        if not isinstance(outcome, Succeeded):
            return
        money = self.payments[request.payment_id]
        amount = request.amount.amount
        match request.kind:
            case OperationKind.CHARGE:
                money.charged[request.operation_id] = amount
            case OperationKind.AUTHORIZE:
                money.authorized[request.operation_id] = amount
            case OperationKind.CAPTURE:
                is_new = request.operation_id not in money.captured
                assert not (is_new and money.voided), "captured after a void"
                money.captured[request.operation_id] = amount
            case OperationKind.VOID:
                money.voided.add(request.operation_id)
            case OperationKind.REFUND:
                money.refunded[request.operation_id] = amount
        money.check()

    def balances(self) -> Counter[str]:
        """Return the money that the provider holds for the shop, by currency."""
        held: Counter[str] = Counter()
        for payment_id, money in self.payments.items():
            held[self.currencies[payment_id]] += money.taken - money.returned
        return held


class ReportingGateway(PaymentGateway):
    """Reports the effect of each call at the sandbox to the model, even if the call fails."""

    provider = "sandbox"

    def __init__(self, gateway: PaymentGateway, model: MoneyModel) -> None:
        self._gateway = gateway
        self._model = model

    def accepts(self, method: str) -> bool:
        return self._gateway.accepts(method)

    async def charge(self, request: OperationRequest) -> Outcome:
        return await self._report(request, self._gateway.charge(request))

    async def authorize(self, request: OperationRequest) -> Outcome:
        return await self._report(request, self._gateway.authorize(request))

    async def capture(self, request: OperationRequest) -> Outcome:
        return await self._report(request, self._gateway.capture(request))

    async def void(self, request: OperationRequest) -> Outcome:
        return await self._report(request, self._gateway.void(request))

    async def refund(self, request: OperationRequest) -> Outcome:
        return await self._report(request, self._gateway.refund(request))

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        return await self._gateway.lookup(request)

    async def lookup_after_news(
        self, request: OperationRequest, news: ProviderNews
    ) -> Outcome | None:
        return await self._report(request, self._gateway.lookup_after_news(request, news))

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        return await self._report(request, self._gateway.cancel_unknown(request))

    async def _report(self, request: OperationRequest, call: Awaitable[T]) -> T:
        try:
            return await call
        finally:
            self._model.record(request, await self._gateway.lookup(request))
