"""The in-memory store of payments."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from markethall.payments.contract.api import RefundQuery
from markethall.payments.contract.errors import OrderHasPayment
from markethall.payments.contract.internal import PaymentState
from markethall.payments.contract.statuses import OperationKind, PaymentStatus
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.payment import Payment
from markethall.payments.domain.payment_transitions import PAYABLE_STATUSES
from markethall.payments.memory.integrity import MemoryPaymentIntegrityReads
from markethall.payments.memory.ledger import MemoryLedgerStore
from markethall.payments.memory.reconciliation import MemoryReconciliationStore
from markethall.payments.memory.saved_methods import MemoryGuestStore, MemorySavedMethodStore
from markethall.payments.memory.tables import StoredEvent
from markethall.payments.ports import PaymentFilter, ProviderEvent, Settlement, WebhookState
from markethall.shared.idempotency.records import IdempotentCommand, LeaseLost
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.pagination import TimeKeyset


class MemoryPaymentStore(
    MemoryLedgerStore, MemoryReconciliationStore, MemorySavedMethodStore, MemoryGuestStore
):
    # Payments

    async def open_payment(self, payment: Payment) -> Payment:
        existing = self._tables.payments.get(payment.payment_id)
        if existing:
            return existing
        is_first = payment.replaces is None and not payment.is_additional
        if is_first and not self._tables.payment_id_by_order_id.add(
            payment.order_id, payment.payment_id
        ):
            raise OrderHasPayment(order_id=str(payment.order_id))
        if payment.payment_id in self._tables.tombstones:
            payment.cancel()
        self._tables.payments.put(payment.payment_id, payment)
        return payment

    async def activate_payments(self, payment_ids: Sequence[UUID]) -> Sequence[Payment]:
        found = [self._tables.payments.get(payment_id) for payment_id in payment_ids]
        payments = [payment for payment in found if payment]
        for payment in payments:
            payment.is_activated = True
            await self.save_payment(payment)
        return payments

    async def insert_tombstone(self, payment_id: UUID, now: datetime) -> bool:
        is_opened = payment_id in self._tables.payments
        return not is_opened and self._tables.tombstones.add(payment_id, now)

    async def get_payment(self, payment_id: UUID) -> Payment | None:
        return self._tables.payments.get(payment_id)

    # transactions in memory run one at a time, so no row needs a lock
    get_payment_for_update = get_payment

    async def list_payments(self, payment_filter: PaymentFilter) -> Sequence[Payment]:
        payments = self._tables.payments.where(lambda payment: _matches(payment, payment_filter))
        payments.sort(key=_payment_position, reverse=payment_filter.descending)
        return payments[: payment_filter.limit]

    async def list_payment_states(self, after: UUID | None, limit: int) -> Sequence[PaymentState]:
        return MemoryPaymentIntegrityReads(self._tables).list_payment_states(after, limit)

    async def list_payments_to_refund(self, after: UUID | None, limit: int) -> Sequence[UUID]:
        found = self._tables.payments.where(lambda payment: payment.has_money_after_end)
        ids = sorted(payment.payment_id for payment in found)
        return [one for one in ids if after is None or one > after][:limit]

    async def list_overdue_authorizations(self, now: datetime, limit: int) -> Sequence[UUID]:
        overdue = self._tables.payments.where(
            lambda payment: (
                payment.status is PaymentStatus.AUTHORIZED
                and payment.expires_at <= now
                and payment.open_change_id is None
            )
        )
        overdue.sort(key=lambda payment: payment.expires_at)
        return [payment.payment_id for payment in overdue[:limit]]

    async def count(self) -> int:
        return len(self._tables.payments)

    async def save_payment(self, payment: Payment) -> None:
        self._tables.payments.put(payment.payment_id, payment)

    async def expire_overdue_payments(
        self, now: datetime, followed_until: datetime, limit: int
    ) -> Sequence[Payment]:
        followed = {
            operation.payment_id
            for operation in self._tables.operations.where(lambda one: bool(one.follow_up_at))
        }
        overdue = self._tables.payments.where(
            lambda payment: (
                payment.status in PAYABLE_STATUSES
                and payment.expires_at <= now
                and (payment.expires_at <= followed_until or payment.payment_id not in followed)
            )
        )[:limit]
        for payment in overdue:
            payment.expire()
            await self.save_payment(payment)
        return overdue

    # Operations

    async def try_add_operation(self, payment: Payment, operation: Operation) -> bool:
        if not self._is_next_version(payment):
            return False
        await self.save_operation(payment, operation)
        return True

    async def try_settle(
        self, settlement: Settlement, ctx: CallContext, attempt: IdempotentCommand, view: Dto
    ) -> bool:
        stored = self._tables.operations.get(settlement.operation.operation_id)
        if not self._is_next_version(settlement.payment) or stored is None or not stored.is_open:
            return False
        try:
            await self.store_response(attempt, view)
        except LeaseLost:
            return False
        await self.save_operation(settlement.payment, settlement.operation)
        await self.publish(settlement.event, ctx)
        await self.add_posting(settlement.posting)
        return True

    def _is_next_version(self, payment: Payment) -> bool:
        stored = self._tables.payments.get(payment.payment_id)
        return stored is not None and stored.version == payment.version - 1

    async def save_operation(self, payment: Payment, operation: Operation) -> None:
        await self.save_payment(payment)
        self._tables.operations.put(operation.operation_id, operation)

    add_operation = save_corrected_operation = save_operation

    async def get_operation(self, operation_id: UUID) -> Operation | None:
        return self._tables.operations.get(operation_id)

    async def get_payment_for_operation(
        self, payment_id: UUID, operation_id: UUID
    ) -> tuple[Payment | None, Operation | None]:
        return await self.get_payment(payment_id), await self.get_operation(operation_id)

    async def list_operations(
        self, payment_id: UUID, kind: OperationKind | None, after: TimeKeyset | None, limit: int
    ) -> Sequence[Operation]:
        operations = self._tables.operations.where(
            lambda one: (
                one.payment_id == payment_id
                and kind in {None, one.kind}
                and (after is None or (one.created_at, one.operation_id) > after)
            )
        )
        operations.sort(key=lambda one: (one.created_at, one.operation_id))
        return operations[:limit]

    async def list_refunds(
        self, query: RefundQuery, after: TimeKeyset | None
    ) -> Sequence[tuple[Payment, Operation]]:
        refunds = self._tables.operations.where(
            lambda one: (
                one.kind is OperationKind.REFUND
                and query.status in {None, one.status.value}
                and query.provider in {None, one.provider}
                and (after is None or (one.created_at, one.operation_id) > after)
            )
        )
        refunds.sort(key=lambda one: (one.created_at, one.operation_id))
        pairs = ((self._tables.payments.get(one.payment_id), one) for one in refunds)
        return [(payment, one) for payment, one in pairs if payment][: query.limit + 1]

    async def get_payment_and_operation_for_update(
        self, operation_id: UUID
    ) -> tuple[Payment, Operation] | None:
        operation = self._tables.operations.get(operation_id)
        payment = operation and self._tables.payments.get(operation.payment_id)
        return (payment, operation) if payment and operation else None

    async def claim_due_operations(
        self, now: datetime, next_due_at: datetime, limit: int
    ) -> Sequence[Operation]:
        due = self._tables.operations.where(
            lambda one: one.is_open and one.due_at is not None and one.due_at <= now
        )
        claimed = [replace(operation, due_at=next_due_at) for operation in due[:limit]]
        for operation in claimed:
            self._tables.operations.put(operation.operation_id, operation)
        return claimed

    async def hand_to_staff(self, operation_id: UUID) -> bool:
        operation = self._tables.operations.get(operation_id)
        if operation is None or not operation.is_open or operation.is_settled_by_hand:
            return False
        waiting = replace(operation)
        waiting.wait_for_staff()
        self._tables.operations.put(operation_id, waiting)
        return True

    async def claim_follow_ups(
        self, now: datetime, next_at: datetime, limit: int
    ) -> Sequence[Operation]:
        due = self._tables.operations.where(
            lambda operation: operation.follow_up_at is not None and operation.follow_up_at <= now
        )
        for operation in due[:limit]:
            await self.set_follow_up(operation.operation_id, next_at)
        return due[:limit]

    async def set_follow_up(self, operation_id: UUID, follow_up_at: datetime | None) -> None:
        operation = self._tables.operations.get(operation_id)
        if operation:
            self._tables.operations.put(operation_id, replace(operation, follow_up_at=follow_up_at))

    # Webhooks

    async def store_event(self, event: ProviderEvent, state: WebhookState, now: datetime) -> bool:
        key = event.provider, event.event_id
        return self._tables.events.add(key, StoredEvent(event, state, now, now))

    async def set_event_state(
        self, event: ProviderEvent, state: WebhookState, now: datetime
    ) -> None:
        key = event.provider, event.event_id
        if stored := self._tables.events.get(key):
            self._tables.events.put(key, replace(stored, state=state))

    async def postpone_event(
        self, event: ProviderEvent, now: datetime, min_delay: timedelta, max_delay: timedelta
    ) -> None:
        key = event.provider, event.event_id
        stored = self._tables.events.get(key)
        if stored and stored.state == "pending":
            delay = min(max(now - stored.received_at, min_delay), max_delay)
            self._tables.events.put(key, replace(stored, due_at=now + delay))

    async def ignore_unmatched_events(
        self, now: datetime, received_before: datetime, limit: int
    ) -> int:
        unmatched = [
            stored
            for stored in self._pending_events(received_before)
            if not self._is_applicable(stored.event)
        ][:limit]
        for stored in unmatched:
            await self.set_event_state(stored.event, "ignored", now)
        return len(unmatched)

    async def list_applicable_events(
        self, provider: str, now: datetime, limit: int
    ) -> Sequence[ProviderEvent]:
        events = [stored.event for stored in self._pending_events(now)]
        return [
            event for event in events if event.provider == provider and self._is_applicable(event)
        ][:limit]

    def _pending_events(self, due_before: datetime) -> Sequence[StoredEvent]:
        """Return the pending events that are due at this time, sorted by their due time."""
        pending = self._tables.events.where(
            lambda stored: stored.state == "pending" and stored.due_at <= due_before
        )
        return sorted(pending, key=lambda stored: stored.due_at)

    def _is_applicable(self, event: ProviderEvent) -> bool:
        if event.dispute_reference is not None:
            return True
        return event.operation_id is not None and event.operation_id in self._tables.operations


def _matches(payment: Payment, payment_filter: PaymentFilter) -> bool:
    if payment_filter.after and not _is_after(
        payment, payment_filter.after, descending=payment_filter.descending
    ):
        return False
    return (
        payment_filter.user_id in {None, payment.user_id}
        and payment_filter.order_id in {None, payment.order_id}
        and payment_filter.status in {None, payment.status}
        and payment_filter.disputed in {None, payment.dispute is not None}
    )


def _is_after(payment: Payment, position: TimeKeyset, *, descending: bool) -> bool:
    return (
        _payment_position(payment) < position
        if descending
        else _payment_position(payment) > position
    )


def _payment_position(payment: Payment) -> tuple[datetime, UUID]:
    return payment.created_at, payment.payment_id
