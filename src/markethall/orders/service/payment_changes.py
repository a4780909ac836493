"""Apply the current status of a payment to its pending order."""

from dataclasses import replace

import structlog

from markethall.orders.contract import OrderCancelled, OrderEvent, OrderStatus
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.service.order_events import cancelled_event, paid_event
from markethall.payments.contract import PaymentStatus, PaymentSummary

log = structlog.get_logger("markethall.orders")

REFUNDED_IN_FULL = "the payment was refunded in full"
_END_REASONS = {
    PaymentStatus.VOIDED.value: "the payment was voided",
    PaymentStatus.EXPIRED.value: "the authorization of the payment has expired",
}


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
