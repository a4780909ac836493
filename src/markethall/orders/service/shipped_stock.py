"""Record the stock movements of shipments: units that leave, and units that come back."""

from markethall.inventory.contract import Consume, Inventory, OutOfStock, Restock
from markethall.orders.contract import FulfilmentReturned, OrderFulfilled, SaleDeferred
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.quotes import to_requested_lines
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.messaging.events import Delivery, RetryLater


class ShippedStock:
    def __init__(self, inventory: Inventory, orders: HandledOrders) -> None:
        self._inventory = inventory
        self._orders = orders

    async def record_sale(self, delivery: Delivery, event: OrderFulfilled) -> None:
        """Record the sale of the units.

        Units that were sold as backorder may not be on hand yet, because their receipt is not
        recorded. Their sale is then deferred by an event with another key, so that the refunds and
        captures of the order do not wait for them.
        """
        try:
            await self._consume(delivery.call_context(), event)
        except OutOfStock:
            deferred = SaleDeferred(**dict(event))
            await self._orders.mark_processed(delivery, deferred)
        else:
            await self._orders.mark_processed(delivery)

    async def record_deferred_sale(self, delivery: Delivery, event: SaleDeferred) -> None:
        """Record the sale as soon as the units are on hand. Raises RetryLater before."""
        try:
            await self._consume(delivery.call_context(), event)
        except OutOfStock as error:
            raise RetryLater("the goods are not on hand") from error
        await self._orders.mark_processed(delivery)

    async def _consume(self, ctx: CallContext, event: OrderFulfilled | SaleDeferred) -> None:
        """Raises OutOfStock. The fulfilment id makes repeated calls idempotent."""
        if event.lines:
            command = Consume(
                reservation_id=event.reservation_id,
                fulfilment_id=event.fulfilment_id,
                lines=to_requested_lines(event.lines),
            )
            await self._inventory.consume(ctx, command)
        if event.reshipment_id:
            # the reservation may have expired if this runs late
            await self._inventory.commit(ctx, event.reshipment_id)
            command = Consume(
                reservation_id=event.reshipment_id,
                fulfilment_id=event.reshipment_id,
                lines=to_requested_lines(event.reshipped),
            )
            await self._inventory.consume(ctx, command)

    async def restock(self, delivery: Delivery, event: FulfilmentReturned) -> None:
        """Add the units of a shipment that has come back to the stock, if staff chose so."""
        if event.restocked:
            command = Restock(
                restock_id=derive_uuid7(event.fulfilment_id, "restock"),
                lines=to_requested_lines(event.restocked),
            )
            await self._inventory.restock(delivery.call_context(), command)
        await self._orders.mark_processed(delivery)
