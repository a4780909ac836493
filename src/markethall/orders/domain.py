"""The rules of an order: what it costs, what may happen to it, what has happened."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from markethall.orders.contract import (
    Address,
    FulfilmentState,
    FulfilmentStatus,
    InvalidTransition,
    OrderStatus,
    PaymentState,
    TooMuchToFulfil,
)


@dataclass(frozen=True)
class By:
    """Who does something, when, and why."""

    actor: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True)
class Entry:
    """One line of the timeline: a change, and how the order stood after it."""

    version: int
    change: str
    actor: str
    at: datetime
    reason: str
    status: OrderStatus
    payment_status: PaymentState
    fulfilment_status: FulfilmentState


@dataclass(frozen=True)
class Line:
    """Prices in minor units of the order's currency."""

    line_id: UUID
    product_id: UUID
    sku: str
    name: str
    unit_price: int
    quantity: int
    fulfilled: int = 0
    delivered: int = 0

    @property
    def total(self) -> int:
        return self.unit_price * self.quantity

    @property
    def unfulfilled(self) -> int:
        return self.quantity - self.fulfilled


class Command(StrEnum):
    PAY = "pay"
    CANCEL = "cancel"
    EXPIRE = "expire"
    REVIVE = "revive"
    FULFIL = "fulfil"
    DELIVER = "deliver"
    COMPLETE = "complete"


@dataclass
class Order:
    """Amounts in minor units of `currency`. Every change writes news: its timeline entry."""

    order_id: UUID
    user_id: UUID
    currency: str
    lines: tuple[Line, ...]
    shipping_address: str | Address
    billing_address: str | Address | None
    note: str | None
    payment_id: UUID
    reservation_id: UUID
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    number: int = 0
    status: OrderStatus = OrderStatus.PENDING
    payment_status: PaymentState = PaymentState.NONE
    fulfilment_status: FulfilmentState = FulfilmentState.UNFULFILLED
    payment_state: str = "created"
    refunded: int = 0
    discount: int = 0
    shipping: int = 0
    tax: int = 0
    version: int = 0
    news: tuple[Entry, ...] = ()

    @property
    def subtotal(self) -> int:
        return sum(line.total for line in self.lines)

    @property
    def total(self) -> int:
        return self.subtotal - self.discount + self.shipping + self.tax

    @property
    def saved_version(self) -> int:
        """The version that the store must still have for the news to be true."""
        return self.version - len(self.news)

    def placed(self, by: By) -> None:
        self._note("placed", by)

    def pay(self, by: By) -> None:
        """Raises InvalidTransition, as every command does."""
        self._go(Command.PAY, by.at)
        self._take_money()
        self._note("paid", by)

    def revive(self, reservation_id: UUID, by: By) -> None:
        """The money came after the end, and the goods could be held again."""
        self._go(Command.REVIVE, by.at)
        self.reservation_id = reservation_id
        self._take_money()
        self._note("revived", by)

    def refuse_money(self, by: By) -> None:
        """The money came after the end and goes back."""
        self._take_money()
        self._note("late_payment", by)

    def expire(self, by: By) -> None:
        """Its payment was cancelled before."""
        self._go(Command.EXPIRE, by.at)
        self.payment_state = "cancelled"
        self._note("expired", by)

    def cancel(self, by: By) -> None:
        self._go(Command.CANCEL, by.at)
        self._note("cancelled", by)

    def fulfil(self, shipped: Mapping[UUID, int], by: By) -> None:
        """`shipped` is how much of each line leaves the house. Raises TooMuchToFulfil too."""
        self._go(Command.FULFIL, by.at)
        self._check_wanted(shipped)
        self.lines = tuple(
            replace(line, fulfilled=line.fulfilled + shipped.get(line.line_id, 0))
            for line in self.lines
        )
        whole = all(line.unfulfilled == 0 for line in self.lines)
        self.fulfilment_status = FulfilmentState.FULFILLED if whole else FulfilmentState.PARTIAL
        self._note("fulfilled", by)

    def deliver(self, arrived: Mapping[UUID, int], by: By) -> None:
        """With the last line the order completes."""
        self._go(Command.DELIVER, by.at)
        self.lines = tuple(
            replace(line, delivered=line.delivered + arrived.get(line.line_id, 0))
            for line in self.lines
        )
        if all_delivered(self, by.at):
            self.fulfilment_status = FulfilmentState.DELIVERED
        self._note("delivered", by)
        if all_delivered(self, by.at):
            self._go(Command.COMPLETE, by.at)
            self._note("completed", by)

    def fail_payment(self, by: By) -> None:
        """A decline, which is no news once the money is taken or the payment is cancelled."""
        if self.payment_state in {"created", "failed"} and self.refunded == 0:
            self.payment_state = "failed"
            self.payment_status = PaymentState.FAILED
            self._note("payment_failed", by)

    def cancel_payment(self, by: By) -> None:
        """Nothing will be charged any more."""
        if self.payment_state in {"created", "failed"}:
            self.payment_state = "cancelled"
            self._note("payment_cancelled", by)

    def refund(self, refunded: int, captured: int, by: By) -> None:
        """`refunded` is the sum of all refunds; a sum that is not more is old news."""
        if refunded > self.refunded:
            self.refunded = refunded
            whole = refunded >= captured
            self.payment_status = (
                PaymentState.REFUNDED if whole else PaymentState.PARTIALLY_REFUNDED
            )
            self._note("payment_refunded", by)

    @property
    def paid(self) -> bool:
        """Has the order been told that its money was taken."""
        return self.payment_state == "captured"

    def unfulfilled(self) -> dict[UUID, int]:
        return {line.line_id: line.unfulfilled for line in self.lines if line.unfulfilled}

    def allowed(self, now: datetime) -> list[str]:
        """The commands that the order takes as it stands."""
        return [
            row.command.value
            for row in TRANSITIONS
            if row.status is self.status and row.guard(self, now)
        ]

    def _take_money(self) -> None:
        self.payment_state = "captured"
        if not self.refunded:
            self.payment_status = PaymentState.PAID

    def _check_wanted(self, shipped: Mapping[UUID, int]) -> None:
        wanted = self.unfulfilled()
        too_much = [
            {
                "line_id": str(line_id),
                "requested": quantity,
                "unfulfilled": wanted.get(line_id, 0),
            }
            for line_id, quantity in shipped.items()
            if quantity > wanted.get(line_id, 0)
        ]
        if too_much:
            raise TooMuchToFulfil(lines=too_much)

    def _go(self, command: Command, now: datetime) -> None:
        for row in TRANSITIONS:
            if (row.status, row.command) == (self.status, command) and row.guard(self, now):
                self.status = row.to
                return
        raise InvalidTransition(status=self.status.value, allowed=self.allowed(now))

    def _note(self, change: str, by: By) -> None:
        self.version += 1
        self.updated_at = by.at
        entry = Entry(
            version=self.version,
            change=change,
            actor=by.actor,
            at=by.at,
            reason=by.reason,
            status=self.status,
            payment_status=self.payment_status,
            fulfilment_status=self.fulfilment_status,
        )
        self.news = (*self.news, entry)


