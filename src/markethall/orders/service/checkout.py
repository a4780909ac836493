"""Placing an order: hold the goods, agree on the price, open the payment, write it down.

Every id is derived from the attempt's, so a retry finds what its forerunner left and goes on from
there. What is left behind for good (a hold, an open payment) ends by itself: nothing was charged.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from markethall.inventory.contract import (
    Inventory,
    Reservation,
    ReservationClosed,
    ReservationStatus,
    Reserve,
    Want,
)
from markethall.orders.contract import (
    OrderCurrencyMismatch,
    OrderPlaced,
    OrderView,
    PlaceOrder,
    TotalChanged,
    TotalTooLarge,
)
from markethall.orders.domain import By, Line, Order
from markethall.orders.ports import Database
from markethall.orders.service.views import order_view
from markethall.payments.contract import OpenPayment, Payment, Payments, PaymentStatus
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.idempotency import Attempt
from markethall.shared.ids import derive_uuid7
from markethall.shared.model import MAX_AMOUNT
from markethall.shared.money import Money
from markethall.users.contract import Users

_ENDED = {PaymentStatus.CANCELLED, PaymentStatus.EXPIRED, PaymentStatus.VOIDED}


@dataclass(frozen=True)
class Neighbours:
    """Whom orders calls, each through its contract; nobody else calls anybody."""

    users: Users
    inventory: Inventory
    payments: Payments


@dataclass(frozen=True)
class Terms:
    """How long goods are held for an unpaid order."""

    hold_ttl: timedelta

    @property
    def margin(self) -> timedelta:
        """The payment ends this long before the hold, so that no money comes for lost goods."""
        return min(timedelta(seconds=60), self.hold_ttl / 10)


@dataclass(frozen=True)
class Basket:
    """The lines of an order to be, all of one currency."""

    currency: str
    lines: tuple[Line, ...]

    @property
    def total(self) -> Money:
        return Money(amount=sum(line.total for line in self.lines), currency=self.currency)


class Checkout:
    def __init__(
        self, neighbours: Neighbours, database: Database, terms: Terms, clock: Clock
    ) -> None:
        self._users = neighbours.users
        self._inventory = neighbours.inventory
        self._payments = neighbours.payments
        self._database = database
        self._terms = terms
        self._clock = clock

    async def place(self, call: Call, command: PlaceOrder, attempt: Attempt) -> OrderView:
        await self._users.active(call, call.user_id)
        reservation = await self._inventory.reserve(call, self._reserve(call, command, attempt.id))
        basket = await self._agree(call, command, reservation)
        until = reservation.expires_at - self._terms.margin
        if basket is None or not _holds(reservation) or until <= self._clock():
            return await self._too_late(call, reservation, attempt)
        payment = await self._payments.open(call, _open(call, attempt.id, basket, until))
        order = self._order(call, command, reservation, basket, payment)
        if payment.status in _ENDED or payment.expires_at <= order.created_at:
            return await self._too_late(call, reservation, attempt)
        return await self._write(call, order, attempt)

    def _reserve(self, call: Call, command: PlaceOrder, order_id: UUID) -> Reserve:
        wants = (Want(product_id=w.product_id, quantity=w.quantity) for w in command.lines)
        return Reserve(
            reservation_id=derive_uuid7(order_id, "reservation"),
            order_id=order_id,
            customer_id=call.user_id,
            lines=tuple(wants),
            expires_at=self._clock() + self._terms.hold_ttl,
            limited=True,
        )

    async def _agree(
        self, call: Call, command: PlaceOrder, reservation: Reservation
    ) -> Basket | None:
        """What the hold holds, at its prices; None for a tombstone. Refused: the hold ends."""
        if not reservation.lines:
            return None
        try:
            return agreed(command, reservation)
        except (OrderCurrencyMismatch, TotalChanged, TotalTooLarge):
            await self._inventory.release(call, reservation.reservation_id)
            raise

    def _order(
        self,
        call: Call,
        command: PlaceOrder,
        reservation: Reservation,
        basket: Basket,
        payment: Payment,
    ) -> Order:
        now = self._clock()
        order = Order(
            order_id=payment.order_id,
            user_id=call.user_id,
            currency=basket.currency,
            lines=basket.lines,
            shipping_address=command.shipping_address,
            billing_address=command.billing_address,
            note=command.note,
            payment_id=payment.payment_id,
            reservation_id=reservation.reservation_id,
            expires_at=payment.expires_at,
            created_at=now,
            updated_at=now,
        )
        order.placed(By(call.actor.known_as, now))
        return order

    async def _write(self, call: Call, order: Order, attempt: Attempt) -> OrderView:
        placed = OrderPlaced(order_id=order.order_id, user_id=order.user_id, total=_total(order))
        async with self._database.transaction() as store:
            number = await store.add(order)
            if number is not None:
                order.number = number
                await store.publish(placed, call)
            # else an earlier attempt has written it, and meanwhile it may have gone on
            standing = order if number is not None else await store.order(order.order_id)
            view = order_view(standing or order)
            await store.finish(attempt, view)
        return view

    async def _too_late(self, call: Call, reservation: Reservation, attempt: Attempt) -> OrderView:
        """The order that an earlier attempt has written, else ReservationClosed."""
        async with self._database.transaction() as store:
            standing = await store.order(attempt.id)
            if standing is not None:
                view = order_view(standing)
                await store.finish(attempt, view)
                return view
        ended = await self._inventory.release(call, reservation.reservation_id)
        raise ReservationClosed(
            "The time to place this order is over; please order again.",
            reservation_id=str(ended.reservation_id),
            status=ended.status.value,
        )


def agreed(command: PlaceOrder, reservation: Reservation) -> Basket:
    """Raises OrderCurrencyMismatch, TotalTooLarge, TotalChanged."""
    currencies = {line.unit_price.currency for line in reservation.lines}
    wanted = currencies | ({command.currency} if command.currency else set())
    if len(wanted) > 1:
        raise OrderCurrencyMismatch(currencies=sorted(wanted))
    basket = Basket(currencies.pop(), _lines(command, reservation))
    if sum(line.total for line in basket.lines) > MAX_AMOUNT:
        raise TotalTooLarge(limit=MAX_AMOUNT)
    expected = command.expected_total
    if expected and (expected.amount, expected.currency) != (
        basket.total.amount,
        basket.currency,
    ):
        raise TotalChanged(total=basket.total.model_dump())
    return basket


def _lines(command: PlaceOrder, reservation: Reservation) -> tuple[Line, ...]:
    """One line per product, in the customer's own order."""
    reserved = {line.product_id: line for line in reservation.lines}
    products = dict.fromkeys(wanted.product_id for wanted in command.lines)
    return tuple(
        Line(
            line_id=derive_uuid7(reservation.reservation_id, f"line {product_id}"),
            product_id=product_id,
            sku=reserved[product_id].sku,
            name=reserved[product_id].name,
            unit_price=reserved[product_id].unit_price.amount,
            quantity=reserved[product_id].quantity,
        )
        for product_id in products
    )


def _holds(reservation: Reservation) -> bool:
    return reservation.status is ReservationStatus.HELD


def _open(call: Call, order_id: UUID, basket: Basket, until: datetime) -> OpenPayment:
    return OpenPayment(
        payment_id=derive_uuid7(order_id, "payment"),
        order_id=order_id,
        user_id=call.user_id,
        amount=basket.total,
        expires_at=until,
    )


def _total(order: Order) -> Money:
    return Money(amount=order.total, currency=order.currency)
