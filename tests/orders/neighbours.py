# ruff: noqa: ARG002 - nobody here asks who is calling
"""Honest neighbours in memory, and the wire to them, which a test can cut.

They keep what the docstrings of the three contracts promise, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar, cast
from uuid import UUID

from markethall.inventory.contract import (
    Consume,
    Extend,
    OutOfStock,
    ProductNotFound,
    ReleasePart,
    Reservation,
    ReservationClosed,
    ReservationStatus,
    Reserve,
    ReservedLine,
)
from markethall.payments.contract import (
    InvalidPaymentTransition,
    OpenPayment,
    Payment,
    PaymentCaptured,
    PaymentFailed,
    PaymentInProgress,
    PaymentNotFound,
    PaymentRefunded,
    PaymentStatus,
    Refund,
    RefundExceedsCaptured,
    RefundPayment,
    RefundStatus,
)
from markethall.shared.call import Call
from markethall.shared.clock import Clock, utc_now
from markethall.shared.errors import Unavailable
from markethall.shared.events import Event
from markethall.shared.guard import AllowList, Errands, Guard, guarded
from markethall.shared.ids import new_id
from markethall.shared.money import Money
from markethall.topology import CALLERS, Context
from markethall.users.contract import Customer, UserInactive

ALLOWED = AllowList(CALLERS)

T = TypeVar("T")
PAYABLE = {PaymentStatus.CREATED, PaymentStatus.FAILED}
ENDED = {PaymentStatus.CANCELLED, PaymentStatus.EXPIRED}


class Killed(BaseException):
    """The process dies here: nothing catches it, nothing is tidied up."""


class Cuts:
    """Which call of all that are made fails: before its effect, or with its answer lost.

    `when` is before or after, or with "killed" in front: then we die of it.
    """

    def __init__(self) -> None:
        self.made: list[str] = []
        self._cuts: dict[int, str] = {}

    def cut(self, number: int, when: str) -> None:
        """The call with this number, counted from one and from now."""
        self._cuts[len(self.made) + number] = when

    def start(self, name: str) -> str | None:
        self.made.append(name)
        return self._cuts.get(len(self.made))


class _Wire:
    def __init__(self, service: object, cuts: Cuts) -> None:
        self._service = service
        self._cuts = cuts

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._service, name)

        async def over_the_wire(*arguments: Any) -> Any:
            cut = self._cuts.start(name) or ""
            if cut.endswith("before"):
                raise _broken(cut, name)
            answer = await method(*arguments)
            if cut.endswith("after"):
                raise _broken(cut, name)
            return answer

        over_the_wire.__qualname__ = name
        return over_the_wire


def _broken(cut: str, name: str) -> BaseException:
    return Killed() if cut.startswith("killed") else Unavailable(dependency=name)


def cut_off(service: T, cuts: Cuts) -> T:
    """The service at the end of a wire that a test can cut."""
    return cast("T", _Wire(service, cuts))


def wired(service: T, cuts: Cuts, target: Context) -> T:
    """The same, under the guard of every contract call."""
    guard = Guard("orders", target, ALLOWED, Errands(), utc_now, seconds=5)
    return guarded(cut_off(service, cuts), guard)


class People:
    """Everybody may buy, but those who are disabled."""

    def __init__(self) -> None:
        self.disabled: set[UUID] = set()

    async def active(self, call: Call, user_id: UUID) -> Customer:
        if user_id in self.disabled:
            raise UserInactive(user_id=str(user_id))
        return Customer(user_id=user_id, email="somebody@example.com", full_name=None)


@dataclass(frozen=True)
class Product:
    product_id: UUID
    sku: str
    price: Money


@dataclass(frozen=True)
class Hold:
    reservation: Reservation
    consumed: Mapping[UUID, int] = field(default_factory=dict)
    fulfilments: frozenset[UUID] = frozenset()

    def left(self, product_id: UUID) -> int:
        """How much of the product this hold keeps from others, once it is alive."""
        wanted = sum(r.quantity for r in self.reservation.lines if r.product_id == product_id)
        return wanted - self.consumed.get(product_id, 0)


class Shelf:
    """Stock, and the holds on it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._products: dict[UUID, Product] = {}
        self._on_hand: dict[UUID, int] = {}
        self._holds: dict[UUID, Hold] = {}

    def stock(self, quantity: int, amount: int = 1000, currency: str = "EUR") -> UUID:
        """A new product with its stock."""
        product_id = new_id()
        price = Money(amount=amount, currency=currency)
        self._products[product_id] = Product(product_id, f"SKU-{len(self._products)}", price)
        self._on_hand[product_id] = quantity
        return product_id

    def reprice(self, product_id: UUID, amount: int) -> None:
        product = self._products[product_id]
        price = Money(amount=amount, currency=product.price.currency)
        self._products[product_id] = replace(product, price=price)

    def take_away(self, product_id: UUID, quantity: int) -> None:
        """Somebody else buys."""
        self._on_hand[product_id] -= quantity

    def arrive(self, product_id: UUID, quantity: int) -> None:
        self._on_hand[product_id] += quantity

    def on_hand(self, product_id: UUID) -> int:
        return self._on_hand[product_id]

    def available(self, product_id: UUID) -> int:
        kept = sum(hold.left(product_id) for hold in self._holds.values() if self._live(hold))
        return self._on_hand[product_id] - kept

    def status(self, reservation_id: UUID) -> ReservationStatus:
        return self._seen(self._holds[reservation_id]).status

    def holds_of(self, order_id: UUID) -> list[Reservation]:
        return [
            self._seen(hold)
            for hold in self._holds.values()
            if hold.reservation.order_id == order_id
        ]

    async def reserve(self, call: Call, command: Reserve) -> Reservation:
        if command.reservation_id not in self._holds:
            wants: dict[UUID, int] = {}
            for want in command.lines:
                wants[want.product_id] = wants.get(want.product_id, 0) + want.quantity
            self._check(wants)
            lines = tuple(
                ReservedLine(
                    product_id=product_id,
                    sku=self._products[product_id].sku,
                    name="A thing",
                    unit_price=self._products[product_id].price,
                    quantity=wants[product_id],
                )
                for product_id in sorted(wants)
            )
            self._keep(command, lines)
        return self._seen(self._holds[command.reservation_id])

    async def commit(self, call: Call, reservation_id: UUID) -> Reservation:
        hold = self._open(reservation_id)
        status = self._seen(hold).status
        if status is ReservationStatus.EXPIRED:
            self._check({line.product_id: line.quantity for line in hold.reservation.lines})
        if status in {ReservationStatus.HELD, ReservationStatus.EXPIRED}:
            self._set(hold, ReservationStatus.COMMITTED)
        return self._seen(self._holds[reservation_id])

    async def consume(self, call: Call, command: Consume) -> Reservation:
        hold = self._open(command.reservation_id)
        if command.fulfilment_id not in hold.fulfilments:
            self._check_on_hand(command)
            consumed = dict(hold.consumed)
            for want in command.lines:
                consumed[want.product_id] = consumed.get(want.product_id, 0) + want.quantity
                self._on_hand[want.product_id] -= want.quantity
            hold = replace(
                hold,
                consumed=consumed,
                fulfilments=hold.fulfilments | {command.fulfilment_id},
            )
            gone = all(hold.left(line.product_id) == 0 for line in hold.reservation.lines)
            self._set(hold, ReservationStatus.CONSUMED if gone else ReservationStatus.COMMITTED)
        return self._seen(self._holds[command.reservation_id])

    async def extend(self, call: Call, command: Extend) -> Reservation:
        raise NotImplementedError("orders does not ask for this")

    async def release_part(self, call: Call, command: ReleasePart) -> Reservation:
        raise NotImplementedError("orders does not ask for this")

    async def release(self, call: Call, reservation_id: UUID) -> Reservation:
        hold = self._holds.get(reservation_id)
        if hold is None:
            tombstone = Reservation(
                reservation_id=reservation_id,
                order_id=None,
                status=ReservationStatus.RELEASED,
                lines=(),
                expires_at=self._clock(),
            )
            self._holds[reservation_id] = Hold(tombstone)
        elif self._seen(hold).status is not ReservationStatus.CONSUMED:
            self._set(hold, ReservationStatus.RELEASED)
        return self._seen(self._holds[reservation_id])

    def _keep(self, command: Reserve, lines: tuple[ReservedLine, ...]) -> None:
        reservation = Reservation(
            reservation_id=command.reservation_id,
            order_id=command.order_id,
            status=ReservationStatus.HELD,
            lines=lines,
            expires_at=command.expires_at,
        )
        self._holds[command.reservation_id] = Hold(reservation)

    def _check(self, wants: Mapping[UUID, int]) -> None:
        unknown = [str(product_id) for product_id in wants if product_id not in self._products]
        if unknown:
            raise ProductNotFound(product_ids=unknown)
        short = [
            {"product_id": str(p), "requested": n, "available": self.available(p)}
            for p, n in wants.items()
            if n > self.available(p)
        ]
        if short:
            raise OutOfStock(lines=short)

    def _check_on_hand(self, command: Consume) -> None:
        short = [
            {"product_id": str(w.product_id), "requested": w.quantity, "available": there}
            for w in command.lines
            if w.quantity > (there := self._on_hand[w.product_id])
        ]
        if short:
            raise OutOfStock(lines=short)

    def _open(self, reservation_id: UUID) -> Hold:
        hold = self._holds.get(reservation_id)
        if hold is None or hold.reservation.status is ReservationStatus.RELEASED:
            status = hold.reservation.status if hold else None
            raise ReservationClosed(reservation_id=str(reservation_id), status=status)
        return hold

    def _set(self, hold: Hold, status: ReservationStatus) -> None:
        reservation = hold.reservation.model_copy(update={"status": status})
        self._holds[reservation.reservation_id] = replace(hold, reservation=reservation)

    def _seen(self, hold: Hold) -> Reservation:
        held = hold.reservation.status is ReservationStatus.HELD
        if held and hold.reservation.expires_at <= self._clock():
            return hold.reservation.model_copy(update={"status": ReservationStatus.EXPIRED})
        return hold.reservation

    def _live(self, hold: Hold) -> bool:
        return self._seen(hold).status in {ReservationStatus.HELD, ReservationStatus.COMMITTED}


