"""Settle returns: restock the units that have arrived, and refund closed returns."""

from uuid import UUID

from markethall.inventory.contract import Inventory, Restock
from markethall.orders.configuration.ports import ConcurrentUpdate, retry_on_conflict
from markethall.orders.contract import ReturnClosed, ReturnReceived
from markethall.orders.domain import AuditInfo
from markethall.orders.ports import ReadStore, Store
from markethall.orders.service.checkout import ContextClients
from markethall.orders.service.payment_returns import PaymentReturns
from markethall.orders.service.quotes import to_requested_lines
from markethall.payments.contract import InvalidPaymentTransition, RefundPayment
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.messaging.events import Delivery
from markethall.shared.persistence.database import Database


class ReturnSettlements:
    def __init__(
        self, clients: ContextClients, database: Database[ReadStore, Store], clock: Clock
    ) -> None:
        self._inventory: Inventory = clients.inventory
        self._payment_returns = PaymentReturns(clients.payments)
        self._database = database
        self._clock = clock

    async def restock(self, delivery: Delivery, event: ReturnReceived) -> None:
        if event.restocked:
            lines = to_requested_lines(event.restocked)
            command = Restock(restock_id=event.receipt_id, lines=lines)
            await self._inventory.restock(delivery.call_context(), command)
        async with self._database.transaction() as store:
            await store.mark_processed(delivery)

    async def refund(self, delivery: Delivery, event: ReturnClosed) -> None:
        """Refund a closed return, but at most what is left to refund.

        The id of the refund is derived from that of the return, so a repeated call makes no second
        refund. A difference is recorded in the timeline.
        """
        refunded = await self._refund_payment(delivery.call_context(), event)
        await self._record(delivery, event, refunded)

    async def _refund_payment(self, ctx: CallContext, event: ReturnClosed) -> int:
        if not event.refund.amount:
            return 0
        command = RefundPayment(
            payment_id=event.payment_id,
            refund_id=refund_id_of(event.return_id),
            amount=event.refund,
            reason="return",
        )
        try:
            return await self._payment_returns.refund_over(
                ctx, command, event.additional_payment_ids
            )
        except InvalidPaymentTransition:
            # nothing was captured, for example because the authorization had expired
            return 0

    @retry_on_conflict
    async def _record(self, delivery: Delivery, event: ReturnClosed, refunded: int) -> None:
        async with self._database.transaction() as store:
            entity = await store.get_return(event.return_id)
            order = await store.get_order(event.order_id)
            if not await store.mark_processed(delivery) or entity is None or order is None:
                return
            now = self._clock()
            entity.settle(refunded, now)
            if not await store.save_return(entity):
                raise ConcurrentUpdate
            if missing := event.refund.amount - refunded:
                reason = f"{missing} {event.refund.currency} were not left to refund"
                actor = delivery.call_context().actor.audit_name
                order.record_return("return_refund_reduced", AuditInfo(actor, now, reason))
                await store.save_order(order)


def refund_id_of(return_id: UUID) -> UUID:
    return derive_uuid7(return_id, "refund")
