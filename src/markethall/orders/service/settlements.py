"""Settle changes of orders after their commit: stock, reservations and refunds."""

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from markethall.inventory.contract import (
    MergeReservations,
    OutOfStock,
    ReleasePart,
    ReservationClosed,
    Restock,
)
from markethall.orders.configuration.ports import ConcurrentUpdate, retry_on_conflict
from markethall.orders.contract import (
    FulfilledLine,
    OrderEdited,
    OrderLinesCancelled,
    ReturnClosed,
    ReturnReceived,
)
from markethall.orders.domain import AuditInfo
from markethall.orders.ports import ReadStore, Store
from markethall.orders.service.checkout import ContextClients
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.payment_returns import PaymentReturns
from markethall.orders.service.quotes import to_requested_lines
from markethall.orders.service.shipments import Shipments
from markethall.payments.contract import InvalidPaymentTransition, RefundPayment
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.messaging.events import Delivery
from markethall.shared.persistence.database import Database


class LineSettlements:
    """Settles the cancellation of units, and edits."""

    def __init__(
        self, clients: ContextClients, orders: HandledOrders, shipments: Shipments
    ) -> None:
        self._inventory = clients.inventory
        self._returns = PaymentReturns(clients.payments)
        self._orders = orders
        self._shipments = shipments

    async def settle_cancellation(self, delivery: Delivery, event: OrderLinesCancelled) -> None:
        """Release the stock of the cancelled units and refund their price.

        If the payment is only authorized, their price is never captured.
        """
        ctx = delivery.call_context()
        await self._release(ctx, event.reservation_id, event.cancellation_id, event.lines)
        if not event.amount.amount:
            capture_id = derive_uuid7(event.cancellation_id, "capture")
            await self._shipments.capture(delivery, event.order_id, capture_id)
            return
        refund = RefundPayment(
            payment_id=event.payment_id,
            refund_id=derive_uuid7(event.cancellation_id, "refund"),
            amount=event.amount,
            reason=event.reason,
        )
        await self._returns.refund_over(ctx, refund, event.additional_payment_ids)
        await self._orders.mark_processed(delivery)

    async def settle_edit(self, delivery: Delivery, event: OrderEdited) -> None:
        ctx = delivery.call_context()
        is_out_of_stock = not await self._merge_reservations(ctx, event)
        release_id = derive_uuid7(event.edit_id, "release")
        await self._release(ctx, event.reservation_id, release_id, event.released_lines)
        if is_out_of_stock:
            # the handler of OrderCancelled then returns all the money
            await self._orders.cancel_out_of_stock(delivery, event.order_id, event.reservation_id)
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

    async def _release(
        self,
        ctx: CallContext,
        reservation_id: UUID,
        release_id: UUID,
        lines: Sequence[FulfilledLine],
    ) -> None:
        if not lines:
            return
        command = ReleasePart(
            reservation_id=reservation_id, release_id=release_id, lines=to_requested_lines(lines)
        )
        # ReservationClosed: the order was cancelled or has expired, which has released all units
        with suppress(ReservationClosed):
            await self._inventory.release_part(ctx, command)


class ReturnSettlements:
    def __init__(
        self, clients: ContextClients, database: Database[ReadStore, Store], clock: Clock
    ) -> None:
        self._inventory = clients.inventory
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
        """Refund a closed return, at most the amount that is not refunded yet.

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
            refund_id=derive_uuid7(event.return_id, "refund"),
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
