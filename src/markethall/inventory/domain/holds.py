"""Goods kept for an order."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Self
from uuid import UUID

from markethall.inventory.contract import (
    EXTENDED_AT_MOST,
    HOLD_AT_MOST,
    Reservation,
    ReservationClosed,
    ReservationStatus,
    Reserve,
    ReservedLine,
    TooManyHolds,
    TooManyUnits,
    Want,
)
from markethall.inventory.domain.stock import Goods
from markethall.shared.money import Money

HELD, COMMITTED, CONSUMED = (
    ReservationStatus.HELD,
    ReservationStatus.COMMITTED,
    ReservationStatus.CONSUMED,
)
RELEASED, EXPIRED = ReservationStatus.RELEASED, ReservationStatus.EXPIRED


@dataclass(frozen=True)
class Line:
    """Some units of a product in one warehouse. `quantity` is what is still wanted of it, with
    what is consumed; what was `released` is not in it any more.
    """

    product_id: UUID
    warehouse_id: UUID
    sku: str
    name: str
    unit_price: Money
    quantity: int
    consumed: int = 0
    released: int = 0

    @property
    def left(self) -> int:
        return self.quantity - self.consumed

    @property
    def remaining(self) -> Goods:
        return Goods(self.product_id, self.warehouse_id, self.left)

    def less(self, units: int) -> Self:
        """These have left the house."""
        return replace(self, consumed=self.consumed + units)

    def without(self, units: int) -> Self:
        """These are not wanted any more."""
        return replace(self, quantity=self.quantity - units, released=self.released + units)


@dataclass
class Hold:
    """Goods kept for an order. Lines are in the order of product ids, then of warehouse ids."""

    reservation_id: UUID
    order_id: UUID | None
    customer_id: UUID | None
    status: ReservationStatus
    held_since: datetime
    expires_at: datetime
    lines: tuple[Line, ...] = ()

    @classmethod
    def of(cls, command: Reserve, now: datetime) -> Self:
        return cls(
            command.reservation_id,
            command.order_id,
            command.customer_id,
            HELD,
            held_since=now,
            expires_at=min(command.expires_at, now + HOLD_AT_MOST),
        )

    @classmethod
    def tombstone(cls, reservation_id: UUID, now: datetime) -> Self:
        """What a release leaves behind that came before its reserve."""
        return cls(reservation_id, None, None, RELEASED, now, now)

    def standing(self, now: datetime) -> ReservationStatus:
        """An overdue hold has expired, whether or not the sweeper has come."""
        return EXPIRED if self.status == HELD and self.expires_at <= now else self.status

    def extend(self, until: datetime, now: datetime) -> None:
        """Raises ReservationClosed."""
        if self.standing(now) != HELD:
            raise closed(self.reservation_id, self.standing(now))
        longest = min(until, self.held_since + EXTENDED_AT_MOST)
        self.expires_at = max(self.expires_at, longest)

    def commit(self) -> tuple[Goods, ...]:
        """The goods that must be taken again first. Raises ReservationClosed."""
        if self.status == RELEASED:
            raise closed(self.reservation_id, self.status)
        taken_again = self._remaining() if self.status == EXPIRED else ()
        if self.status != CONSUMED:
            self.status = COMMITTED
        return taken_again

    def move_to(self, goods: Sequence[Goods]) -> None:
        """All that remains comes from elsewhere; nothing has left yet. What was given back whole
        stays as it is.
        """
        first = {line.product_id: line for line in reversed(self.lines)}
        released = units_of(replace(line.remaining, quantity=line.released) for line in self.lines)
        moved = {some.product_id for some in goods}
        lines = [line for line in self.lines if line.product_id not in moved]
        for some in goods:
            line = replace(first[some.product_id], warehouse_id=some.warehouse_id)
            # what was given back of the product stands in its first line
            lines.append(
                replace(line, quantity=some.quantity, released=released.pop(some.product_id, 0))
            )
        self.lines = tuple(sorted(lines, key=lambda line: (line.product_id, line.warehouse_id)))

    def release(self) -> tuple[Goods, ...]:
        """The goods to give back."""
        freed = self._remaining() if self.status in {HELD, COMMITTED} else ()
        if self.status != CONSUMED:
            self.status = RELEASED
        return freed

    def release_part(self, wants: Mapping[UUID, int]) -> tuple[Goods, ...]:
        """The goods to give back. Raises ReservationClosed."""
        freed = self._part(wants, Line.without)
        if not self._remaining():
            some_left = any(line.consumed for line in self.lines)
            self.status = CONSUMED if some_left else RELEASED
        return freed

    def expire(self) -> tuple[Goods, ...]:
        """The goods to give back."""
        freed = self._remaining()
        self.status = EXPIRED
        return freed

    def consume(self, wants: Mapping[UUID, int]) -> tuple[Goods, ...]:
        """The goods that leave, and from where. Raises ReservationClosed."""
        leaving = self._part(wants, Line.less)
        self.status = COMMITTED if self._remaining() else CONSUMED
        return leaving

    def view(self, now: datetime) -> Reservation:
        of_product = groupby(self.lines, key=lambda line: line.product_id)
        return Reservation(
            reservation_id=self.reservation_id,
            order_id=self.order_id,
            status=self.standing(now),
            lines=tuple(_reserved(list(lines)) for _, lines in of_product),
            expires_at=self.expires_at,
        )

    def _remaining(self) -> tuple[Goods, ...]:
        return tuple(line.remaining for line in self.lines if line.left)

    def _part(
        self, wants: Mapping[UUID, int], change: Callable[[Line, int], Line]
    ) -> tuple[Goods, ...]:
        """Change the lines by what is wanted of each product, the first warehouse first."""
        if self.status not in {HELD, COMMITTED}:
            raise closed(self.reservation_id, self.status)
        self._check_enough(wants)
        due, lines, goods = Counter(wants), [], []
        for line in self.lines:
            units = min(due[line.product_id], line.left)
            due[line.product_id] -= units
            lines.append(change(line, units))
            goods.append(replace(line.remaining, quantity=units))
        self.lines = tuple(lines)
        return tuple(some for some in goods if some.quantity)

    def _check_enough(self, wants: Mapping[UUID, int]) -> None:
        left: Counter[UUID] = Counter()
        for line in self.lines:
            left[line.product_id] += line.left
        over = [
            {"product_id": str(key), "requested": wanted, "remaining": left[key]}
            for key, wanted in wants.items()
            if wanted > left[key]
        ]
        if over:
            raise closed(self.reservation_id, self.status, lines=over)


@dataclass(frozen=True)
class Holding:
    """What a customer holds now and has not paid: how many open holds, and units per product."""

    open: int = 0
    units: Mapping[UUID, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """What one customer may hold at a time before paying, so that nobody hoards."""

    open_holds: int
    held_units: int

    def check(self, now: Holding, wants: Mapping[UUID, int]) -> None:
        """Raises TooManyHolds, TooManyUnits."""
        if now.open >= self.open_holds:
            raise TooManyHolds(limit=self.open_holds, open=now.open)
        over = [
            {"product_id": str(key), "requested": units, "held": now.units.get(key, 0)}
            for key, units in wants.items()
            if units + now.units.get(key, 0) > self.held_units
        ]
        if over:
            raise TooManyUnits(limit=self.held_units, lines=over)


def units_of(some: Iterable[Want | Goods]) -> dict[UUID, int]:
    """Units per product, in the order of product ids."""
    units: Counter[UUID] = Counter()
    for one in some:
        units[one.product_id] += one.quantity
    return {product_id: units[product_id] for product_id in sorted(units)}


def closed(
    reservation_id: UUID, status: ReservationStatus | None, **details: Any
) -> ReservationClosed:
    return ReservationClosed(reservation_id=str(reservation_id), status=status, **details)


def _reserved(lines: list[Line]) -> ReservedLine:
    """The lines of one product, as one."""
    first = lines[0]
    return ReservedLine(
        product_id=first.product_id,
        sku=first.sku,
        name=first.name,
        unit_price=first.unit_price,
        quantity=sum(line.quantity + line.released for line in lines),
        consumed=sum(line.consumed for line in lines),
        released=sum(line.released for line in lines),
    )
