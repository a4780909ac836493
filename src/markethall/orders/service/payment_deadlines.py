"""Let an order and its reservation live as long as their payment.

A payment method such as a bank transfer has a deadline of days. The reservation is extended first,
then the order. After a crash between the two, both are repeated: extending again changes nothing.
"""

from dataclasses import replace
from datetime import datetime

from markethall.inventory.contract import Extend, ReservationClosed
from markethall.orders.contract import OrderCancelled, OrderStatus
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.order_events import cancelled_event
from markethall.shared.kernel.call_context import CallContext

_RESERVATION_EXPIRED = "the reservation of its stock has expired"


class PaymentDeadlines:
    def __init__(self, clients: ContextClients, policy: ReservationPolicy) -> None:
        self._inventory = clients.inventory
        self._policy = policy

    async def follow(
        self, ctx: CallContext, order: Order, expires_at: datetime | None, audit: AuditInfo
    ) -> OrderCancelled | None:
        """Extend a pending order to the expiry of its payment, if that is later.

        A payment that has ended extends nothing, even if a late event reports an earlier status.
        Otherwise the stock would stay reserved for an order that cannot be paid.

        If the reservation has expired, cancel the order and return the event OrderCancelled,
        because the stock may be sold to others, so the customer must not pay. The handler of the
        event cancels the payment.
        """
        is_waiting = order.status is OrderStatus.PENDING and not order.has_payment_ended
        if not is_waiting or expires_at is None or expires_at <= max(order.expires_at, audit.at):
            return None
        command = Extend(
            reservation_id=order.reservation_id,
            expires_at=expires_at + self._policy.payment_safety_margin,
        )
        try:
            await self._inventory.extend(ctx, command)
        except ReservationClosed:
            order.cancel(replace(audit, reason=_RESERVATION_EXPIRED))
            return cancelled_event(order, _RESERVATION_EXPIRED)
        order.extend(expires_at, audit)
        return None