class Till:
    """Payments, and what a customer does with them. `news` is what has not been told yet."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._payments: dict[UUID, Payment] = {}
        self._forbidden: set[UUID] = set()
        self._refunds: dict[UUID, Refund] = {}
        self.news: list[Event] = []

    async def open(self, call: Call, command: OpenPayment) -> Payment:
        forbidden = command.payment_id in self._forbidden
        zero = Money.zero(command.amount.currency)
        payment = Payment(
            payment_id=command.payment_id,
            order_id=command.order_id,
            user_id=command.user_id,
            status=PaymentStatus.CANCELLED if forbidden else PaymentStatus.CREATED,
            amount=command.amount,
            authorized=zero,
            captured=zero,
            refunded=zero,
            provider="test",
            expires_at=command.expires_at,
            created_at=self._clock(),
            version=1,
        )
        return self._payments.setdefault(command.payment_id, payment)

    async def cancel(self, call: Call, payment_id: UUID) -> None:
        payment = self._payments.get(payment_id)
        if payment is None:
            self._forbidden.add(payment_id)
        elif payment.status is PaymentStatus.PROCESSING:
            raise PaymentInProgress(retry_after=1)
        elif payment.status in PAYABLE:
            self._change(payment_id, status=PaymentStatus.CANCELLED)
        elif payment.status not in ENDED:
            raise InvalidPaymentTransition(status=payment.status, allowed=[])

    async def refund(self, call: Call, command: RefundPayment) -> Refund:
        if command.refund_id in self._refunds:
            return self._refunds[command.refund_id]
        payment = self._payments.get(command.payment_id)
        if payment is None:
            raise PaymentNotFound(payment_id=str(command.payment_id))
        if payment.status is not PaymentStatus.CAPTURED:
            raise InvalidPaymentTransition(status=payment.status, allowed=[])
        left = payment.captured - payment.refunded
        amount = command.amount or left
        if amount.amount > left.amount or not left.amount:
            raise RefundExceedsCaptured(requested=amount.model_dump(), refundable=left.model_dump())
        return self._give_back(payment, command, amount)

    def payment(self, payment_id: UUID) -> Payment:
        return self._payments[payment_id]

    def payments_of(self, order_id: UUID) -> list[Payment]:
        return [payment for payment in self._payments.values() if payment.order_id == order_id]

    def all_payments(self) -> list[Payment]:
        return list(self._payments.values())

    def reopen(self, payment_id: UUID) -> None:
        """As if the provider had never heard that it was cancelled."""
        self._change(payment_id, status=PaymentStatus.CREATED)

    def kept(self, payment_id: UUID) -> int:
        """What the shop has of the customer's money."""
        payment = self._payments[payment_id]
        return payment.captured.amount - payment.refunded.amount

    def begin(self, payment_id: UUID) -> None:
        """The customer confirms; the provider is thinking."""
        assert self._payments[payment_id].status in PAYABLE
        self._change(payment_id, status=PaymentStatus.PROCESSING)

    def capture(self, payment_id: UUID) -> PaymentCaptured:
        """The provider has taken the money."""
        payment = self._payments[payment_id]
        assert payment.status in PAYABLE | {PaymentStatus.PROCESSING}
        self._change(payment_id, status=PaymentStatus.CAPTURED, captured=payment.amount)
        event = PaymentCaptured(
            payment_id=payment_id, order_id=payment.order_id, amount=payment.amount
        )
        self.news.append(event)
        return event

    def decline(self, payment_id: UUID) -> PaymentFailed:
        order_id = self._payments[payment_id].order_id
        self._change(payment_id, status=PaymentStatus.FAILED)
        event = PaymentFailed(payment_id=payment_id, order_id=order_id, failure_code="declined")
        self.news.append(event)
        return event

    def _give_back(self, payment: Payment, command: RefundPayment, amount: Money) -> Refund:
        refund = Refund(
            refund_id=command.refund_id,
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            amount=amount,
            status=RefundStatus.SUCCEEDED,
            reason=command.reason,
            created_at=self._clock(),
        )
        self._refunds[refund.refund_id] = refund
        refunded = payment.refunded + amount
        self._change(payment.payment_id, refunded=refunded)
        told = PaymentRefunded(
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            refund_id=refund.refund_id,
            amount=amount,
            captured=payment.captured,
            refunded=refunded,
        )
        self.news.append(told)
        return refund

    def _change(self, payment_id: UUID, **changes: Any) -> None:
        payment = self._payments[payment_id]
        self._payments[payment_id] = payment.model_copy(update=changes)


class TurnableClock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now
