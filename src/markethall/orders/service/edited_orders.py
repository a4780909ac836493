"""Finish an edit after its commit: commit the new reservation, release units, refund."""

from contextlib import suppress

from markethall.inventory.contract import (
    OutOfStock,
    ReleasePart,
    RequestedLine,
    ReservationClosed,
)
from markethall.orders.contract import OrderEdited, OrderStatus
from markethall.orders.service.checkout import ContextClients
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.optimistic_retry import retry_on_conflict
from markethall.orders.service.order_events import cancelled_event
from markethall.orders.service.payment_returns import PaymentReturns
from markethall.payments.contract import RefundPayment
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.messaging.events import Delivery


class EditedOrders:
    def __init__(self, clients: ContextClients, orders: HandledOrders) -> None:
        self._inventory = clients.inventory
        self._returns = PaymentReturns(clients.payments)
        self._orders = orders

    async def finish(self, delivery: Delivery, event: OrderEdited) -> None:
        ctx = delivery.call_context()
        is_out_of_stock = await self._replace_reservation(ctx, event)
        await self._release_units(ctx, event)
        if is_out_of_stock:
            await retry_on_conflict(lambda: self._cancel(delivery, event))
            return
        if event.refund.amount:
            refund = RefundPayment(
                payment_id=event.payment_id,
                refund_id=derive_uuid7(event.edit_id, "refund"),
                amount=event.refund,
                reason="the order was edited",
            )
            await self._returns.refund_up_to(ctx, refund)
        await self._orders.mark_processed(delivery)

    async def _replace_reservation(self, ctx: CallContext, event: OrderEdited) -> bool:
        """Commit the new reservation of a paid order, and release the old one.

        Return whether the units of the new one were sold meanwhile, because it had expired.
        """
        if event.released_reservation_id is None:
            return False
        order = await self._orders.get(event.order_id)
        is_current = order is not None and order.reservation_id == event.reservation_id
        is_out_of_stock = False
        if order and is_current and order.status is OrderStatus.PROCESSING:
            try:
                await self._inventory.commit(ctx, event.reservation_id)
            except (OutOfStock, ReservationClosed):
                is_out_of_stock = True
        await self._inventory.release(ctx, event.released_reservation_id)
        return is_out_of_stock

    async def _release_units(self, ctx: CallContext, event: OrderEdited) -> None:
        if not event.released_lines:
            return
        command = ReleasePart(
            reservation_id=event.reservation_id,
            release_id=derive_uuid7(event.edit_id, "release"),
            lines=tuple(
                RequestedLine(product_id=line.product_id, quantity=line.quantity)
                for line in event.released_lines
            ),
        )
        # ReservationClosed: the order was cancelled or has expired, which has released all units
        with suppress(ReservationClosed):
            await self._inventory.release_part(ctx, command)

    async def _cancel(self, delivery: Delivery, event: OrderEdited) -> None:
        """Cancel the order. The handler of OrderCancelled then returns all the money."""
        order = await self._orders.get(event.order_id)
        if (
            order is None
            or order.status is not OrderStatus.PROCESSING
            or order.reservation_id != event.reservation_id
        ):
            await self._orders.mark_processed(delivery)
            return
        audit = self._orders.audit(delivery, "out of stock")
        order.cancel(audit)
        await self._orders.save(delivery, order, cancelled_event(order, audit.reason))
