"""Handlers of the events of payments and of orders' own events.

A handler first calls other contexts, then marks the event as processed in a transaction. After a
crash between the two steps it runs again, so the calls must be idempotent.
"""

from dataclasses import dataclass

import structlog

from markethall.inventory.contract import OutOfStock, ReservationClosed
from markethall.orders.configuration.ports import retry_on_conflict
from markethall.orders.contract import (
    OrderCancelled,
    OrderExpired,
    OrderFulfilled,
    OrderOverpaid,
    OrderPaid,
    OrderPaymentStatus,
    OrderStatus,
)
from markethall.orders.domain import Order
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.guest_orders import GuestOrders
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.open_edits import OpenEdits
from markethall.orders.service.order_events import cancelled_event, overpaid_event, paid_event
from markethall.orders.service.order_lookups import OrderLinks
from markethall.orders.service.payment_changes import (
    REFUNDED_IN_FULL,
    PaymentDeadlines,
    cancel_without_payment,
)
from markethall.orders.service.payment_returns import LatePayments, PaymentReturns
from markethall.orders.service.settlements import LineSettlements, ReturnSettlements
from markethall.orders.service.shipments import Shipments
from markethall.payments.contract import (
    DisputeChanged,
    PaymentCaptured,
    PaymentFailed,
    PaymentPartiallyCaptured,
    PaymentStatus,
    PaymentStatusChanged,
    RefundPayment,
)
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Delivery

log = structlog.get_logger("markethall.orders")


@dataclass(frozen=True)
class DelegatedEvents:
    """The objects that handle some kinds of events completely."""

    guest_orders: GuestOrders
    return_settlements: ReturnSettlements
    links: OrderLinks
    open_edits: OpenEdits


