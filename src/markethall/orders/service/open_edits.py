"""Edits that wait for an additional payment: start, apply, extend and drop them.

The events of the additional payment decide. When the payment is captured, the edit takes effect in
the transaction that marks the event as processed. The additional units are committed before that
transaction, so the lines of an order always have stock. If the payment ends without a capture, the
edit is dropped: the handler of OrderEditDropped returns the money and releases the units. The order
itself then stays as it was.
"""

from datetime import datetime

import structlog

from markethall.inventory.contract import Extend, OutOfStock, ReservationClosed, ReservationStatus
from markethall.orders.configuration.ports import retry_on_conflict
from markethall.orders.contract import (
    OrderEditDropped,
    OrderEditOpened,
    OrderPaymentStatus,
)
from markethall.orders.domain import AdditionalPayment, Order
from markethall.orders.ports import ReadStore, Store
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.order_events import edit_dropped_event, edited_event
from markethall.orders.service.payment_returns import PaymentReturns
from markethall.payments.contract import (
    ActivatePayments,
    CapturePayment,
    InvalidPaymentTransition,
    PaymentCaptured,
    PaymentInProgress,
    PaymentRefunded,
    PaymentStatus,
    PaymentStatusChanged,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.messaging.events import Delivery, RetryLater
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.orders")

OUT_OF_STOCK = "the additional units are out of stock by now"
_ENDED = {
    PaymentStatus.CANCELLED: "the payment was cancelled",
    PaymentStatus.EXPIRED: "not paid in time",
    PaymentStatus.VOIDED: "the payment was voided",
}


async def start_open_edit(
    ctx: CallContext,
    clients: ContextClients,
    policy: ReservationPolicy,
    edit: OrderEditOpened | AdditionalPayment,
) -> None:
    """Keep the units until after the deadline, then allow the payment. Raises ReservationClosed."""
    if edit.reservation_id:
        until = edit.expires_at + policy.payment_safety_margin
        command = Extend(reservation_id=edit.reservation_id, expires_at=until)
        await clients.inventory.extend(ctx, command)
    await clients.payments.activate(ctx, ActivatePayments(payment_ids=(edit.payment_id,)))


class OpenEdits:
    def __init__(
        self,
        clients: ContextClients,
        database: Database[ReadStore, Store],
        policy: ReservationPolicy,
        orders: HandledOrders,
    ) -> None:
        self._clients = clients
        self._inventory = clients.inventory
        self._payments = clients.payments
        self._returns = PaymentReturns(clients.payments)
        self._database = database
        self._policy = policy
        self._orders = orders

    async def start(self, delivery: Delivery, event: OrderEditOpened) -> None:
        """Reserve the units until the deadline, then let the customer pay.

        The request that opened the edit also does this. The handler repeats it in case the process
        has crashed.
        """
        try:
            await start_open_edit(delivery.call_context(), self._clients, self._policy, event)
        except ReservationClosed as error:
            # committed: the payment is already captured, and the edit takes effect
            if error.details["status"] == ReservationStatus.COMMITTED:
                await self._orders.mark_processed(delivery)
                return
            await self._drop_late(delivery, event)
        else:
            await self._orders.mark_processed(delivery)

    @retry_on_conflict
    async def _drop_late(self, delivery: Delivery, event: OrderEditOpened) -> None:
        """Drop the edit, because its reservation expired before it could be extended."""
        order = await self._orders.get(event.order_id)
        payment = order.open_edit if order else None
        if order and payment and payment.payment_id == event.payment_id:
            await self._drop(delivery, order, payment, OUT_OF_STOCK)
        else:
            await self._orders.mark_processed(delivery)

    async def apply(self, delivery: Delivery, order: Order, event: PaymentCaptured) -> None:
        """Apply the edit. If its units have been sold meanwhile, drop the edit."""
        payment = order.open_edit
        if payment is None or payment.payment_id != event.payment_id:
            await self._orders.mark_processed(delivery)
        elif await self._commit(delivery.call_context(), payment):
            await self._save_applied(delivery, order, payment)
        else:
            await self._drop(delivery, order, payment, OUT_OF_STOCK)

    async def _commit(self, ctx: CallContext, payment: AdditionalPayment) -> bool:
        """Return False if the additional units are no longer reserved, and have been sold."""
        if payment.reservation_id is None:
            return True
        try:
            await self._inventory.commit(ctx, payment.reservation_id)
        except (OutOfStock, ReservationClosed):
            return False
        return True

    async def _save_applied(
        self, delivery: Delivery, order: Order, payment: AdditionalPayment
    ) -> None:
        before = order.lines
        order.apply_open_edit(self._orders.audit(delivery))
        event = edited_event(order, before, payment.edit_id, payment.reservation_id)
        async with self._database.transaction() as store:
            if await store.mark_processed(delivery):
                await store.save_applied_edit(order)
                await store.publish(event, delivery.call_context())

    async def follow(self, delivery: Delivery, order: Order, event: PaymentStatusChanged) -> None:
        """Capture an authorized payment at once; drop the edit if the payment has ended."""
        payment = order.open_edit
        if payment is None or payment.payment_id != event.payment_id:
            await self._orders.mark_processed(delivery)
        elif event.status is PaymentStatus.AUTHORIZED:
            await self._capture(delivery.call_context(), order, payment)
            await self._orders.mark_processed(delivery)
        elif reason := _ENDED.get(event.status):
            await self._drop(delivery, order, payment, reason)
        elif event.expires_at and event.expires_at > payment.expires_at:
            await self._extend(delivery, order, payment, event.expires_at)
        else:
            await self._orders.mark_processed(delivery)

    async def _capture(self, ctx: CallContext, order: Order, payment: AdditionalPayment) -> None:
        """Capture the amount. If it is rejected, the edit is dropped at its deadline."""
        amount = order.money(payment.amount)
        command = CapturePayment(
            payment_id=payment.payment_id,
            capture_id=derive_uuid7(payment.edit_id, "capture"),
            due=amount,
            total=amount,
        )
        try:
            captured = await self._payments.capture_due(ctx, command)
        except PaymentInProgress as error:
            raise RetryLater("the capture is being decided") from error
        except InvalidPaymentTransition:
            return  # the handler of the event about the end of the payment drops the edit
        if captured.status is PaymentStatus.AUTHORIZED:
            log.error(
                "order.edit_capture_failed",
                order_id=str(order.order_id),
                payment_id=str(payment.payment_id),
                reason=captured.failure_code,
            )

    async def _extend(
        self, delivery: Delivery, order: Order, payment: AdditionalPayment, expires_at: datetime
    ) -> None:
        """Move the deadline, because a payment method such as a bank transfer takes days."""
        if payment.reservation_id:
            until = expires_at + self._policy.payment_safety_margin
            command = Extend(reservation_id=payment.reservation_id, expires_at=until)
            try:
                await self._inventory.extend(delivery.call_context(), command)
            except ReservationClosed:
                await self._drop(delivery, order, payment, OUT_OF_STOCK)
                return
        order.extend_open_edit(expires_at, self._orders.audit(delivery))
        await self._orders.save(delivery, order)

    @retry_on_conflict
    async def record_refund(self, delivery: Delivery, event: PaymentRefunded) -> None:
        """Record a refund of the first payment or of an additional payment.

        If the order is refunded in full, drop its open edit, so that the customer does not pay
        again. If an earlier edit has refunded all, because the order costs nothing, keep it.
        """
        order = await self._orders.get(event.order_id)
        if order is None:
            await self._orders.mark_processed(delivery)
            return
        audit = self._orders.audit(delivery, f"{event.amount.amount} {event.amount.currency}")
        if order.payment_id == event.payment_id:
            order.refund(event.refunded.amount, event.captured.amount, audit)
        else:
            order.refund_additional(event.payment_id, event.refunded.amount, audit)
        payment = order.open_edit
        if payment and order.total and order.payment_status is OrderPaymentStatus.REFUNDED:
            await self._drop(delivery, order, payment, "the order was refunded")
        else:
            await self._orders.save(delivery, order)

    async def _drop(
        self, delivery: Delivery, order: Order, payment: AdditionalPayment, reason: str
    ) -> None:
        order.drop_open_edit(self._orders.audit(delivery, reason))
        await self._orders.save(delivery, order, edit_dropped_event(order, payment, reason))

    async def end(self, delivery: Delivery, event: OrderEditDropped) -> None:
        """Release the additional units, and cancel, void or refund the payment."""
        ctx = delivery.call_context()
        if event.reservation_id:
            await self._inventory.release(ctx, event.reservation_id)
        await self._returns.end(ctx, event.payment_id, event.reason)
        await self._orders.mark_processed(delivery)
