"""Periodic jobs of payments: expire payments, reconcile operations, apply pending webhooks."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from markethall.payments.contract import OperationKind
from markethall.payments.domain import Operation, status_changed_event
from markethall.payments.ports import ReadStore, Store
from markethall.payments.service.apply_outcome import apply_outcome
from markethall.payments.service.issue_refund import IssueRefund
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.webhooks import WebhookHandler
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.database import Database

_EXPIRY_BATCH_SIZE = 500
_REFUND_BATCH_SIZE = 100
_MAX_FOLLOW_UP_WAIT = timedelta(minutes=5)
# concurrent calls of providers; storing each outcome takes one database connection
_RECONCILE_CONCURRENCY = 8


class PaymentJobs:
    def __init__(
        self,
        database: Database[ReadStore, Store],
        provider: ProviderClient,
        webhooks: WebhookHandler,
        issue_refund: IssueRefund,
        clock: Clock,
    ) -> None:
        self._database = database
        self._provider = provider
        self._webhooks = webhooks
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

    async def apply_pending_webhooks(self) -> None:
        await self._webhooks.apply_pending()

    async def _claim_due_operations(self) -> Sequence[Operation]:
        now = self._clock()
        async with self._database.autocommit() as store:
            return await store.claim_due_operations(
                now, self._provider.next_reconcile_at(now), _RECONCILE_CONCURRENCY
            )

    async def _reconcile_operation(self, operation: Operation) -> None:
        is_refund = operation.kind is OperationKind.REFUND
        if is_refund and await self._issue_refund.has_to_wait(operation):
            return
        outcome = await self._provider.reconcile(operation)
        ctx = system_context("payments.reconcile")
        async with self._database.transaction() as store:
            await apply_outcome(store, ctx, operation.operation_id, outcome, self._clock())