class OrderEventHandlers:
    def __init__(
        self,
        clients: ContextClients,
        orders: HandledOrders,
        policy: ReservationPolicy,
        delegated: DelegatedEvents,
        clock: Clock,
    ) -> None:
        self._inventory = clients.inventory
        self._deadlines = PaymentDeadlines(clients, policy)
        self._returns = PaymentReturns(clients.payments)
        self._orders = orders
        self._shipments = Shipments(clients, orders)
        self._late_payments = LatePayments(clients, orders, policy, clock)
        self._open_edits = delegated.open_edits
        lines = LineSettlements(clients, orders, self._shipments)
        # the handlers of events that another object handles completely
        self.on_guest_claimed = delegated.guest_orders.claim
        self.on_payment_refunded = delegated.open_edits.record_refund
        self.on_order_lines_cancelled = lines.settle_cancellation
        self.on_order_edited = lines.settle_edit
        self.on_order_edit_opened = delegated.open_edits.start
        self.on_order_edit_dropped = delegated.open_edits.end
        self.on_order_fulfilled = self._shipments.record_sale
        self.on_sale_deferred = self._shipments.record_deferred_sale
        self.on_fulfilment_returned = self._shipments.restock
        self.on_return_received = delegated.return_settlements.restock
        self.on_return_closed = delegated.return_settlements.refund
        self.on_order_lookup_requested = delegated.links.find
        self.on_order_link_requested = delegated.links.send

    # Events of payments

    @retry_on_conflict
    async def on_payment_captured(self, delivery: Delivery, event: PaymentCaptured) -> None:
        """Mark the order as paid. Reinstate an expired order, or refund it if stock is missing."""
        order = await self._orders.get(event.order_id)
        if order and order.get_additional_payment(event.payment_id):
            await self._open_edits.apply(delivery, order, event)
        elif order is None or order.payment_id != event.payment_id:
            reason = "the payment was replaced" if order else "there is no such order"
            await self._returns.refund(delivery.call_context(), event.payment_id, reason)
            await self._orders.mark_processed(delivery)
        elif order.is_captured:
            await self._orders.mark_processed(delivery)
        elif order.payment_status is OrderPaymentStatus.REFUNDED:
            await self._ignore_refunded_capture(delivery, order)
        elif order.status is OrderStatus.PENDING:
            order.pay(self._orders.audit(delivery))
            await self._orders.save(delivery, order, paid_event(order))
            _log_if_underpaid(order, event.amount.amount)
        elif order.status is OrderStatus.EXPIRED:
            if await self._late_payments.reinstate(delivery, order):
                _log_if_underpaid(order, event.amount.amount)
        elif order.status is OrderStatus.CANCELLED:
            await self._late_payments.refund(delivery, order, "the order was cancelled: refunded")
        else:
            await self._record_capture(delivery, order, event)

    async def _record_capture(
        self, delivery: Delivery, order: Order, event: PaymentCaptured
    ) -> None:
        """Record that an authorized payment is captured, so that no more can be captured.

        The amount may be more than is due, if units were cancelled meanwhile: the handler of
        OrderOverpaid refunds the difference. It may be less than is due, if staff have released
        the rest, or the authorization has expired before all units were shipped.
        """
        excess = event.amount.amount - order.total_due
        order.capture(event.amount.amount, self._orders.audit(delivery, _text(event.amount)))
        overpaid = overpaid_event(order, excess) if excess > 0 else None
        await self._orders.save(delivery, order, *([overpaid] if overpaid else []))
        _log_if_underpaid(order, event.amount.amount)

    async def on_payment_partially_captured(
        self, delivery: Delivery, event: PaymentPartiallyCaptured
    ) -> None:
        def record_capture(order: Order) -> None:
            order.record_partial_capture(self._orders.audit(delivery, _text(event.amount)))

        await self._orders.record_payment(delivery, event, record_capture)

    async def _ignore_refunded_capture(self, delivery: Delivery, order: Order) -> None:
        """Record the capture of a payment that is refunded already. Cancel a pending order."""
        audit = self._orders.audit(delivery, REFUNDED_IN_FULL)
        order.record_late_payment(audit)
        if order.status is OrderStatus.PENDING:
            order.cancel(audit)
            await self._orders.save(delivery, order, cancelled_event(order, audit.reason))
        else:
            await self._orders.save(delivery, order)

    async def on_payment_failed(self, delivery: Delivery, event: PaymentFailed) -> None:
        """Record a declined payment. The customer may try again until the order expires."""

        def record_failure(order: Order) -> None:
            audit = self._orders.audit(delivery, event.failure_code)
            order.follow_payment(PaymentStatus.FAILED.value, event.payment_version, audit)

        await self._orders.record_payment(delivery, event, record_failure)

    @retry_on_conflict
    async def on_payment_status_changed(
        self, delivery: Delivery, event: PaymentStatusChanged
    ) -> None:
        """Record the status. If the payment expires later than the order, extend the order.

        An authorized payment pays the order. An order whose authorization has ended is cancelled.
        """
        order = await self._orders.get(event.order_id)
        if order and order.get_additional_payment(event.payment_id):
            await self._open_edits.follow(delivery, order, event)
            return
        if order and order.payment_id != event.payment_id:
            if event.status is PaymentStatus.AUTHORIZED:
                ctx = delivery.call_context()
                await self._returns.void(ctx, event.payment_id, "the payment was replaced")
            order = None
        if order is None:
            await self._orders.mark_processed(delivery)
            return
        if event.status is PaymentStatus.AUTHORIZED:
            await self._apply_authorization(delivery, order, event.payment_version)
            return
        audit = self._orders.audit(delivery)
        order.follow_payment(event.status.value, event.payment_version, audit)
        cancelled = cancel_without_payment(order, audit) or await self._deadlines.follow(
            delivery.call_context(), order, event.expires_at, audit
        )
        await self._orders.save(delivery, order, *([cancelled] if cancelled else []))

    async def _apply_authorization(
        self, delivery: Delivery, order: Order, payment_version: int
    ) -> None:
        """Treat the order as paid; void the payment if the order cannot use it."""
        if order.knows_payment(payment_version):
            await self._orders.mark_processed(delivery)
        elif order.status is OrderStatus.PENDING:
            order.authorize(payment_version, self._orders.audit(delivery))
            await self._orders.save(delivery, order, paid_event(order))
        elif order.status is OrderStatus.EXPIRED:
            await self._late_payments.reinstate(delivery, order, payment_version)
        elif order.status is OrderStatus.CANCELLED:
            await self._late_payments.void(delivery, order, "the order was cancelled")
        else:
            await self._orders.mark_processed(delivery)

    async def on_payment_dispute_changed(self, delivery: Delivery, event: DisputeChanged) -> None:
        """Add the change of the dispute to the timeline. The statuses of the order stay."""

        def record_dispute(order: Order) -> None:
            is_additional = order.get_additional_payment(event.payment_id) is not None
            if order.payment_id != event.payment_id and not is_additional:
                return
            audit = self._orders.audit(delivery, f"{event.status}: {event.reason}")
            order.record_dispute(audit)

        await self._orders.change(delivery, event.order_id, record_dispute)

    # Events of orders

    async def on_order_paid(self, delivery: Delivery, event: OrderPaid) -> None:
        """Commit the reservation. When its stock is gone, cancel the order."""
        try:
            await self._inventory.commit(delivery.call_context(), event.reservation_id)
        except (OutOfStock, ReservationClosed):
            # the handler of OrderCancelled then returns the money
            await self._orders.cancel_out_of_stock(delivery, event.order_id, event.reservation_id)
        else:
            await self._orders.mark_processed(delivery)

    async def on_order_cancelled(self, delivery: Delivery, event: OrderCancelled) -> None:
        """Release the stock. Cancel the payment, or void or refund it."""
        ctx = delivery.call_context()
        await self._inventory.release(ctx, event.reservation_id)
        if event.edit_reservation_id:
            await self._inventory.release(ctx, event.edit_reservation_id)
        for payment_id in event.additional_payment_ids:
            await self._returns.end(ctx, payment_id, event.reason)
        if await self._returns.end(ctx, event.payment_id, event.reason):
            await self._orders.change(
                delivery,
                event.order_id,
                lambda order: order.cancel_payment(self._orders.audit(delivery)),
            )
        else:
            await self._orders.mark_processed(delivery)

    async def on_order_overpaid(self, delivery: Delivery, event: OrderOverpaid) -> None:
        """Refund the captured amount of units that were cancelled before the capture."""
        refund = RefundPayment(
            payment_id=event.payment_id,
            refund_id=derive_uuid7(event.payment_id, "overpaid"),
            amount=event.amount,
            reason="units were cancelled before the capture",
        )
        await self._returns.refund_up_to(delivery.call_context(), refund)
        await self._orders.mark_processed(delivery)

    async def on_order_expired(self, delivery: Delivery, event: OrderExpired) -> None:
        await self._inventory.release(delivery.call_context(), event.reservation_id)
        await self._orders.mark_processed(delivery)

    async def capture_shipped(self, delivery: Delivery, event: OrderFulfilled) -> None:
        """Capture the price of the shipped units, if the payment is only authorized."""
        capture_id = derive_uuid7(event.fulfilment_id, "capture")
        await self._shipments.capture(delivery, event.order_id, capture_id)


def _log_if_underpaid(order: Order, captured: int) -> None:
    """Log the amount that will not be captured, because staff have to cancel unpaid units."""
    missing = order.total_due - captured
    if missing > 0:
        log.warning("order.underpaid", order_id=str(order.order_id), missing=missing)


def _text(amount: Money) -> str:
    return f"{amount.amount} {amount.currency}"
