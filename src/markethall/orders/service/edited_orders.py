"""Finish an edit after its commit: merge the reservations, release units, refund."""

from contextlib import suppress

from markethall.inventory.contract import (
    MergeReservations,
    OutOfStock,
    ReleasePart,
    ReservationClosed,
)
from markethall.orders.configuration.ports import retry_on_conflict
from markethall.orders.contract import OrderEdited, OrderStatus
from markethall.orders.service.checkout import ContextClients
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.order_events import cancelled_event
from markethall.orders.service.payment_returns import PaymentReturns
from markethall.orders.service.quotes import to_requested_lines
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
        is_out_of_stock = not await self._merge_reservations(ctx, event)
        await self._release_units(ctx, event)
        if is_out_of_stock:
            await self._cancel(delivery, event)
            return
        if event.refund.amount:
            refund = RefundPayment(
                payment_id=event.payment_id,
                refund_id=derive_uuid7(event.edit_id, "refund"),
                amount=event.refund,
                reason="the order was edited",
            )
            await self._returns.refund_over(ctx, refund, event.additional_payment_ids)
        await self._orders.mark_processed(delivery)

    async def _merge_reservations(self, ctx: CallContext, event: OrderEdited) -> bool:
        """Add the additional units to the reservation of the order.

        Return False if they were sold meanwhile, because their reservation had expired.
        """
        if event.merged_reservation_id is None:
            return True
        command = MergeReservations(
            reservation_id=event.reservation_id, merged_reservation_id=event.merged_reservation_id
        )
        try:
            await self._inventory.merge(ctx, command)
        except ReservationClosed as error:
            if error.details["reservation_id"] == str(event.reservation_id):
                # the order was cancelled or has expired meanwhile
                await self._inventory.release(ctx, event.merged_reservation_id)
                return True
            return await self._merge_expired(ctx, command)
        return True

    async def _merge_expired(self, ctx: CallContext, command: MergeReservations) -> bool:
        """Reserve the expired units again, and merge them. Return False if they are sold."""
        try:
            await self._inventory.commit(ctx, command.merged_reservation_id)
        except OutOfStock:
            return False
        await self._inventory.merge(ctx, command)
        return True

    async def _release_units(self, ctx: CallContext, event: OrderEdited) -> None:
        if not event.released_lines:
            return
        command = ReleasePart(
            reservation_id=event.reservation_id,
            release_id=derive_uuid7(event.edit_id, "release"),
            lines=to_requested_lines(event.released_lines),
        )
        # ReservationClosed: the order was cancelled or has expired, which has released all units
        with suppress(ReservationClosed):
            await self._inventory.release_part(ctx, command)

    @retry_on_conflict
    async def _cancel(self, delivery: Delivery, event: OrderEdited) -> None:
        """Cancel the order. The handler of OrderCancelled then returns all the money."""
        order = await self._orders.get(event.order_id)
        if (
            order is None
            or order.status not in {OrderStatus.PENDING, OrderStatus.PROCESSING}
            or order.reservation_id != event.reservation_id
        ):
            await self._orders.mark_processed(delivery)
            return
        audit = self._orders.audit(delivery, "out of stock")
        order.cancel(audit)
        await self._orders.save(delivery, order, cancelled_event(order, audit.reason))
