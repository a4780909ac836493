"""Rules between stock rows, their movements and the reservations of their units."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from markethall.inventory.stock.domain import OfStockRow
from markethall.shared.kernel.integrity import OffendingRow


@dataclass(frozen=True)
class OnHandSum(OfStockRow):
    """The units of a stock row, and the sum of its movements."""

    product_id: UUID
    warehouse_id: UUID
    on_hand: int
    moved: int


@dataclass(frozen=True)
class ReservedSum(OfStockRow):
    """The reserved units of a stock row, and their sum over its held or committed reservations."""

    product_id: UUID
    warehouse_id: UUID
    on_hand: int
    backorder: int
    reserved: int
    reserved_by_lines: int


@dataclass(frozen=True)
class OverdueReservation:
    reservation_id: UUID
    order_id: UUID | None
    expires_at: datetime

    @property
    def key(self) -> tuple[datetime, UUID]:
        return self.expires_at, self.reservation_id


def judge_on_hand(stock: OnHandSum) -> Iterator[OffendingRow]:
    if stock.on_hand != stock.moved:
        yield _stock_row(
            stock.key, f"on_hand is {stock.on_hand}, the sum of its movements is {stock.moved}"
        )


def judge_reserved(stock: ReservedSum) -> Iterator[OffendingRow]:
    if stock.reserved != stock.reserved_by_lines:
        yield _stock_row(
            stock.key,
            f"reserved is {stock.reserved}, its live reservations have {stock.reserved_by_lines}",
        )


def judge_limits(stock: ReservedSum) -> Iterator[OffendingRow]:
    """Check that no more units are reserved than are on hand or may be sold as backorder."""
    if not 0 <= stock.reserved <= stock.on_hand + stock.backorder or stock.on_hand < 0:
        yield _stock_row(
            stock.key,
            f"reserved is {stock.reserved}, on_hand {stock.on_hand}, backorder {stock.backorder}",
        )


def judge_overdue(reservation: OverdueReservation) -> Iterator[OffendingRow]:
    yield OffendingRow(
        row=f"reservation reservation_id={reservation.reservation_id}",
        problem=f"held for order {reservation.order_id},"
        f" although it has expired at {reservation.expires_at.isoformat()}",
    )


def _stock_row(key: tuple[UUID, UUID], problem: str) -> OffendingRow:
    return OffendingRow(row=f"stock product_id={key[0]} warehouse_id={key[1]}", problem=problem)
