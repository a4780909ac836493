"""Capture the authorized payment of an order, as its goods are shipped.

The amounts are sums over all shipments. So the sequence of the events does not matter, and if a
capture is missed, the next one includes its amount.
"""

from uuid import UUID

import structlog

from markethall.orders.configuration.ports import retry_on_conflict
from markethall.orders.domain import Order
from markethall.orders.service.handled_orders import HandledOrders
from markethall.payments.contract import (
    CapturePayment,
    InvalidPaymentTransition,
    PaymentInProgress,
    Payments,
    PaymentStatus,
    PaymentSummary,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.messaging.events import Delivery, RetryLater
from markethall.shared.observability.metrics import ORDER_CAPTURE_FAILURES

log = structlog.get_logger("markethall.orders")


class ShipmentCaptures:
    def __init__(self, payments: Payments, orders: HandledOrders) -> None:
        self._payments = payments
        self._orders = orders

    @retry_on_conflict
    async def capture(self, delivery: Delivery, order_id: UUID, capture_id: UUID) -> None:
        """Capture what is due for the shipped units. Mark the event as processed.

        If nothing more will be due, what is left of the authorization is released. A capture that
        is not possible is recorded in the timeline, logged and counted. Raises RetryLater while the
        provider gives no answer.
        """
        order = await self._orders.get(order_id)
        if order is None or not order.is_authorized:
            await self._orders.mark_processed(delivery)
            return
        failure = await self._try_capture(delivery.call_context(), order, capture_id)
        if failure is None:
            await self._orders.mark_processed(delivery)
            return
        order.record_failed_capture(self._orders.audit(delivery, failure))
        if await self._orders.save(delivery, order):
            _report(order, failure)

    async def _try_capture(self, ctx: CallContext, order: Order, capture_id: UUID) -> str | None:
        """Return None, or the reason why less than the due amount is captured."""
        command = CapturePayment(
            payment_id=order.payment_id,
            capture_id=capture_id,
            due=order.money(order.shipped_due),
            total=order.money(order.total_due),
        )
        try:
            payment = await self._payments.capture_due(ctx, command)
        except PaymentInProgress as error:
            raise RetryLater("the capture is being decided") from error
        except InvalidPaymentTransition as error:
            return f"the payment is {error.details['status']}"
        return _missing_reason(payment, command)


def _report(order: Order, reason: str) -> None:
    ORDER_CAPTURE_FAILURES.inc()
    log.error(
        "order.capture_failed",
        order_id=str(order.order_id),
        payment_id=str(order.payment_id),
        reason=reason,
    )


def _missing_reason(payment: PaymentSummary, command: CapturePayment) -> str | None:
    if payment.captured.amount >= command.due.amount:
        return None
    if payment.status is PaymentStatus.AUTHORIZED and not payment.failure_code:
        # an earlier run of the handler has captured; later shipments have events of their own
        return None
    return payment.failure_code or f"only {payment.captured.amount} {payment.captured.currency}"
