"""Refund a payment: reserve the amount, call the provider, record the outcome."""

from uuid import UUID

import structlog

from markethall.payments.contract.errors import OperationIdTaken
from markethall.payments.contract.internal import RefundPayment, RefundView
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import Operation, Outcome
from markethall.payments.domain.payment import Payment
from markethall.payments.ports import ReadStore, Store
from markethall.payments.service.apply_outcome import lock_payment, store_outcome
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.views import to_refund_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.security")


class IssueRefund:
    """The use case of a refund. Other contexts call it, and staff by the HTTP API."""

    def __init__(
        self, database: Database[ReadStore, Store], provider: ProviderClient, clock: Clock
    ) -> None:
        self._database = database
        self._provider = provider
        self._clock = clock

    async def refund(
        self, ctx: CallContext, command: RefundPayment, attempt: IdempotentCommand
    ) -> RefundView:
        """Refund the payment.

        Raises PaymentNotFound, InvalidPaymentTransition, RefundExceedsCaptured, OperationIdTaken.
        """
        operation = await self._record_intent(ctx, command)
        if await self.has_to_wait(operation):
            return await self._answer_pending(operation, attempt)
        outcome = await self._provider.submit(operation) if operation.is_pending else None
        return await self._store_outcome(ctx, operation, outcome, attempt)

    async def _record_intent(self, ctx: CallContext, command: RefundPayment) -> Operation:
        """Reserve the amount and insert the operation, or return that of an earlier attempt."""
        async with self._database.transaction() as store:
            payment = await lock_payment(store, command.payment_id)
            existing = await _get_existing_refund(store, command)
            if existing:
                return existing
            operation = await self._reserve(store, payment, command)
        fields = ctx.security_fields | operation.log_fields("refund_id")
        log.info("security.refund_requested", **fields)
        if operation.is_settled_by_hand:
            _log_due(operation)
        return operation

    async def refund_ended_payment(self, ctx: CallContext, payment_id: UUID) -> None:
        """Refund the money that was received for a voided, cancelled or expired payment.

        The refund id is derived from the payment id and the captured amount, so a second run of the
        job does not refund the same money again.
        """
        async with self._database.transaction() as store:
            payment = await store.get_payment_for_update(payment_id)
            if payment is None or not payment.has_money_after_end:
                return
            refund_id = derive_uuid7(payment_id, f"ended after {payment.captured}")
            command = RefundPayment(
                payment_id=payment_id, refund_id=refund_id, reason="the payment ended unpaid"
            )
            if await store.get_operation(refund_id):
                return
            operation = await self._reserve(store, payment, command)
        if operation.is_settled_by_hand:
            _log_due(operation)
        if await self.has_to_wait(operation):
            return
        outcome = await self._provider.submit(operation)
        await self._store_outcome(
            ctx, operation, outcome, IdempotentCommand.without_key(operation.operation_id)
        )

    async def has_to_wait(self, refund: Operation) -> bool:
        """Tell whether a refund waits for staff, or until its provider is enabled again.

        A refund of a disabled provider is recorded without a decision whether staff transfer it. If
        they do, the refund is handed to staff first.
        """
        if refund.is_open and self._provider.is_refunded_by_hand(refund.provider):
            await self._hand_to_staff(refund)
        is_disabled = not self._provider.is_enabled(refund.provider)
        return refund.is_settled_by_hand or (refund.is_pending and is_disabled)

    async def _hand_to_staff(self, refund: Operation) -> None:
        if refund.is_settled_by_hand:
            return
        async with self._database.autocommit() as store:
            is_handed_over = await store.hand_to_staff(refund.operation_id)
        refund.wait_for_staff()
        if is_handed_over:
            _log_due(refund)

    async def _reserve(self, store: Store, payment: Payment, command: RefundPayment) -> Operation:
        amount = payment.reserve_refund(command.amount)
        charge = await _get_charge(store, payment)
        operation = self._build_refund(charge, command, amount)
        await store.add_operation(payment, operation)
        return operation

    def _build_refund(self, charge: Operation, command: RefundPayment, amount: int) -> Operation:
        now = self._clock()
        is_by_hand = self._provider.is_refunded_by_hand(charge.provider)
        return Operation(
            operation_id=command.refund_id,
            payment_id=charge.payment_id,
            kind=OperationKind.REFUND,
            amount=amount,
            currency=charge.currency,
            provider=charge.provider,
            charge_id=charge.operation_id,
            charge_reference=charge.provider_reference,
            reason=command.reason,
            created_at=now,
            due_at=None if is_by_hand else self._provider.next_reconcile_at(now),
        )

    async def _answer_pending(self, operation: Operation, attempt: IdempotentCommand) -> RefundView:
        """Return the refund. No provider is called: staff transfer it, or it is disabled."""
        async with self._database.transaction() as store:
            payment = await lock_payment(store, operation.payment_id)
            refund = to_refund_view(operation, payment)
            attempt.is_final = operation.is_settled_by_hand
            if attempt.is_final:
                await store.store_response(attempt, refund)
            return refund

    async def _store_outcome(
        self,
        ctx: CallContext,
        operation: Operation,
        outcome: Outcome | None,
        attempt: IdempotentCommand,
    ) -> RefundView:
        return await store_outcome(
            self._database,
            ctx,
            (operation, outcome),
            attempt,
            self._clock,
            lambda applied: to_refund_view(applied.operation, applied.payment),
        )


def _log_due(operation: Operation) -> None:
    """Log that staff have to transfer the refund, which may come from a job or a cancellation."""
    log.warning(
        "payment.manual_refund_due",
        payment_id=str(operation.payment_id),
        refund_id=str(operation.operation_id),
        amount=operation.amount,
        currency=operation.currency,
    )


async def _get_charge(store: Store, payment: Payment) -> Operation:
    """Return the operation that captured the payment."""
    charge = await store.get_operation(payment.charge_id) if payment.charge_id else None
    if charge is None:
        raise AssertionError("a captured payment has a charge")
    return charge


async def _get_existing_refund(store: Store, command: RefundPayment) -> Operation | None:
    """Return the refund with this id. Raises OperationIdTaken if another operation has the id."""
    operation = await store.get_operation(command.refund_id)
    if operation and not operation.is_refund_of(command.payment_id):
        raise OperationIdTaken(operation_id=str(command.refund_id))
    return operation
