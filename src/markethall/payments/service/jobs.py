"""Periodic jobs of payments: expire payments, reconcile operations, apply pending webhooks."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from markethall.payments.contract.errors import PaymentInProgress
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import Operation, Outcome, Succeeded
from markethall.payments.domain.outcomes import status_changed_event
from markethall.payments.domain.payment import Payment
from markethall.payments.domain.payment_transitions import PAYABLE_STATUSES
from markethall.payments.ports import ReadStore, Store
from markethall.payments.service.apply_outcome import apply_outcome, refund_second_charge
from markethall.payments.service.issue_refund import IssueRefund
from markethall.payments.service.provider_client import ProviderClient, Undecided
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.payments")

_EXPIRY_BATCH_SIZE: Final = 500
_REFUND_BATCH_SIZE: Final = 100
_MAX_FOLLOW_UP_WAIT: Final = timedelta(minutes=5)
# concurrent calls of providers; storing each outcome takes one database connection
_CONCURRENCY: Final = 8
# The delay before a charge is looked up again. It is as long as the charge is old, within these
# limits.
_MIN_DELAY: Final = timedelta(minutes=1)
_MAX_DELAY: Final = timedelta(minutes=10)
# a charge is tried again after this time if the provider gave no answer or the process has crashed
_RETRY_DELAY: Final = timedelta(seconds=30)


class PaymentJobs:
    def __init__(
        self,
        database: Database[ReadStore, Store],
        provider: ProviderClient,
        issue_refund: IssueRefund,
        clock: Clock,
    ) -> None:
        self._database = database
        self._provider = provider
        self._issue_refund = issue_refund
        self._clock = clock
        # the last payment that refund_ended_payments has taken; None at the end of the list
        self._refunded_up_to: UUID | None = None

    async def expire_overdue_payments(self) -> None:
        """Expire payments that were not confirmed before `expires_at`.

        A payment with a charge that is followed up waits for the provider, at most
        _MAX_FOLLOW_UP_WAIT: the customer may have paid in time.
        """
        ctx = system_context("payments.expire")
        now = self._clock()
        async with self._database.transaction() as store:
            for payment in await store.expire_overdue_payments(
                now, now - _MAX_FOLLOW_UP_WAIT, _EXPIRY_BATCH_SIZE
            ):
                await store.publish(status_changed_event(payment), ctx)

    async def refund_ended_payments(self) -> None:
        """Refund the money that was received for voided, cancelled or expired payments.

        A payment whose refund was rejected stays in the list. So each run continues after the last
        payment of the previous run, and at the end of the list starts again at its beginning. The
        position is stored only in this process, because any position is good after a restart.
        """
        async with self._database.read_session() as store:
            payment_ids = await store.list_payments_to_refund(
                self._refunded_up_to, _REFUND_BATCH_SIZE
            )
        ctx = system_context("payments.refund_ended")
        for payment_id in payment_ids:
            # set before the refund, so that the next run does not start again at a payment that
            # raises an error
            self._refunded_up_to = payment_id
            await self._issue_refund.refund_ended_payment(ctx, payment_id)
        if len(payment_ids) < _REFUND_BATCH_SIZE:
            self._refunded_up_to = None

    async def reconcile(self) -> None:
        """Ask the provider for the outcome of operations that are still open after `due_at`."""
        while due := await self._claim_due_operations():
            results = await asyncio.gather(
                *map(self._reconcile_operation, due), return_exceptions=True
            )
            for result in results:
                if result is not None:
                    raise result

    async def reconcile_operation(self, operation_id: UUID) -> None:
        """Ask the provider for the outcome of one operation, if it is still open."""
        async with self._database.read_session() as store:
            operation = await store.get_operation(operation_id)
        if operation and operation.is_open:
            await self._reconcile_operation(operation)

    async def _claim_due_operations(self) -> Sequence[Operation]:
        now = self._clock()
        async with self._database.autocommit() as store:
            return await store.claim_due_operations(
                now, self._provider.next_reconcile_at(now), _CONCURRENCY
            )

    async def _reconcile_operation(self, operation: Operation) -> None:
        is_refund = operation.kind is OperationKind.REFUND
        if is_refund and await self._issue_refund.has_to_wait(operation):
            return
        outcome = await self._provider.reconcile(operation)
        ctx = system_context("payments.reconcile")
        async with self._database.transaction() as store:
            await apply_outcome(store, ctx, operation.operation_id, outcome, self._clock())


class FollowUps:
    """Follows up charges that wait for an action of the customer.

    The customer acts at the provider, and a webhook reports it. If the webhook is lost, this job
    finds the outcome. When the payment has ended here, the job cancels the charge at the provider,
    so that the customer cannot pay for nothing.
    """

    def __init__(
        self, database: Database[ReadStore, Store], provider: ProviderClient, clock: Clock
    ) -> None:
        self._database = database
        self._provider = provider
        self._clock = clock

    async def run(self) -> None:
        """Look up charges that wait for the customer; cancel those whose payment has ended."""
        while due := await self._claim():
            results = await asyncio.gather(*map(self._follow_up, due), return_exceptions=True)
            for result in results:
                if result is not None:
                    raise result

    async def _claim(self) -> Sequence[Operation]:
        now = self._clock()
        async with self._database.autocommit() as store:
            return await store.claim_follow_ups(now, now + _RETRY_DELAY, _CONCURRENCY)

    async def _follow_up(self, charge: Operation) -> None:
        """Look the charge up, or cancel it because its payment has ended."""
        async with self._database.read_session() as store:
            payment = await store.get_payment(charge.payment_id)
        if payment is None:
            raise AssertionError("an operation has a payment")
        if _can_be_paid(payment, self._clock()):
            await self._look_up(charge, payment)
        else:
            await self._cancel(charge)

    async def _look_up(self, charge: Operation, payment: Payment) -> None:
        outcome, was_answered = await self._provider.lookup_action(charge)
        if not was_answered:
            return
        if outcome is None or isinstance(outcome, Undecided) or await self._apply(charge, outcome):
            next_at = min(_next_follow_up(charge, self._clock()), payment.expires_at)
            is_over = isinstance(outcome, Succeeded)
            await self._set_follow_up(charge, None if is_over else next_at)

    async def _cancel(self, charge: Operation) -> None:
        """Cancel the charge at the provider. Apply its outcome if the customer has paid before.

        A failure is not applied: the payment has ended, or the job that expires payments ends it.
        """
        outcome = await self._provider.cancel_action(charge)
        if outcome is None:
            return
        if isinstance(outcome, Undecided):
            await self._set_follow_up(charge, _next_follow_up(charge, self._clock()))
        elif not isinstance(outcome, Succeeded):
            log.info("payment.action_cancelled", operation_id=str(charge.operation_id))
            await self._set_follow_up(charge, None)
        elif await self._apply(charge, outcome):
            await self._set_follow_up(charge, None)

    async def _apply(self, charge: Operation, outcome: Outcome) -> bool:
        """Return False if the outcome must be applied later."""
        ctx = system_context("payments.follow_up")
        try:
            async with self._database.transaction() as store:
                applied = await apply_outcome(
                    store, ctx, charge.operation_id, outcome, self._clock()
                )
        except PaymentInProgress:
            return False
        if applied and applied.is_conflict and isinstance(outcome, Succeeded):
            refund = await refund_second_charge(
                self._provider, applied.operation, outcome.reference, self._clock()
            )
            return refund is not None
        return True

    async def _set_follow_up(self, charge: Operation, follow_up_at: datetime | None) -> None:
        async with self._database.autocommit() as store:
            await store.set_follow_up(charge.operation_id, follow_up_at)


def _can_be_paid(payment: Payment, now: datetime) -> bool:
    """Tell whether the customer may still finish the action of a charge, and so pay.

    A later charge in progress does not prevent that, because it may fail.
    """
    is_payable = payment.status in PAYABLE_STATUSES or payment.is_in_progress
    return is_payable and now < payment.expires_at


def _next_follow_up(charge: Operation, now: datetime) -> datetime:
    return now + min(max(now - charge.created_at, _MIN_DELAY), _MAX_DELAY)
