"""Record the disputes of payments.

A webhook says only that a dispute has changed. Its current state is looked up at the provider, so
the webhooks may arrive late, twice and in any sequence.
"""

from typing import Final
from uuid import UUID

import structlog

from markethall.payments.domain import Payment, dispute_changed_event
from markethall.payments.ports import ProviderDispute, ReadStore, Store, WebhookState
from markethall.payments.service.provider_client import ProviderClient
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.observability.metrics import DISPUTE_CHANGES
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.payments")

_MAX_ATTEMPTS: Final = 3


class DisputeUpdates:
    def __init__(self, database: Database[ReadStore, Store], provider: ProviderClient) -> None:
        self._database = database
        self._provider = provider

    async def apply(self, ctx: CallContext, provider: str, reference: str) -> WebhookState:
        """Record the state that the dispute has now, and return the new state of the event.

        The state is looked up after the payment was read, and is stored only if the dispute of the
        payment has not changed since. So a slow lookup never replaces a newer state.
        Raises Unavailable if the provider gives no answer; then the event stays pending.
        """
        found = await self._lookup(provider, reference)
        for _ in range(_MAX_ATTEMPTS):
            payment = await self._get_payment(provider, found)
            if payment is None:
                return "ignored"
            if (found := await self._lookup(provider, reference)) is None:
                return "ignored"
            changed = await self._save(ctx, payment, found)
            if changed is not None:
                return "applied" if changed else "superseded"
        raise Unavailable(dependency=provider)

    async def _lookup(self, provider: str, reference: str) -> ProviderDispute | None:
        found, was_answered = await self._provider.lookup_dispute(provider, reference)
        if not was_answered:
            raise Unavailable(dependency=provider)
        return found

    async def _get_payment(self, provider: str, found: ProviderDispute | None) -> Payment | None:
        """Return the disputed payment. None for a dispute that concerns no payment of this shop."""
        operation_id: UUID | None = found.operation_id if found else None
        if operation_id is None:
            return None
        async with self._database.read_session() as store:
            operation = await store.get_operation(operation_id)
            if operation is None or operation.provider != provider:
                return None
            return await store.get_payment(operation.payment_id)

    async def _save(self, ctx: CallContext, read: Payment, found: ProviderDispute) -> bool | None:
        """Return whether the dispute has changed; None if the payment was changed since `read`."""
        async with self._database.transaction() as store:
            payment = await store.get_payment_for_update(read.payment_id)
            if payment is None or payment.dispute != read.dispute:
                return None
            if not payment.update_dispute(found.dispute):
                return False
            await store.save_payment(payment)
            await store.publish(dispute_changed_event(payment, found.dispute), ctx)
        _report(payment, found)
        return True


def _report(payment: Payment, found: ProviderDispute) -> None:
    """Log the change for staff, who answer the dispute at the provider."""
    dispute = found.dispute
    DISPUTE_CHANGES.labels(payment.provider, dispute.status).inc()
    log.warning(
        "payment.dispute_changed",
        payment_id=str(payment.payment_id),
        provider_reference=dispute.provider_reference,
        status=dispute.status,
        reason=dispute.reason,
        due_by=dispute.due_by.isoformat() if dispute.due_by else None,
    )
