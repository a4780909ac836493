"""Settle shipments: record the movements of their stock, and capture an authorized payment.

The captured amounts are sums over all shipments. So the sequence of the events does not matter, and
if a capture is missed, the next one includes its amount.
"""

from uuid import UUID

import structlog

from markethall.inventory.contract import Consume, OutOfStock, Restock
from markethall.orders.configuration.ports import retry_on_conflict
from markethall.orders.contract import FulfilmentReturned, OrderFulfilled, SaleDeferred
from markethall.orders.domain import Order
from markethall.orders.service.checkout import ContextClients
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.quotes import to_requested_lines
from markethall.payments.contract import (
    CapturePayment,
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentStatus,
    PaymentSummary,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.messaging.events import Delivery, RetryLater
from markethall.shared.observability.metrics import ORDER_CAPTURE_FAILURES

log = structlog.get_logger("markethall.orders")


class Shipments:
    def __init__(self, clients: ContextClients, orders: HandledOrders) -> None:
        self._inventory = clients.inventory
        self._payments = clients.payments
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

    @retry_on_conflict
    async def capture(self, delivery: Delivery, order_id: UUID, capture_id: UUID) -> None:
        """Capture the amount that is due for the shipped units. Mark the event as processed.

        After the last shipment, the rest of the authorization is released. A capture that is not
        possible is recorded in the timeline, logged and counted. Raises RetryLater while the
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
