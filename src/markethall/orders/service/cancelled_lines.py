"""Settle the cancellation of units: release their stock, refund their price."""

from contextlib import suppress

from markethall.inventory.contract import ReleasePart, ReservationClosed
from markethall.orders.contract import OrderLinesCancelled
from markethall.orders.service.checkout import ContextClients
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.payment_returns import PaymentReturns
from markethall.orders.service.quotes import to_requested_lines
from markethall.orders.service.shipment_captures import ShipmentCaptures
from markethall.payments.contract import RefundPayment
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.messaging.events import Delivery


class CancelledLines:
    def __init__(
        self, clients: ContextClients, orders: HandledOrders, captures: ShipmentCaptures
    ) -> None:
        self._inventory = clients.inventory
        self._returns = PaymentReturns(clients.payments)
        self._orders = orders
        self._captures = captures

    async def settle(self, delivery: Delivery, event: OrderLinesCancelled) -> None:
        """Release the stock of the cancelled units and refund their price.

        If the payment is only authorized, their price is never captured.
        """
        ctx = delivery.call_context()
        await self._release_lines(ctx, event)
        if not event.amount.amount:
            capture_id = derive_uuid7(event.cancellation_id, "capture")
            await self._captures.capture(delivery, event.order_id, capture_id)
            return
        refund = RefundPayment(
            payment_id=event.payment_id,
            refund_id=derive_uuid7(event.cancellation_id, "refund"),
            amount=event.amount,
            reason=event.reason,
        )
        await self._returns.refund_over(ctx, refund, event.additional_payment_ids)
        await self._orders.mark_processed(delivery)

    async def _release_lines(self, ctx: CallContext, event: OrderLinesCancelled) -> None:
        if not event.lines:
            return
        command = ReleasePart(
            reservation_id=event.reservation_id,
            release_id=event.cancellation_id,
            lines=to_requested_lines(event.lines),
        )
        # ReservationClosed: the order was cancelled meanwhile, and the cancellation has released
        # all its units
        with suppress(ReservationClosed):
            await self._inventory.release_part(ctx, command)
