"""Apply the current status of a payment to its pending order."""

from dataclasses import replace

from markethall.orders.contract import OrderEvent
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.service.order_events import cancelled_event, paid_event
from markethall.payments.contract import PaymentStatus, PaymentSummary

REFUNDED_IN_FULL = "the payment was refunded in full"


def apply_payment(
    order: Order, payment: PaymentSummary | None, audit: AuditInfo
) -> OrderEvent | None:
    """Apply the payment's status to the order. Return the event to publish, if there is one."""
    if payment is None:
        return None
    if payment.status is PaymentStatus.CAPTURED:
        return _apply_capture(order, payment, audit)
    reason = replace(audit, reason=payment.failure_code or "")
    order.follow_payment(payment.status.value, payment.version, reason)
    return None


def _apply_capture(order: Order, payment: PaymentSummary, audit: AuditInfo) -> OrderEvent:
    order.refund(payment.refunded.amount, payment.captured.amount, audit)
    if payment.refunded.amount and payment.refunded == payment.captured:
        order.record_late_payment(audit)
        order.cancel(replace(audit, reason=REFUNDED_IN_FULL))
        return cancelled_event(order, REFUNDED_IN_FULL)
    order.pay(audit)
    return paid_event(order)
