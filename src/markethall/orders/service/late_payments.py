"""Payments that succeed after the end of their order.

An expired order is reinstated if its stock and its promotions are still available. Otherwise, and
for a cancelled order, the money is returned.
"""

from dataclasses import replace
from uuid import UUID

from markethall.inventory.contract import OutOfStock, ProductNotFound, ReservationStatus, Reserve
from markethall.orders.domain import Order
from markethall.orders.promotions.domain import RedemptionFailed
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.order_events import paid_event
from markethall.orders.service.payment_returns import PaymentReturns
from markethall.orders.service.quotes import to_requested_lines
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.messaging.events import Delivery


class LatePayments:
    def __init__(
        self,
        clients: ContextClients,
        orders: HandledOrders,
        policy: ReservationPolicy,
        clock: Clock,
    ) -> None:
        self._inventory = clients.inventory
        self._returns = PaymentReturns(clients.payments)
        self._orders = orders
        self._policy = policy
        self._clock = clock

    async def reinstate(
        self, delivery: Delivery, order: Order, authorized_version: int | None = None
    ) -> bool:
        """Reserve the stock with a new reservation, and take the uses of promotions again.

        If stock or a use is missing, return the money, and return False. `authorized_version` is
        the version of the payment if the payment is only authorized.
        """
        reservation_id = derive_uuid7(order.order_id, "reinstatement")
        ctx, reason = delivery.call_context(), "out of stock by now"
        if await self._reserve_again(ctx, order, reservation_id):
            audit = self._orders.audit(delivery, "paid after it had expired")
            reinstated = replace(order)
            reinstated.reinstate(reservation_id, audit, authorized_version)
            try:
                await self._orders.save(delivery, reinstated, paid_event(reinstated))
            except RedemptionFailed:
                reason = "the promotion is used up by now"
            else:
                return True
        # a `reserve` request of an earlier run may arrive after this release; it then has no effect
        await self._inventory.release(ctx, reservation_id)
        if authorized_version is None:
            await self.refund(delivery, order, f"{reason}: refunded")
        else:
            await self.void(delivery, order, reason)
        return False

    async def _reserve_again(self, ctx: CallContext, order: Order, reservation_id: UUID) -> bool:
        command = Reserve(
            reservation_id=reservation_id,
            order_id=order.order_id,
            customer_id=order.user_id,
            lines=to_requested_lines(order.lines),
            expires_at=self._clock() + self._policy.reservation_ttl,
        )
        try:
            reservation = await self._inventory.reserve(ctx, command)
        except (OutOfStock, ProductNotFound):
            return False
        return reservation.status is not ReservationStatus.RELEASED

    async def refund(self, delivery: Delivery, order: Order, reason: str) -> None:
        await self._returns.refund(delivery.call_context(), order.payment_id, reason)
        order.record_late_payment(self._orders.audit(delivery, reason))
        await self._orders.save(delivery, order)

    async def void(self, delivery: Delivery, order: Order, reason: str) -> None:
        """Void the payment. The handler of the resulting event changes the order."""
        await self._returns.void(delivery.call_context(), order.payment_id, reason)
        await self._orders.mark_processed(delivery)
