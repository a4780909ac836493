"""Payments in memory: a supported backend that keeps nothing when the process ends."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from markethall.payments.contract import AccountBalance, LedgerReport, OrderHasPayment
from markethall.payments.domain import PAYABLE, Operation, Payment, Posting, account_kind
from markethall.payments.ports import (
    OperationFilter,
    PaymentFilter,
    ProviderEvent,
    SandboxCharge,
    SandboxRefund,
    WebhookState,
)
from markethall.shared import memory as shared
from markethall.shared.clock import Clock
from markethall.shared.memory import CommonTables, MemoryDatabase, Table
from markethall.shared.money import Money


@dataclass(frozen=True)
class KeptEvent:
    event: ProviderEvent
    state: WebhookState


class Tables(CommonTables):
    def __init__(self) -> None:
        super().__init__()
        self.payments: Table[UUID, Payment] = Table()
        self.payment_of_order: Table[UUID, UUID] = Table()
        self.tombstones: Table[UUID, datetime] = Table()
        self.operations: Table[UUID, Operation] = Table()
        self.postings: Table[UUID, Posting] = Table()
        self.events: Table[tuple[str, str], KeptEvent] = Table()
        self.sandbox_charges: Table[UUID, SandboxCharge] = Table()
        self.sandbox_refunds: Table[UUID, SandboxRefund] = Table()


class MemoryStore(shared.MemoryStore):
    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    # Payments

    async def open(self, payment: Payment) -> Payment:
        standing = self._tables.payments.get(payment.payment_id)
        if standing:
            return standing
        if not self._tables.payment_of_order.add(payment.order_id, payment.payment_id):
            raise OrderHasPayment(order_id=str(payment.order_id))
        if payment.payment_id in self._tables.tombstones:
            payment.cancel()
        self._tables.payments.put(payment.payment_id, payment)
        return payment

    async def forbid(self, payment_id: UUID, now: datetime) -> bool:
        known = payment_id in self._tables.payments
        return not known and self._tables.tombstones.add(payment_id, now)

    async def payment(self, payment_id: UUID) -> Payment | None:
        return self._tables.payments.get(payment_id)

    async def locked(self, payment_id: UUID) -> Payment | None:
        return self._tables.payments.get(payment_id)

    async def payments(self, wanted: PaymentFilter) -> Sequence[Payment]:
        found = self._tables.payments.where(lambda payment: _fits(payment, wanted))
        found.sort(key=_place, reverse=wanted.descending)
        return found[: wanted.limit]

    async def count(self) -> int:
        return len(self._tables.payments)

    async def save(self, payment: Payment) -> None:
        self._tables.payments.put(payment.payment_id, payment)

    async def expire_overdue(self, now: datetime, limit: int) -> int:
        overdue = self._tables.payments.where(
            lambda payment: payment.status in PAYABLE and payment.expires_at <= now
        )[:limit]
        for payment in overdue:
            payment.expire()
            await self.save(payment)
        return len(overdue)

    # Operations

    async def begin(self, payment: Payment, operation: Operation) -> None:
        await self.settle(payment, operation)

    async def settle(self, payment: Payment, operation: Operation) -> None:
        await self.save(payment)
        self._tables.operations.put(operation.operation_id, operation)

    async def operation(self, operation_id: UUID) -> Operation | None:
        return self._tables.operations.get(operation_id)

    async def operations(self, wanted: OperationFilter) -> Sequence[Operation]:
        found = self._tables.operations.where(
            lambda one: (
                one.payment_id == wanted.payment_id
                and wanted.kind in {None, one.kind}
                and (not wanted.after or (one.created_at, one.operation_id) > wanted.after)
            )
        )
        found.sort(key=lambda one: (one.created_at, one.operation_id))
        return found[: wanted.limit]

    async def locked_operation(self, operation_id: UUID) -> tuple[Payment, Operation] | None:
        operation = self._tables.operations.get(operation_id)
        payment = operation and self._tables.payments.get(operation.payment_id)
        return (payment, operation) if payment and operation else None

    async def claim_due(self, now: datetime, until: datetime, limit: int) -> Sequence[Operation]:
        due = self._tables.operations.where(
            lambda operation: operation.open and operation.due_at <= now
        )
        claimed = [replace(operation, due_at=until) for operation in due[:limit]]
        for operation in claimed:
            self._tables.operations.put(operation.operation_id, operation)
        return claimed

    # The ledger

    async def post(self, posting: Posting) -> None:
        if not self._tables.postings.add(posting.operation_id, posting):
            raise AssertionError("an operation is posted once")

    async def postings(
        self, payment_id: UUID | None, before: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Posting]:
        found = self._tables.postings.where(
            lambda posting: (
                payment_id in {None, posting.payment_id}
                and (before is None or _posted_at(posting) < before)
            )
        )
        found.sort(key=_posted_at, reverse=True)
        return [_debits_first(posting) for posting in found[:limit]]

    async def balances(self) -> Sequence[AccountBalance]:
        sums: defaultdict[tuple[str, str], int] = defaultdict(int)
        for posting in self._tables.postings.rows():
            for account, amount in posting.entries:
                sums[account, posting.currency] += amount
        return [_balance(*key, amount) for key, amount in sorted(sums.items())]

    async def report(self) -> LedgerReport:
        """A posting that does not balance cannot be made here; a payment could still differ."""
        booked: defaultdict[UUID, int] = defaultdict(int)
        for posting in self._tables.postings.rows():
            booked[posting.payment_id] += posting.entries[0][1]
        mismatched = self._tables.payments.where(
            lambda payment: payment.captured - payment.refunded != booked[payment.payment_id]
        )
        return LedgerReport(
            balanced=not mismatched,
            posting_count=len(self._tables.postings),
            unbalanced_postings=(),
            mismatched_payments=tuple(payment.payment_id for payment in mismatched[:100]),
        )

    # Webhooks

    async def keep_event(self, event: ProviderEvent, state: WebhookState, now: datetime) -> bool:  # noqa: ARG002 - memory keeps no history
        key = event.provider, event.event_id
        return self._tables.events.add(key, KeptEvent(event, state))

    async def mark_event(self, event: ProviderEvent, state: WebhookState, now: datetime) -> None:  # noqa: ARG002 - as above
        self._tables.events.put((event.provider, event.event_id), KeptEvent(event, state))

    async def ripe_events(self, limit: int) -> Sequence[ProviderEvent]:
        ripe = self._tables.events.where(
            lambda kept: (
                kept.state == "parked"
                and kept.event.operation_id is not None
                and kept.event.operation_id in self._tables.operations
            )
        )
        return [kept.event for kept in ripe[:limit]]


class MemorySandboxBook:
    """The sandbox's ledger, in transactions of its own."""

    def __init__(self, database: "MemoryDatabase[Tables, MemoryStore]") -> None:
        self._database = database

    async def charge(self, charge: SandboxCharge) -> SandboxCharge:
        async with self._database.changing() as tables:
            tables.sandbox_charges.add(charge.operation_id, charge)
            return tables.sandbox_charges.get(charge.operation_id) or charge

    async def refund(self, refund: SandboxRefund) -> SandboxRefund:
        async with self._database.changing() as tables:
            if refund.operation_id not in tables.sandbox_refunds:
                tables.sandbox_refunds.put(refund.operation_id, _taken(tables, refund))
            return tables.sandbox_refunds.get(refund.operation_id) or refund

    async def find_charge(self, operation_id: UUID) -> SandboxCharge | None:
        async with self._database.changing() as tables:
            return tables.sandbox_charges.get(operation_id)

    async def find_refund(self, operation_id: UUID) -> SandboxRefund | None:
        async with self._database.changing() as tables:
            return tables.sandbox_refunds.get(operation_id)

    async def charges(self) -> Sequence[SandboxCharge]:
        async with self._database.changing() as tables:
            return list(tables.sandbox_charges.rows())


