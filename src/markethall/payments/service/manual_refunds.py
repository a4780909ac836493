"""Refunds by hand: staff see which are due, and record that they have transferred the money.

The amount is reserved when the refund is recorded. It counts as refunded, in the payment and in the
ledger, when staff have transferred it.
"""

from uuid import UUID

import structlog

from markethall.payments.contract.api import RefundQuery
from markethall.payments.contract.errors import (
    InvalidPaymentTransition,
    RefundNotFound,
    UnsupportedByProvider,
)
from markethall.payments.contract.internal import RefundView
from markethall.payments.domain.operation import Operation, Succeeded
from markethall.payments.ports import Capability, ReadStore, Store
from markethall.payments.service.apply_outcome import apply_outcome
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.views import to_refund_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, TimeKeyset
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.security")


class ManualRefundService:
    def __init__(
        self,
        database: Database[ReadStore, Store],
        provider: ProviderClient,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._provider = provider
        self._cursors = cursors
        self._clock = clock

    async def list_refunds(self, ctx: CallContext, query: RefundQuery) -> Page[RefundView]:
        listing = f"refunds {query.status} {query.provider}"
        after = self._cursors.decode(listing, query.cursor, TIME_KEYSET)
        async with self._database.read_session() as store:
            found = await store.list_refunds(query, after)
        views = [to_refund_view(operation, payment) for payment, operation in found]
        return self._cursors.build_page(listing, views, query.limit, _keyset)

    async def mark_refund_paid(
        self,
        ctx: CallContext,
        payment_id: UUID,
        refund_id: UUID,
        reference: str,
        attempt: IdempotentCommand,
    ) -> RefundView:
        async with self._database.transaction() as store:
            locked = await store.get_payment_and_operation_for_update(refund_id)
            if locked is None or not locked[1].is_refund_of(payment_id):
                raise RefundNotFound(refund_id=str(refund_id))
            self._check_can_be_marked(locked[1])
            paid = Succeeded(reference)
            applied = await apply_outcome(store, ctx, refund_id, paid, self._clock())
            if applied is None:
                raise RefundNotFound(refund_id=str(refund_id))
            view = to_refund_view(applied.operation, applied.payment)
            await store.store_response(attempt, view)
        fields = ctx.security_fields | applied.operation.log_fields("refund_id")
        log.info("security.refund_marked_paid", **fields)
        return view

    def _check_can_be_marked(self, refund: Operation) -> None:
        """Raises UnsupportedByProvider, InvalidPaymentTransition."""
        if not self._provider.is_refunded_by_hand(refund.provider):
            raise UnsupportedByProvider(
                provider=refund.provider, capability=Capability.MARK_PAID.value
            )
        if not refund.is_open:
            raise InvalidPaymentTransition(
                f"The refund is {refund.status.value}.", status=refund.status.value, allowed=[]
            )


def _keyset(refund: RefundView) -> TimeKeyset:
    return TimeKeyset(refund.created_at, refund.refund_id)
