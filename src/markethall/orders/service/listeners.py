"""What orders does when it hears of something: payments' news, and its own next steps.

A neighbour is called before the transaction that ticks the event off, and may be called again.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple
from uuid import UUID

from markethall.inventory.contract import (
    Consume,
    OutOfStock,
    ProductNotFound,
    ReservationClosed,
    ReservationStatus,
    Reserve,
    Want,
)
from markethall.orders.contract import (
    OrderCancelled,
    OrderExpired,
    OrderFulfilled,
    OrderPaid,
    OrderStatus,
    PaymentState,
)
from markethall.orders.domain import By, Order
from markethall.orders.ports import Database
from markethall.orders.service.checkout import Neighbours, Terms
from markethall.orders.service.desk import cancelled
from markethall.orders.service.saving import until_saved
from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentCaptured,
    PaymentFailed,
    PaymentInProgress,
    PaymentRefunded,
    RefundExceedsCaptured,
    RefundPayment,
    RefundStatus,
)
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.errors import Unavailable
from markethall.shared.events import Delivery, Event
from markethall.shared.ids import derive_uuid7


class RefundRefused(Exception):
    """The provider does not give the money back."""


class OrderListeners:
    def __init__(
        self, neighbours: Neighbours, database: Database, terms: Terms, clock: Clock
    ) -> None:
        self._inventory = neighbours.inventory
        self._payments = neighbours.payments
        self._database = database
        self._terms = terms
        self._clock = clock

    # what payments says

    async def on_payment_captured(self, delivery: Delivery, event: PaymentCaptured) -> None:
        """Pay the order. Money that comes after its end revives it, or goes back at once."""
        await until_saved(lambda: self._take_money(delivery, event))

    async def _take_money(self, delivery: Delivery, event: PaymentCaptured) -> None:
        order = await self._awaited(delivery, event.order_id)
        if order is None:
            await self._give_back(delivery.call(), event.payment_id, "there is no such order")
            await self._tick(delivery)
        elif order.paid:
            await self._tick(delivery)
        elif order.payment_status is PaymentState.REFUNDED:
            await self._forget_money(delivery, order)
        elif order.status is OrderStatus.PENDING:
            order.pay(self._by(delivery))
            await self._save(delivery, order, _paid(order))
        elif order.status is OrderStatus.EXPIRED:
            await self._revive(delivery, order)
        else:
            await self._refuse_money(delivery, order, "the order was cancelled: refunded")

    async def _revive(self, delivery: Delivery, order: Order) -> None:
        """The goods once more, under a new hold; without them the money goes back."""
        reservation_id = derive_uuid7(order.order_id, "revival")
        if await self._hold_again(delivery.call(), order, reservation_id):
            order.revive(reservation_id, self._by(delivery, "paid after it had expired"))
            await self._save(delivery, order, _paid(order))
        else:
            # a tombstone, so that no late repetition of this can hold the goods after all
            await self._inventory.release(delivery.call(), reservation_id)
            await self._refuse_money(delivery, order, "out of stock by now: refunded")

    async def _hold_again(self, call: Call, order: Order, reservation_id: UUID) -> bool:
        wants = (Want(product_id=w.product_id, quantity=w.quantity) for w in order.lines)
        command = Reserve(
            reservation_id=reservation_id,
            order_id=order.order_id,
            customer_id=order.user_id,
            lines=tuple(wants),
            expires_at=self._clock() + self._terms.hold_ttl,
        )
        try:
            reservation = await self._inventory.reserve(call, command)
        except (OutOfStock, ProductNotFound):
            return False
        return reservation.status is not ReservationStatus.RELEASED

    async def _refuse_money(self, delivery: Delivery, order: Order, reason: str) -> None:
        await self._give_back(delivery.call(), order.payment_id, reason)
        order.refuse_money(self._by(delivery, reason))
        await self._save(delivery, order)

    async def _forget_money(self, delivery: Delivery, order: Order) -> None:
        """It was given back before we heard that it came: nobody has paid for this order."""
        by = self._by(delivery, "the payment was refunded in full")
        order.refuse_money(by)
        if order.status is OrderStatus.PENDING:
            order.cancel(by)
            await self._save(delivery, order, cancelled(order, by.reason))
        else:
            await self._save(delivery, order)

    async def on_payment_failed(self, delivery: Delivery, event: PaymentFailed) -> None:
        """A decline: the order stays payable until it expires."""

        def failed(order: Order) -> None:
            order.fail_payment(self._by(delivery, event.failure_code))

        await until_saved(lambda: self._note(delivery, event.order_id, failed))

    async def on_payment_refunded(self, delivery: Delivery, event: PaymentRefunded) -> None:
        def refunded(order: Order) -> None:
            by = self._by(delivery, f"{event.amount.amount} {event.amount.currency}")
            order.refund(event.refunded.amount, event.captured.amount, by)

        await until_saved(lambda: self._note(delivery, event.order_id, refunded))

    # the next steps of our own

    async def on_order_paid(self, delivery: Delivery, event: OrderPaid) -> None:
        """The held goods are sold. If they are gone, so is the order."""
        try:
            await self._inventory.commit(delivery.call(), event.reservation_id)
        except (OutOfStock, ReservationClosed):
            await until_saved(lambda: self._give_up(delivery, event))
        else:
            await self._tick(delivery)

    async def _give_up(self, delivery: Delivery, event: OrderPaid) -> None:
        """The money goes back as with any other cancelled order."""
        order = await self._awaited(delivery, event.order_id)
        if order is None or order.status is not OrderStatus.PROCESSING:
            await self._tick(delivery)
            return
        by = self._by(delivery, "out of stock")
        order.cancel(by)
        await self._save(delivery, order, cancelled(order, by.reason))

    async def on_order_cancelled(self, delivery: Delivery, event: OrderCancelled) -> None:
        """The goods go back to the shelf, the money to its owner."""
        call = delivery.call()
        await self._inventory.release(call, event.reservation_id)
        if await self._payment_cancelled(call, event.payment_id):
            note = self._note_payment_cancelled(delivery)
            await until_saved(lambda: self._note(delivery, event.order_id, note))
        else:
            await self._give_back(call, event.payment_id, event.reason)
            await self._tick(delivery)

    async def on_order_expired(self, delivery: Delivery, event: OrderExpired) -> None:
        await self._inventory.release(delivery.call(), event.reservation_id)
        await self._tick(delivery)

    async def on_order_fulfilled(self, delivery: Delivery, event: OrderFulfilled) -> None:
        wants = (Want(product_id=w.product_id, quantity=w.quantity) for w in event.lines)
        command = Consume(
            reservation_id=event.reservation_id,
            fulfilment_id=event.fulfilment_id,
            lines=tuple(wants),
        )
        try:
            await self._inventory.consume(delivery.call(), command)
        except OutOfStock as error:
            # sold before they were there; until they are, this event waits, as long as it takes
            raise Unavailable("The goods are not on hand.", dependency="inventory") from error
        await self._tick(delivery)

    # how

    async def _payment_cancelled(self, call: Call, payment_id: UUID) -> bool:
        """False when the money is taken."""
        try:
            await self._payments.cancel(call, payment_id)
        except InvalidPaymentTransition:
            return False
        except PaymentInProgress as error:
            # it will be decided; until then this event waits, as long as it takes
            raise Unavailable("The payment is being decided.", dependency="payments") from error
        return True

    async def _give_back(self, call: Call, payment_id: UUID, reason: str) -> None:
        """All that is left of the money, once: the refund's id comes from the payment's."""
        command = RefundPayment(
            payment_id=payment_id, refund_id=derive_uuid7(payment_id, "refund"), reason=reason
        )
        # nothing left: somebody has given it back already
        with suppress(RefundExceedsCaptured):
            refund = await self._payments.refund(call, command)
            if refund.status is RefundStatus.FAILED:
                # kept as a dead letter: somebody must see to the customer's money
                raise RefundRefused(refund.failure_code)

    def _note_payment_cancelled(self, delivery: Delivery) -> Callable[[Order], None]:
        return lambda order: order.cancel_payment(self._by(delivery))

    async def _awaited(self, delivery: Delivery, order_id: UUID) -> Order | None:
        """None when it will never be written.

        A customer can find and pay the payment before the order is committed. Raises Unavailable
        while that may still happen: no attempt to place it outlives its hold.
        """
        async with self._database.reading() as store:
            order = await store.order(order_id)
        age = self._clock() - delivery.envelope.occurred_at
        if order is None and age <= self._terms.hold_ttl:
            raise Unavailable("The order is not written yet.", dependency="orders")
        return order

    async def _note(
        self, delivery: Delivery, order_id: UUID, change: Callable[[Order], None]
    ) -> None:
        order = await self._awaited(delivery, order_id)
        if order is None:
            await self._tick(delivery)
        else:
            change(order)
            await self._save(delivery, order)

    async def _tick(self, delivery: Delivery) -> None:
        async with self._database.transaction() as store:
            await store.handled(delivery)

    async def _save(self, delivery: Delivery, order: Order, *events: Event) -> None:
        async with self._database.transaction() as store:
            if await store.handled(delivery):
                await store.save(order)
                for event in events:
                    await store.publish(event, delivery.call())

    def _by(self, delivery: Delivery, reason: str = "") -> By:
        return By(delivery.call().actor.known_as, self._clock(), reason)


def _paid(order: Order) -> OrderPaid:
    return OrderPaid(order_id=order.order_id, reservation_id=order.reservation_id)


class Listener(NamedTuple):
    """Who hears an event, under which name it has its inbox row."""

    event: type[Event]
    handler: str
    method: Callable[[OrderListeners, Delivery, Any], Awaitable[None]]


_L = OrderListeners
LISTENERS: Final = (
    Listener(PaymentCaptured, "orders.note_payment_captured", _L.on_payment_captured),
    Listener(PaymentFailed, "orders.note_payment_failed", _L.on_payment_failed),
    Listener(PaymentRefunded, "orders.note_payment_refunded", _L.on_payment_refunded),
    Listener(OrderPaid, "orders.commit_stock", _L.on_order_paid),
    Listener(OrderCancelled, "orders.undo_order", _L.on_order_cancelled),
    Listener(OrderExpired, "orders.release_stock", _L.on_order_expired),
    Listener(OrderFulfilled, "orders.consume_stock", _L.on_order_fulfilled),
)
