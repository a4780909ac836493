"""Handlers of the events of payments and of orders' own events.

A handler first calls other contexts, then marks the event as processed in a transaction. After a
crash between the two steps it runs again, so the calls must be idempotent.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import UUID

from markethall.inventory.contract import (
    Consume,
    OutOfStock,
    ProductNotFound,
    ReleasePart,
    RequestedLine,
    ReservationClosed,
    ReservationStatus,
    Reserve,
)
from markethall.orders.contract import (
    FulfilledLine,
    OrderCancelled,
    OrderExpired,
    OrderFulfilled,
    OrderLinesCancelled,
    OrderPaid,
    OrderPaymentStatus,
    OrderStatus,
)
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.ports import ReadStore, Store
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.optimistic_retry import retry_on_conflict
from markethall.orders.service.order_events import cancelled_event, paid_event
from markethall.orders.service.payment_changes import REFUNDED_IN_FULL
from markethall.orders.service.payment_deadlines import PaymentDeadlines
from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentCaptured,
    PaymentFailed,
    PaymentInProgress,
    PaymentRefunded,
    PaymentStatus,
    PaymentStatusChanged,
    RefundExceedsCaptured,
    RefundPayment,
    RefundStatus,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Delivery, Event, RetryLater
from markethall.shared.persistence.database import Database


class RefundFailed(Exception):
    """The provider rejected a refund."""


class OrderEventHandlers:
    def __init__(
        self,
        clients: ContextClients,
        database: Database[ReadStore, Store],
        policy: ReservationPolicy,
        clock: Clock,
    ) -> None:
        self._inventory = clients.inventory
        self._deadlines = PaymentDeadlines(clients, policy)
        self._payments = clients.payments
        self._database = database
        self._policy = policy
        self._clock = clock

    # Events of payments

    async def on_payment_captured(self, delivery: Delivery, event: PaymentCaptured) -> None:
        """Mark the order as paid. Reinstate an expired order, or refund it if stock is missing."""
        await retry_on_conflict(lambda: self._apply_capture(delivery, event))

    async def _apply_capture(self, delivery: Delivery, event: PaymentCaptured) -> None:
        order = await self._get_order(event.order_id)
        if order is None:
            await self._refund(delivery.call_context(), event.payment_id, "there is no such order")
            await self._mark_processed(delivery)
        elif order.is_captured:
            await self._mark_processed(delivery)
        elif order.payment_status is OrderPaymentStatus.REFUNDED:
            await self._ignore_refunded_capture(delivery, order)
        elif order.status is OrderStatus.PENDING:
            order.pay(self._audit(delivery))
            await self._save_order(delivery, order, paid_event(order))
        elif order.status is OrderStatus.EXPIRED:
            await self._reinstate(delivery, order)
        else:
            await self._refund_late_payment(delivery, order, "the order was cancelled: refunded")

    async def _reinstate(self, delivery: Delivery, order: Order) -> None:
        """Reserve the stock with a new reservation. When stock is missing, refund the payment."""
        reservation_id = derive_uuid7(order.order_id, "reinstatement")
        if await self._reserve_again(delivery.call_context(), order, reservation_id):
            order.reinstate(reservation_id, self._audit(delivery, "paid after it had expired"))
            await self._save_order(delivery, order, paid_event(order))
        else:
            # a delayed request `reserve` of an earlier run may still arrive; after this release
            # it reserves nothing
            await self._inventory.release(delivery.call_context(), reservation_id)
            await self._refund_late_payment(delivery, order, "out of stock by now: refunded")

    async def _reserve_again(self, ctx: CallContext, order: Order, reservation_id: UUID) -> bool:
        lines = (
            RequestedLine(product_id=line.product_id, quantity=line.quantity)
            for line in order.lines
        )
        command = Reserve(
            reservation_id=reservation_id,
            order_id=order.order_id,
            customer_id=order.user_id,
            lines=tuple(lines),
            expires_at=self._clock() + self._policy.reservation_ttl,
        )
        try:
            reservation = await self._inventory.reserve(ctx, command)
        except (OutOfStock, ProductNotFound):
            return False
        return reservation.status is not ReservationStatus.RELEASED

    async def _refund_late_payment(self, delivery: Delivery, order: Order, reason: str) -> None:
        await self._refund(delivery.call_context(), order.payment_id, reason)
        order.record_late_payment(self._audit(delivery, reason))
        await self._save_order(delivery, order)

    async def _ignore_refunded_capture(self, delivery: Delivery, order: Order) -> None:
        """Record the capture of a payment that is refunded already. Cancel a pending order."""
        audit = self._audit(delivery, REFUNDED_IN_FULL)
        order.record_late_payment(audit)
        if order.status is OrderStatus.PENDING:
            order.cancel(audit)
            await self._save_order(delivery, order, cancelled_event(order, audit.reason))
        else:
            await self._save_order(delivery, order)

    async def on_payment_failed(self, delivery: Delivery, event: PaymentFailed) -> None:
        """Record a declined payment. The customer may try again until the order expires."""

        def record_failure(order: Order) -> None:
            audit = self._audit(delivery, event.failure_code)
            order.follow_payment(PaymentStatus.FAILED.value, event.payment_version, audit)

        await retry_on_conflict(
            lambda: self._change_order(delivery, event.order_id, record_failure)
        )

    async def on_payment_status_changed(
        self, delivery: Delivery, event: PaymentStatusChanged
    ) -> None:
        """Record the status. If the payment expires later than the order, extend the order."""
        await retry_on_conflict(lambda: self._follow_payment(delivery, event))

    async def _follow_payment(self, delivery: Delivery, event: PaymentStatusChanged) -> None:
        order = await self._get_order(event.order_id)
        if order is None:
            await self._mark_processed(delivery)
            return
        audit = self._audit(delivery)
        order.follow_payment(event.status.value, event.payment_version, audit)
        cancelled = await self._deadlines.follow(
            delivery.call_context(), order, event.expires_at, audit
        )
        await self._save_order(delivery, order, *([cancelled] if cancelled else []))

    async def on_payment_refunded(self, delivery: Delivery, event: PaymentRefunded) -> None:
        def record_refund(order: Order) -> None:
            audit = self._audit(delivery, f"{event.amount.amount} {event.amount.currency}")
            order.refund(event.refunded.amount, event.captured.amount, audit)

        await retry_on_conflict(lambda: self._change_order(delivery, event.order_id, record_refund))

    # Events of orders

    async def on_order_paid(self, delivery: Delivery, event: OrderPaid) -> None:
        """Commit the reservation. When its stock is gone, cancel the order."""
        try:
            await self._inventory.commit(delivery.call_context(), event.reservation_id)
        except (OutOfStock, ReservationClosed):
            await retry_on_conflict(lambda: self._cancel_out_of_stock(delivery, event))
        else:
            await self._mark_processed(delivery)

    async def _cancel_out_of_stock(self, delivery: Delivery, event: OrderPaid) -> None:
        """Cancel the order. The handler of OrderCancelled then refunds the payment."""
        order = await self._get_order(event.order_id)
        if order is None or order.status is not OrderStatus.PROCESSING:
            await self._mark_processed(delivery)
            return
        audit = self._audit(delivery, "out of stock")
        order.cancel(audit)
        await self._save_order(delivery, order, cancelled_event(order, audit.reason))

    async def on_order_cancelled(self, delivery: Delivery, event: OrderCancelled) -> None:
        """Release the stock. Cancel the payment, or refund it when it is captured."""
        ctx = delivery.call_context()
        await self._inventory.release(ctx, event.reservation_id)
        if await self._try_cancel_payment(ctx, event.payment_id):
            change = self._payment_cancellation(delivery)
            await retry_on_conflict(lambda: self._change_order(delivery, event.order_id, change))
        else:
            await self._refund(ctx, event.payment_id, event.reason)
            await self._mark_processed(delivery)

    async def on_order_lines_cancelled(
        self, delivery: Delivery, event: OrderLinesCancelled
    ) -> None:
        """Release the stock of the cancelled units and refund their price."""
        ctx = delivery.call_context()
        command = ReleasePart(
            reservation_id=event.reservation_id,
            release_id=event.cancellation_id,
            lines=_to_requested_lines(event.lines),
        )
        # ReservationClosed: the order was cancelled meanwhile, which has released all its units
        with suppress(ReservationClosed):
            await self._inventory.release_part(ctx, command)
        if event.amount.amount:
            await self._refund_up_to(ctx, event)
        await self._mark_processed(delivery)

    async def on_order_expired(self, delivery: Delivery, event: OrderExpired) -> None:
        await self._inventory.release(delivery.call_context(), event.reservation_id)
        await self._mark_processed(delivery)

    async def on_order_fulfilled(self, delivery: Delivery, event: OrderFulfilled) -> None:
        command = Consume(
            reservation_id=event.reservation_id,
            fulfilment_id=event.fulfilment_id,
            lines=_to_requested_lines(event.lines),
        )
        try:
            await self._inventory.consume(delivery.call_context(), command)
        except OutOfStock as error:
            # the units were sold as backorder, so retry until they are on hand
            raise RetryLater("the goods are not on hand") from error
        await self._mark_processed(delivery)

    # Helpers

    async def _try_cancel_payment(self, ctx: CallContext, payment_id: UUID) -> bool:
        """Cancel the payment. Return False when it is captured."""
        try:
            await self._payments.cancel(ctx, payment_id)
        except InvalidPaymentTransition:
            return False
        except PaymentInProgress as error:
            # retry until the outcome of the charge is known
            raise RetryLater("the payment is being decided") from error
        return True

    async def _refund(self, ctx: CallContext, payment_id: UUID, reason: str) -> None:
        """Refund all that is refundable. The payment id determines the refund id, so a repeated
        call returns the same refund.
        """
        command = RefundPayment(
            payment_id=payment_id, refund_id=derive_uuid7(payment_id, "refund"), reason=reason
        )
        # RefundExceedsCaptured means here that nothing is left to refund
        with suppress(RefundExceedsCaptured):
            await self._submit_refund(ctx, command)

    async def _refund_up_to(self, ctx: CallContext, event: OrderLinesCancelled) -> None:
        """Refund the price of the cancelled units, but at most the amount that is refundable."""
        command = RefundPayment(
            payment_id=event.payment_id,
            refund_id=derive_uuid7(event.cancellation_id, "refund"),
            amount=event.amount,
            reason=event.reason,
        )
        try:
            await self._submit_refund(ctx, command)
        except RefundExceedsCaptured as error:
            left = Money.model_validate(error.details["refundable"])
            if left.amount:
                await self._submit_refund(ctx, command.model_copy(update={"amount": left}))

    async def _submit_refund(self, ctx: CallContext, command: RefundPayment) -> None:
        refund = await self._payments.refund(ctx, command)
        if refund.status is RefundStatus.FAILED:
            # the event becomes a dead letter, because staff must settle this refund
            raise RefundFailed(refund.failure_code)

    def _payment_cancellation(self, delivery: Delivery) -> Callable[[Order], None]:
        return lambda order: order.cancel_payment(self._audit(delivery))

    async def _get_order(self, order_id: UUID) -> Order | None:
        """Return the order.

        An order with a payment event normally exists, because its payment was activated only after
        the order was committed.
        """
        async with self._database.read_session() as store:
            return await store.get_order(order_id)

    async def _change_order(
        self, delivery: Delivery, order_id: UUID, change: Callable[[Order], None]
    ) -> None:
        order = await self._get_order(order_id)
        if order is None:
            await self._mark_processed(delivery)
        else:
            change(order)
            await self._save_order(delivery, order)

    async def _mark_processed(self, delivery: Delivery) -> None:
        async with self._database.transaction() as store:
            await store.mark_processed(delivery)

    async def _save_order(self, delivery: Delivery, order: Order, *events: Event) -> None:
        async with self._database.transaction() as store:
            if await store.mark_processed(delivery):
                await store.save_order(order)
                for event in events:
                    await store.publish(event, delivery.call_context())

    def _audit(self, delivery: Delivery, reason: str = "") -> AuditInfo:
        return AuditInfo(delivery.call_context().actor.audit_name, self._clock(), reason)


def _to_requested_lines(lines: Iterable[FulfilledLine]) -> tuple[RequestedLine, ...]:
    return tuple(
        RequestedLine(product_id=line.product_id, quantity=line.quantity) for line in lines
    )
