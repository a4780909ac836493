"""Capture or void an authorized payment.

The steps are those of a charge: record the operation, call the provider, apply the outcome. A
payment has at most one capture or void whose outcome is not known. A capture that the provider may
not have received is submitted again by the reconciliation job, under the same operation id.
"""

from uuid import UUID

import structlog
from structlog.typing import FilteringBoundLogger

from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.errors import (
    OperationIdTaken,
    PaymentInProgress,
    PaymentNotFound,
    UnsupportedByProvider,
)
from markethall.payments.contract.internal import CapturePayment, PaymentSummary, VoidPayment
from markethall.payments.contract.statuses import OperationKind, PaymentStatus
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.outcomes import ended_event
from markethall.payments.domain.payment import OPEN_CHANGE_RETRY_SECONDS, Payment
from markethall.payments.domain.payment_transitions import ENDED_UNPAID_STATUSES
from markethall.payments.ports import Capability, ReadStore, Store
from markethall.payments.service.apply_outcome import apply_outcome, lock_payment, store_outcome
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.views import to_payment_summary, to_payment_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.payments")
security_log = structlog.get_logger("markethall.security")

_EXPIRY_BATCH_SIZE = 100
_CHANGE_KINDS = frozenset({OperationKind.CAPTURE, OperationKind.VOID})
# a void by another context changes nothing in a payment that has one of these statuses
_UNVOIDABLE_STATUSES = ENDED_UNPAID_STATUSES | {PaymentStatus.CAPTURED}


