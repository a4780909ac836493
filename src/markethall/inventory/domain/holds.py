"""Goods kept for an order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from markethall.inventory.contract import (
    Reservation,
    ReservationClosed,
    ReservationStatus,
    Reserve,
    ReservedLine,
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
    product_id: UUID
    warehouse_id: UUID
    sku: str
    name: str
    unit_price: Money
    quantity: int
    consumed: int = 0

    @property
    def remaining(self) -> Goods:
        return Goods(self.product_id, self.warehouse_id, self.quantity - self.consumed)


@dataclass
class Hold:
    """Goods kept for an order. Lines are in product id order."""

    reservation_id: UUID
    order_id: UUID | None
    customer_id: UUID | None
    status: ReservationStatus
    expires_at: datetime
    lines: tuple[Line, ...] = ()

    @classmethod
    def of(cls, command: Reserve) -> Self:
        return cls(
            command.reservation_id, command.order_id, command.customer_id, HELD, command.expires_at
        )

    @classmethod
    def tombstone(cls, reservation_id: UUID, now: datetime) -> Self:
        """What a release leaves behind that came before its reserve."""
        return cls(reservation_id, None, None, RELEASED, now)

    def commit(self) -> tuple[Goods, ...]:
        """The goods that must be taken again first. Raises ReservationClosed."""
        if self.status == RELEASED:
            raise closed(self.reservation_id, self.status)
        taken_again = self._remaining() if self.status == EXPIRED else ()
        if self.status != CONSUMED:
            self.status = COMMITTED
        return taken_again

    def release(self) -> tuple[Goods, ...]:
        """The goods to give back."""
        freed = self._remaining() if self.status in {HELD, COMMITTED} else ()
        if self.status != CONSUMED:
            self.status = RELEASED
        return freed

    def expire(self) -> tuple[Goods, ...]:
        """The goods to give back."""
        freed = self._remaining()
        self.status = EXPIRED
        return freed

    def consume(self, goods: Iterable[Goods]) -> None:
        """These goods leave. Raises ReservationClosed."""
        if self.status not in {HELD, COMMITTED}:
            raise closed(self.reservation_id, self.status)
        leaving = {some.product_id: some.quantity for some in goods}
        self._check_enough(leaving)
        self.lines = tuple(
            replace(line, consumed=line.consumed + leaving.get(line.product_id, 0))
            for line in self.lines
        )
        self.status = COMMITTED if self._remaining() else CONSUMED

    def view(self) -> Reservation:
        return Reservation(
            reservation_id=self.reservation_id,
            order_id=self.order_id,
            status=self.status,
            lines=tuple(_reserved(line) for line in self.lines),
            expires_at=self.expires_at,
        )

    def _remaining(self) -> tuple[Goods, ...]:
        return tuple(line.remaining for line in self.lines if line.remaining.quantity)

    def _check_enough(self, leaving: Mapping[UUID, int]) -> None:
        left = {line.product_id: line.remaining.quantity for line in self.lines}
        over = [
            {"product_id": str(key), "requested": wanted, "remaining": left.get(key, 0)}
            for key, wanted in leaving.items()
            if wanted > left.get(key, 0)
        ]
        if over:
            raise closed(self.reservation_id, self.status, lines=over)


def closed(
    reservation_id: UUID, status: ReservationStatus | None, **details: Any
) -> ReservationClosed:
    return ReservationClosed(reservation_id=str(reservation_id), status=status, **details)


def _reserved(line: Line) -> ReservedLine:
    return ReservedLine(
        product_id=line.product_id,
        sku=line.sku,
        name=line.name,
        unit_price=line.unit_price,
        quantity=line.quantity,
    )
