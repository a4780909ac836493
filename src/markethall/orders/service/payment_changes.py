"""Let an order follow its payment: its status, and its deadline.

A payment method such as a bank transfer has a deadline of days. The reservation is extended first,
then the order. After a crash between the two, both are repeated: extending again changes nothing.
"""

from dataclasses import replace
from datetime import datetime

import structlog

from markethall.inventory.contract import Extend, ReservationClosed
from markethall.orders.contract import OrderCancelled, OrderEvent, OrderStatus
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.order_events import cancelled_event, paid_event
from markethall.payments.contract import PaymentStatus, PaymentSummary
from markethall.shared.kernel.call_context import CallContext

log = structlog.get_logger("markethall.orders")
REFUNDED_IN_FULL = "the payment was refunded in full"
_END_REASONS = {
    PaymentStatus.VOIDED.value: "the payment was voided",
    PaymentStatus.EXPIRED.value: "the authorization of the payment has expired",
}
_RESERVATION_EXPIRED = "the reservation of its stock has expired"


def apply_payment(
    order: Order, payment: PaymentSummary | None, audit: AuditInfo
) -> OrderEvent | None:
    """Apply the payment's status to the order. Return the event to publish, if there is one."""
    if payment is None:
        return None
    if payment.status is PaymentStatus.CAPTURED:
        return _apply_capture(order, payment, audit)
    if payment.status is PaymentStatus.AUTHORIZED:
        order.authorize(payment.version, audit)
        return paid_event(order)
    reason = replace(audit, reason=payment.failure_code or "")
    order.follow_payment(payment.status.value, payment.version, reason)
    return None


def cancel_without_payment(order: Order, audit: AuditInfo) -> OrderCancelled | None:
    """Cancel an order whose authorized payment has ended without a capture.

    Return the event to publish. After a shipment the order stays as it is, and staff must collect
    the money. An order that costs nothing after an edit also stays as it is.
    """
    reason = _END_REASONS.get(order.provider_payment_status)
    if reason is None or not order.has_changed or not order.total:
        return None
    if not order.has_nothing_shipped:
        log.error("order.shipped_unpaid", order_id=str(order.order_id), reason=reason)
        return None
    if order.status is not OrderStatus.PROCESSING:
        return None
    order.cancel(replace(audit, reason=reason))
    return cancelled_event(order, reason)


def _apply_capture(order: Order, payment: PaymentSummary, audit: AuditInfo) -> OrderEvent:
    order.refund(payment.refunded.amount, payment.captured.amount, audit)
    if payment.refunded.amount and payment.refunded == payment.captured:
        order.record_late_payment(audit)
        order.cancel(replace(audit, reason=REFUNDED_IN_FULL))
        return cancelled_event(order, REFUNDED_IN_FULL)
    order.pay(audit)
    return paid_event(order)


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
