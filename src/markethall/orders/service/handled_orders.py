"""Reads and writes of orders by the event handlers.

Each write also marks the event as processed, in the same transaction.
"""

from collections.abc import Callable
from uuid import UUID

from markethall.orders.configuration.ports import retry_on_conflict
from markethall.orders.contract import OrderStatus
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.ports import ReadStore, Store
from markethall.orders.service.invoices import InvoiceDrafts
from markethall.orders.service.order_events import cancelled_event
from markethall.payments.contract import PaymentEvent
from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import Delivery, Event
from markethall.shared.persistence.database import Database


class HandledOrders:
    def __init__(
        self, database: Database[ReadStore, Store], invoices: InvoiceDrafts, clock: Clock
    ) -> None:
        self._database = database
        self._invoices = invoices
        self._clock = clock

    async def get(self, order_id: UUID) -> Order | None:
        """Return the order, or None if it does not exist.

        The order of a payment event normally exists, because its payment was activated only after
        the order was committed.
        """
        async with self._database.read_session() as store:
            return await store.get_order(order_id)

    @retry_on_conflict
    async def change(
        self, delivery: Delivery, order_id: UUID, change: Callable[[Order], None]
    ) -> None:
        order = await self.get(order_id)
        if order is None:
            await self.mark_processed(delivery)
        else:
            change(order)
            await self.save(delivery, order)

    @retry_on_conflict
    async def cancel_out_of_stock(
        self, delivery: Delivery, order_id: UUID, reservation_id: UUID
    ) -> None:
        """Cancel the order, unless it has another reservation by now, or has ended."""
        order = await self.get(order_id)
        if (
            order is None
            or order.status not in {OrderStatus.PENDING, OrderStatus.PROCESSING}
            or order.reservation_id != reservation_id
        ):
            await self.mark_processed(delivery)
            return
        audit = self.audit(delivery, "out of stock")
        order.cancel(audit)
        await self.save(delivery, order, cancelled_event(order, audit.reason))

    async def record_payment(
        self, delivery: Delivery, event: PaymentEvent, change: Callable[[Order], None]
    ) -> None:
        """Apply the change, unless the event is about a payment that an edit has replaced."""

        def change_if_current(order: Order) -> None:
            if order.payment_id == event.payment_id:
                change(order)

        await self.change(delivery, event.order_id, change_if_current)

    async def mark_processed(self, delivery: Delivery, event: Event | None = None) -> None:
        """Mark the event as processed. Publish the other event, unless this was done before."""
        database = self._database
        async with database.transaction() if event else database.autocommit() as store:
            if await store.mark_processed(delivery) and event:
                await store.publish(event, delivery.call_context())

    async def save(self, delivery: Delivery, order: Order, *events: Event) -> bool:
        """Save the order and publish the events. Return False if the event was processed before.

        Add the invoice if the order has been paid. Raises ConcurrentUpdate, RedemptionFailed.
        """
        invoice = await self._invoices.draft_if_paid(order, events)
        # another statement updates the uses of promotions and the edits
        needs_transaction = order.use_change is not None or bool(order.additional_payments)
        database = self._database
        async with database.transaction() if needs_transaction else database.autocommit() as store:
            if order.has_changed or events:
                return await store.save_handled_order(delivery, order, events, invoice)
            return await store.mark_processed(delivery)

    def audit(self, delivery: Delivery, reason: str = "") -> AuditInfo:
        return AuditInfo(delivery.call_context().actor.audit_name, self._clock(), reason)