class ChangeAuthorization:
    def __init__(
        self, database: Database[ReadStore, Store], provider: ProviderClient, clock: Clock
    ) -> None:
        self._database = database
        self._provider = provider
        self._clock = clock

    # Commands of staff

    async def capture(
        self,
        ctx: CallContext,
        payment_id: UUID,
        amount: Money | None,
        attempt: IdempotentCommand,
        *,
        is_final: bool,
    ) -> PaymentView:
        """Capture the amount; None captures the uncaptured rest.

        Raises PaymentNotFound, InvalidPaymentTransition, PaymentInProgress, UnsupportedByProvider,
        CaptureExceedsAuthorized, CurrencyMismatch.
        """
        async with self._database.transaction() as store:
            payment = await lock_payment(store, payment_id)
            operation = await _get_change(store, payment_id, attempt.id)
            if operation is None:
                operation = await self._start_capture(
                    store, payment, attempt.id, amount, is_final=is_final
                )
                _log_request(security_log, ctx, operation)
        return await self._submit(ctx, operation, attempt)

    async def void(
        self, ctx: CallContext, payment_id: UUID, attempt: IdempotentCommand
    ) -> PaymentView:
        """Release the uncaptured rest.

        Raises PaymentNotFound, InvalidPaymentTransition, PaymentInProgress.
        """
        async with self._database.transaction() as store:
            payment = await lock_payment(store, payment_id)
            operation = await _get_change(store, payment_id, attempt.id)
            if operation is None:
                operation = await self._start_void(store, payment, attempt.id)
                _log_request(security_log, ctx, operation)
        return await self._submit(ctx, operation, attempt)

    # Commands of other contexts

    async def capture_due(self, ctx: CallContext, command: CapturePayment) -> PaymentSummary:
        """Capture the due amount that is not captured yet; implements `Payments.capture_due`."""
        async with self._database.transaction() as store:
            payment = await lock_payment(store, command.payment_id)
            operation = await _get_change(store, command.payment_id, command.capture_id)
            if operation is None and payment.status is not PaymentStatus.CAPTURED:
                operation = await self._start_due_capture(store, payment, command)
        return (
            await self._submit_to_end(ctx, operation) if operation else to_payment_summary(payment)
        )

    async def void_payment(self, ctx: CallContext, command: VoidPayment) -> PaymentSummary:
        """Release the uncaptured rest; implements `Payments.void`."""
        async with self._database.transaction() as store:
            payment = await lock_payment(store, command.payment_id)
            operation = await _get_change(store, command.payment_id, command.void_id)
            if operation is None and payment.status not in _UNVOIDABLE_STATUSES:
                operation = await self._start_void(store, payment, command.void_id)
        return (
            await self._submit_to_end(ctx, operation) if operation else to_payment_summary(payment)
        )

    # Expiry

    async def expire_overdue(self) -> None:
        """End the authorizations that have expired at the provider.

        The provider is not called, because it captures nothing after `expires_at`. A payment with a
        capture or void in progress expires after the outcome is known.
        """
        async with self._database.read_session() as reads:
            payment_ids = await reads.list_overdue_authorizations(self._clock(), _EXPIRY_BATCH_SIZE)
        ctx = system_context("payments.expire_authorizations")
        for payment_id in payment_ids:
            await self._expire(ctx, payment_id)

    async def _expire(self, ctx: CallContext, payment_id: UUID) -> None:
        async with self._database.transaction() as store:
            payment = await lock_payment(store, payment_id)
            if not payment.has_overdue_authorization(self._clock()):
                return
            payment.expire()
            await store.save_payment(payment)
            await store.publish(ended_event(payment), ctx)
        log.warning(
            "payment.authorization_expired",
            payment_id=str(payment_id),
            captured=payment.captured,
            currency=payment.currency,
        )

    # Steps

    async def _start_capture(
        self,
        store: Store,
        payment: Payment,
        operation_id: UUID,
        requested: Money | None,
        *,
        is_final: bool,
    ) -> Operation:
        is_partial = requested is not None and requested.amount < payment.capturable
        amount = payment.start_capture(operation_id, requested, self._clock())
        if is_partial and not self._provider.can(payment.provider, Capability.PARTIAL_CAPTURE):
            raise UnsupportedByProvider(
                provider=payment.provider, capability=Capability.PARTIAL_CAPTURE
            )
        is_final = is_final or not self._can_capture_again(payment)
        return await self._add_change(
            store, payment, OperationKind.CAPTURE, amount, is_final=is_final
        )

    async def _start_void(self, store: Store, payment: Payment, operation_id: UUID) -> Operation:
        amount = payment.start_void(operation_id)
        return await self._add_change(store, payment, OperationKind.VOID, amount, is_final=False)

    async def _start_due_capture(
        self, store: Store, payment: Payment, command: CapturePayment
    ) -> Operation | None:
        """Start the capture or, if nothing more will be due, the release of the rest.

        Return None if there is nothing to do.
        """
        amount = min(self._due_sum(payment, command) - payment.captured, payment.capturable)
        is_last = command.due == command.total
        if amount > 0:
            money = payment.money(amount)
            return await self._start_capture(
                store, payment, command.capture_id, money, is_final=is_last
            )
        if is_last and payment.capturable:
            return await self._start_void(store, payment, command.capture_id)
        payment.check_capturable(self._clock())
        return None

    def _due_sum(self, payment: Payment, command: CapturePayment) -> int:
        """Return the sum that the captures should reach, in minor units.

        A provider that captures only once must capture at the first shipment all that will be due;
        one that captures only the whole amount captures that, and the excess is refunded.
        """
        due, total = command.due - payment.money(0), command.total - payment.money(0)
        if not due.amount:
            return 0
        if self._can_capture_again(payment):
            return due.amount
        is_partial = self._provider.can(payment.provider, Capability.PARTIAL_CAPTURE)
        return total.amount if is_partial else payment.authorized

    def _can_capture_again(self, payment: Payment) -> bool:
        return self._provider.can(payment.provider, Capability.MULTIPLE_CAPTURES)

    async def _add_change(
        self, store: Store, payment: Payment, kind: OperationKind, amount: int, *, is_final: bool
    ) -> Operation:
        charge = await store.get_operation(payment.charge_id) if payment.charge_id else None
        if charge is None or payment.open_change_id is None:
            raise AssertionError("an authorized payment has an authorization")
        now = self._clock()
        operation = Operation(
            operation_id=payment.open_change_id,
            payment_id=payment.payment_id,
            kind=kind,
            amount=amount,
            currency=payment.currency,
            provider=charge.provider,
            charge_id=charge.operation_id,
            charge_reference=charge.provider_reference,
            is_final=is_final,
            created_at=now,
            due_at=self._provider.next_reconcile_at(now),
        )
        await store.add_operation(payment, operation)
        return operation

    async def _submit(
        self, ctx: CallContext, operation: Operation, attempt: IdempotentCommand
    ) -> PaymentView:
        outcome = await self._provider.submit(operation) if operation.is_pending else None
        return await store_outcome(
            self._database,
            ctx,
            (operation, outcome),
            attempt,
            self._clock,
            lambda applied: to_payment_view(applied.payment),
        )

    async def _submit_to_end(self, ctx: CallContext, operation: Operation) -> PaymentSummary:
        """Raises PaymentInProgress while the provider gives no outcome."""
        outcome = await self._provider.submit(operation) if operation.is_pending else None
        async with self._database.transaction() as store:
            applied = await apply_outcome(
                store, ctx, operation.operation_id, outcome, self._clock()
            )
        if applied is None:
            raise PaymentNotFound(payment_id=str(operation.payment_id))
        if applied.operation.is_open:
            raise PaymentInProgress(retry_after=OPEN_CHANGE_RETRY_SECONDS)
        return to_payment_summary(applied.payment)


async def _get_change(store: Store, payment_id: UUID, operation_id: UUID) -> Operation | None:
    """Return the capture or void with this id.

    Raises OperationIdTaken if another operation has the id.
    """
    operation = await store.get_operation(operation_id)
    if operation is None:
        return None
    if operation.payment_id != payment_id or operation.kind not in _CHANGE_KINDS:
        raise OperationIdTaken(operation_id=str(operation_id))
    return operation


def _log_request(log: FilteringBoundLogger, ctx: CallContext, operation: Operation) -> None:
    fields = ctx.security_fields | operation.log_fields()
    if operation.kind is OperationKind.CAPTURE:
        log.info("security.capture_requested", **fields)
    else:
        log.info("security.void_requested", **fields)