Guard = Callable[[Order, datetime], bool]


class Transition(NamedTuple):
    status: OrderStatus
    command: Command
    guard: Guard
    to: OrderStatus


def always(_: Order, __: datetime) -> bool:
    return True


def nothing_shipped(order: Order, _: datetime) -> bool:
    return not any(line.fulfilled for line in order.lines)


def overdue(order: Order, now: datetime) -> bool:
    return order.expires_at <= now


def something_unfulfilled(order: Order, _: datetime) -> bool:
    """And paid for: goods whose money went back stay here."""
    return bool(order.unfulfilled()) and order.payment_status is not PaymentState.REFUNDED


def something_on_its_way(order: Order, _: datetime) -> bool:
    return any(line.delivered < line.fulfilled for line in order.lines)


def all_delivered(order: Order, _: datetime) -> bool:
    return all(line.delivered == line.quantity for line in order.lines)


_S, _C = OrderStatus, Command
TRANSITIONS: Final = (
    Transition(_S.PENDING, _C.PAY, always, _S.PROCESSING),
    Transition(_S.PENDING, _C.EXPIRE, overdue, _S.EXPIRED),
    Transition(_S.PENDING, _C.CANCEL, nothing_shipped, _S.CANCELLED),
    Transition(_S.PROCESSING, _C.CANCEL, nothing_shipped, _S.CANCELLED),
    Transition(_S.PROCESSING, _C.FULFIL, something_unfulfilled, _S.PROCESSING),
    Transition(_S.PROCESSING, _C.DELIVER, something_on_its_way, _S.PROCESSING),
    Transition(_S.PROCESSING, _C.COMPLETE, all_delivered, _S.COMPLETED),
    Transition(_S.EXPIRED, _C.REVIVE, always, _S.PROCESSING),
)


class ShippedLine(NamedTuple):
    line_id: UUID
    product_id: UUID
    quantity: int


@dataclass
class Fulfilment:
    """Goods of one order on their way: shipped -> delivered."""

    fulfilment_id: UUID
    order_id: UUID
    lines: tuple[ShippedLine, ...]
    carrier: str
    tracking_number: str
    shipped_at: datetime
    delivered_at: datetime | None = None
    status: FulfilmentStatus = FulfilmentStatus.SHIPPED

    @property
    def quantities(self) -> dict[UUID, int]:
        return {line.line_id: line.quantity for line in self.lines}

    def deliver(self, now: datetime) -> None:
        """Raises InvalidTransition."""
        if self.status is not FulfilmentStatus.SHIPPED:
            raise InvalidTransition(status=self.status.value, allowed=[])
        self.status = FulfilmentStatus.DELIVERED
        self.delivered_at = now


def shipped_lines(lines: Iterable[Line], shipped: Mapping[UUID, int]) -> tuple[ShippedLine, ...]:
    """In the order's own order."""
    return tuple(
        ShippedLine(line.line_id, line.product_id, shipped[line.line_id])
        for line in lines
        if line.line_id in shipped
    )