def _taken(tables: Tables, refund: SandboxRefund) -> SandboxRefund:
    """The refund, taken from its charge; failed when the charge has not enough left."""
    if refund.status == "closed":
        return refund
    charge = refund.charge_operation_id and tables.sandbox_charges.get(refund.charge_operation_id)
    if not charge or not _has_left(charge, refund):
        return replace(refund, status="failed")
    less = replace(charge, refunded=charge.refunded + refund.amount)
    tables.sandbox_charges.put(charge.operation_id, less)
    return refund


def _has_left(charge: SandboxCharge, refund: SandboxRefund) -> bool:
    enough = charge.refunded + refund.amount <= charge.amount
    return charge.status == "succeeded" and charge.currency == refund.currency and enough


def _fits(payment: Payment, wanted: PaymentFilter) -> bool:
    if wanted.after and not _is_after(payment, wanted.after, descending=wanted.descending):
        return False
    return (
        wanted.user_id in {None, payment.user_id}
        and wanted.order_id in {None, payment.order_id}
        and wanted.status in {None, payment.status}
    )


def _is_after(payment: Payment, place: tuple[datetime, UUID], *, descending: bool) -> bool:
    return _place(payment) < place if descending else _place(payment) > place


def _place(payment: Payment) -> tuple[datetime, UUID]:
    return payment.created_at, payment.payment_id


def _posted_at(posting: Posting) -> tuple[datetime, UUID]:
    return posting.created_at, posting.posting_id


def _debits_first(posting: Posting) -> Posting:
    entries = sorted(posting.entries, key=lambda entry: entry[1], reverse=True)
    return replace(posting, entries=tuple(entries))


def _balance(account: str, currency: str, amount: int) -> AccountBalance:
    return AccountBalance(
        account=account,
        kind=account_kind(account),
        balance=Money(amount=amount, currency=currency),
    )
