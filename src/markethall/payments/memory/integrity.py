"""The in-memory reads of the integrity checks of payments."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from markethall.payments.contract.internal import PaymentState
from markethall.payments.contract.statuses import OperationKind, OperationStatus, PaymentStatus
from markethall.payments.domain.integrity import (
    ChargeSums,
    PaymentSums,
    ProviderCharge,
    Waiting,
    WaitingRow,
)
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.outcomes import CHARGE_KINDS
from markethall.payments.domain.payment import Payment
from markethall.payments.domain.payment_transitions import PAYABLE_STATUSES
from markethall.payments.memory.tables import Tables
from markethall.payments.ports import SandboxCharge

F = TypeVar("F")

_SANDBOX: Final = "sandbox"
_CAPTURING_KINDS: Final = frozenset({OperationKind.CHARGE, OperationKind.CAPTURE})


class MemoryPaymentIntegrityReads:
    """Groups all operations by their payment once, when it is built."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._operations: defaultdict[UUID, list[Operation]] = defaultdict(list)
        for operation in tables.operations.rows():
            self._operations[operation.payment_id].append(operation)

    def list_payment_states(self, after: UUID | None, limit: int) -> Sequence[PaymentState]:
        payments = self._tables.payments.rows()
        page = _page(payments, lambda payment: payment.payment_id, after, limit)
        return [self._payment_state(payment) for payment in page]

    def _payment_state(self, payment: Payment) -> PaymentState:
        settled = [one.settled_at for one in self._operations[payment.payment_id] if one.settled_at]
        return PaymentState(
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            status=payment.status,
            amount=payment.money(payment.amount),
            captured=payment.money(payment.captured),
            refunded=payment.money(payment.refunded),
            settled_at=max(settled, default=None),
        )

    async def list_payment_sums(self, after: UUID | None, limit: int) -> Sequence[PaymentSums]:
        payments = self._tables.payments.rows()
        page = _page(payments, lambda payment: payment.payment_id, after, limit)
        return [self._payment_sums(payment) for payment in page]

    async def list_sandbox_charge_sums(
        self, after: UUID | None, limit: int
    ) -> Sequence[ChargeSums]:
        charges = self._tables.operations.where(
            lambda one: one.kind in CHARGE_KINDS and one.provider == _SANDBOX
        )
        page = _page(charges, lambda charge: charge.operation_id, after, limit)
        return [self._charge_sums(charge) for charge in page]

    async def get_sandbox_charges(
        self, operation_ids: Sequence[UUID]
    ) -> Mapping[UUID, ProviderCharge]:
        found = (self._tables.sandbox_charges.get(key) for key in operation_ids)
        return {charge.operation_id: _provider_charge(charge) for charge in found if charge}

    async def list_sandbox_charges(
        self, after: UUID | None, limit: int
    ) -> Sequence[ProviderCharge]:
        charges = self._tables.sandbox_charges.where(lambda one: one.captured > one.refunded)
        page = _page(charges, lambda charge: charge.operation_id, after, limit)
        return [_provider_charge(charge) for charge in page]

    async def get_known_operations(self, operation_ids: Sequence[UUID]) -> AbstractSet[UUID]:
        return {key for key in operation_ids if key in self._tables.operations}

    async def list_waiting(
        self, kind: Waiting, before: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[WaitingRow]:
        waiting = {
            Waiting.OPEN_OPERATIONS: self._open_operations,
            Waiting.OVERDUE_PAYMENTS: self._overdue_payments,
            Waiting.UNAPPLIED_WEBHOOKS: self._unapplied_webhooks,
            Waiting.MONEY_AFTER_END: self._money_after_end,
        }[kind]()
        page = [row for row in waiting if row.since < before and (after is None or row.key > after)]
        return sorted(page, key=lambda row: row.key)[:limit]

    def _open_operations(self) -> Iterator[WaitingRow]:
        for one in self._tables.operations.where(
            lambda one: one.is_open and not one.is_settled_by_hand
        ):
            problem = f"{one.kind} at {one.provider} is {one.status} since"
            row_id = str(one.operation_id)
            yield WaitingRow("operation operation_id", row_id, one.created_at, problem)

    def _overdue_payments(self) -> Iterator[WaitingRow]:
        endless = PAYABLE_STATUSES | {PaymentStatus.AUTHORIZED}
        for one in self._tables.payments.where(lambda one: one.status in endless):
            problem = f"{one.status}, although it has expired at"
            yield WaitingRow("payment payment_id", str(one.payment_id), one.expires_at, problem)

    def _unapplied_webhooks(self) -> Iterator[WaitingRow]:
        for stored in self._tables.events.where(lambda stored: stored.state == "pending"):
            event = stored.event
            if event.operation_id and event.operation_id in self._tables.operations:
                problem = f"{event.type} of {event.provider} is pending since"
                name = "webhook_event event_id"
                yield WaitingRow(name, event.event_id, stored.received_at, problem)

    def _money_after_end(self) -> Iterator[WaitingRow]:
        for one in self._tables.payments.where(lambda one: one.has_money_after_end):
            problem = f"{one.refundable} {one.currency} of an ended payment is not refunded since"
            since = self._last_change(one)
            yield WaitingRow("payment payment_id", str(one.payment_id), since, problem)

    def _last_change(self, payment: Payment) -> datetime:
        operations = self._operations[payment.payment_id]
        return max(one.settled_at or one.created_at for one in operations)

    def _payment_sums(self, payment: Payment) -> PaymentSums:
        operations = self._operations[payment.payment_id]
        succeeded = [one for one in operations if one.status is OperationStatus.SUCCEEDED]
        open_ones = [one for one in operations if one.is_open]
        return PaymentSums(
            payment_id=payment.payment_id,
            status=payment.status,
            amount=payment.amount,
            authorized=payment.authorized,
            captured=payment.captured,
            refunded=payment.refunded,
            refunding=payment.refunding,
            charged_count=sum(one.kind in CHARGE_KINDS for one in succeeded),
            operations_captured=_sum(succeeded, *_CAPTURING_KINDS),
            operations_refunded=_sum(succeeded, OperationKind.REFUND),
            operations_refunding=_sum(open_ones, OperationKind.REFUND),
            other_currency_count=sum(one.currency != payment.currency for one in operations),
        )

    def _charge_sums(self, charge: Operation) -> ChargeSums:
        changes = [
            one
            for one in self._operations[charge.payment_id]
            if charge.operation_id in {one.charge_id, one.operation_id}
        ]
        succeeded = [one for one in changes if one.status is OperationStatus.SUCCEEDED]
        open_ones = [one for one in changes if one.is_open]
        return ChargeSums(
            operation_id=charge.operation_id,
            currency=charge.currency,
            captured=_sum(succeeded, *_CAPTURING_KINDS),
            refunded=_sum(succeeded, OperationKind.REFUND),
            open_captured=_sum(open_ones, *_CAPTURING_KINDS),
            open_refunded=_sum(open_ones, OperationKind.REFUND),
            awaits_action=charge.follow_up_at is not None,
        )


def _sum(operations: Iterable[Operation], *kinds: OperationKind) -> int:
    return sum(operation.amount for operation in operations if operation.kind in kinds)


def _provider_charge(charge: SandboxCharge) -> ProviderCharge:
    return ProviderCharge(charge.operation_id, charge.currency, charge.captured, charge.refunded)


def _page(
    rows: Iterable[F], key_of: Callable[[F], UUID], after: UUID | None, limit: int
) -> Sequence[F]:
    later = (row for row in rows if after is None or key_of(row) > after)
    return sorted(later, key=key_of)[:limit]
