"""Reservations of stock for an order, and the limits per customer."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Self
from uuid import UUID

from markethall.inventory.contract import (
    MAX_EXTENDED_DURATION,
    MAX_RESERVATION_DURATION,
    OutOfStock,
    RequestedLine,
    ReservationClosed,
    ReservationLineView,
    ReservationStatus,
    ReservationView,
    Reserve,
    TooManyUnits,
    TooManyUnpaidOrders,
)
from markethall.inventory.stock.domain import OfStockRow, StockQuantity
from markethall.shared.kernel.money import Money

HELD, COMMITTED, CONSUMED = (
    ReservationStatus.HELD,
    ReservationStatus.COMMITTED,
    ReservationStatus.CONSUMED,
)
RELEASED, EXPIRED = ReservationStatus.RELEASED, ReservationStatus.EXPIRED


@dataclass(frozen=True)
class ReservationLine(OfStockRow):
    """The reserved units of a product in one warehouse.

    `quantity` is the number of units reserved at first, minus the `released` units. It includes
    the `consumed` units.
    """

    product_id: UUID
    warehouse_id: UUID
    sku: str
    name: str
    unit_price: Money
    quantity: int
    consumed: int = 0
    released: int = 0
    tax_class: str = "standard"
    weight_grams: int | None = None
    category: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def has_units(self) -> bool:
        """Whether the line has or had units."""
        return self.quantity + self.released > 0

    @property
    def remaining_quantity(self) -> int:
        return self.quantity - self.consumed

    @property
    def remaining(self) -> StockQuantity:
        return StockQuantity(self.product_id, self.warehouse_id, self.remaining_quantity)

    def consume(self, quantity: int) -> Self:
        return replace(self, consumed=self.consumed + quantity)

    def release(self, quantity: int) -> Self:
        return replace(self, quantity=self.quantity - quantity, released=self.released + quantity)


@dataclass
class Reservation:
    """A reservation. Its lines are sorted by product id and warehouse id."""

    reservation_id: UUID
    order_id: UUID | None
    customer_id: UUID | None
    status: ReservationStatus
    reserved_at: datetime
    expires_at: datetime
    lines: tuple[ReservationLine, ...] = ()
    # the requested currency of the prices, which is not stored
    currency: str | None = None

    @classmethod
    def from_command(cls, command: Reserve, now: datetime) -> Self:
        return cls(
            command.reservation_id,
            command.order_id,
            command.customer_id,
            HELD,
            reserved_at=now,
            expires_at=min(command.expires_at, now + MAX_RESERVATION_DURATION),
            currency=command.currency,
        )

    @classmethod
    def tombstone(cls, reservation_id: UUID, now: datetime) -> Self:
        """Build the record of a `release` that arrived before the `reserve` with the same id."""
        return cls(reservation_id, None, None, RELEASED, now, now)

    def effective_status(self, now: datetime) -> ReservationStatus:
        """Return the status, but EXPIRED for an overdue reservation that no job has expired yet."""
        return EXPIRED if self.status == HELD and self.expires_at <= now else self.status

    def extend(self, expires_at: datetime, now: datetime) -> None:
        """Move the expiry to a later time. Ignore an earlier time. Raises ReservationClosed.

        The expiry is at most MAX_EXTENDED_DURATION after `reserved_at`.
        """
        if self.effective_status(now) != HELD:
            raise reservation_closed_error(self.reservation_id, self.effective_status(now))
        latest = min(expires_at, self.reserved_at + MAX_EXTENDED_DURATION)
        self.expires_at = max(self.expires_at, latest)

    def commit(self) -> tuple[StockQuantity, ...]:
        """Set the status to committed, unless the reservation is consumed.

        If the reservation was expired, return its units, which the caller must reserve again.
        Raises ReservationClosed if the reservation was released.
        """
        if self.status == RELEASED:
            raise reservation_closed_error(self.reservation_id, self.status)
        to_reserve_again = self._remaining() if self.status == EXPIRED else ()
        if self.status != CONSUMED:
            self.status = COMMITTED
        return to_reserve_again

    def reassign(self, quantities: Sequence[StockQuantity]) -> None:
        """Move the remaining units to other warehouses. Call it only before any unit is consumed.

        Products without remaining units are not in `quantities`, and keep their lines.
        """
        first_lines = {line.product_id: line for line in reversed(self.lines)}
        released = quantity_by_product(
            replace(line.remaining, quantity=line.released) for line in self.lines
        )
        moved_product_ids = {moved.product_id for moved in quantities}
        lines = [line for line in self.lines if line.product_id not in moved_product_ids]
        for moved in quantities:
            line = replace(first_lines[moved.product_id], warehouse_id=moved.warehouse_id)
            # the first new line of a product gets all its released units
            lines.append(
                replace(line, quantity=moved.quantity, released=released.pop(moved.product_id, 0))
            )
        self.lines = tuple(sorted(lines, key=lambda line: line.key))

    def release(self) -> tuple[StockQuantity, ...]:
        """Release all remaining units, and return them."""
        released = self._remaining() if self.status in {HELD, COMMITTED} else ()
        if self.status != CONSUMED:
            self.status = RELEASED
        return released

    def release_part(self, requested: Mapping[UUID, int]) -> tuple[StockQuantity, ...]:
        """Release some units, and return them by stock row. Raises ReservationClosed."""
        released = self._apply_partial(requested, ReservationLine.release)
        if not self._remaining():
            any_consumed = any(line.consumed for line in self.lines)
            self.status = CONSUMED if any_consumed else RELEASED
        return released

    def merge(self, other: "Reservation") -> None:
        """Move all remaining units of the other reservation to this one, and release the other.

        Raises ReservationClosed if one of them is not held or committed.
        """
        for reservation in (self, other):
            if reservation.status not in {HELD, COMMITTED}:
                raise reservation_closed_error(reservation.reservation_id, reservation.status)
        lines = {line.key: line for line in self.lines}
        for moved in other.lines:
            known = lines.get(moved.key, replace(moved, quantity=0, consumed=0, released=0))
            lines[moved.key] = replace(known, quantity=known.quantity + moved.remaining_quantity)
        self.lines = tuple(lines[key] for key in sorted(lines) if lines[key].has_units)
        other.lines = tuple(line.release(line.remaining_quantity) for line in other.lines)
        other.status = CONSUMED if any(line.consumed for line in other.lines) else RELEASED

    def expire(self) -> tuple[StockQuantity, ...]:
        """Set the status to expired. Return the units whose stock the caller must release."""
        released = self._remaining()
        self.status = EXPIRED
        return released

    def consume(self, requested: Mapping[UUID, int]) -> tuple[StockQuantity, ...]:
        """Consume some units, and return them by stock row. Raises ReservationClosed."""
        consumed = self._apply_partial(requested, ReservationLine.consume)
        self.status = COMMITTED if self._remaining() else CONSUMED
        return consumed

    def to_view(self, now: datetime) -> ReservationView:
        lines_by_product = groupby(self.lines, key=lambda line: line.product_id)
        lines = tuple(_merge_product_lines(list(lines)) for _, lines in lines_by_product)
        computed: dict[str, Any] = {"status": self.effective_status(now), "lines": lines}
        return ReservationView(**vars(self) | computed)

    def _remaining(self) -> tuple[StockQuantity, ...]:
        return tuple(line.remaining for line in self.lines if line.remaining_quantity)

    def _apply_partial(
        self,
        requested: Mapping[UUID, int],
        apply: Callable[[ReservationLine, int], ReservationLine],
    ) -> tuple[StockQuantity, ...]:
        """Distribute the requested units of each product over its lines, the first line first.

        Return the units by stock row. Raises ReservationClosed.
        """
        if self.status not in {HELD, COMMITTED}:
            raise reservation_closed_error(self.reservation_id, self.status)
        self._check_enough(requested)
        outstanding, lines, changed = Counter(requested), [], []
        for line in self.lines:
            quantity = min(outstanding[line.product_id], line.remaining_quantity)
            outstanding[line.product_id] -= quantity
            lines.append(apply(line, quantity))
            changed.append(replace(line.remaining, quantity=quantity))
        self.lines = tuple(lines)
        return tuple(stock_quantity for stock_quantity in changed if stock_quantity.quantity)

    def _check_enough(self, requested: Mapping[UUID, int]) -> None:
        remaining: Counter[UUID] = Counter()
        for line in self.lines:
            remaining[line.product_id] += line.remaining_quantity
        exceeded = [
            {
                "product_id": str(product_id),
                "requested": quantity,
                "remaining": remaining[product_id],
            }
            for product_id, quantity in requested.items()
            if quantity > remaining[product_id]
        ]
        if exceeded:
            raise reservation_closed_error(self.reservation_id, self.status, lines=exceeded)


@dataclass(frozen=True)
class CustomerUsage:
    """The number of unpaid reservations of a customer, and their units by product."""

    unpaid_reservations: int = 0
    reserved_units: Mapping[UUID, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CustomerLimits:
    """Limits of unpaid reservations per customer, so that one customer cannot block the stock.

    `max_reserved_units` applies to each product.
    """

    max_unpaid_orders: int
    max_reserved_units: int

    def check(self, usage: CustomerUsage, requested: Mapping[UUID, int]) -> None:
        """Raises TooManyUnpaidOrders, TooManyUnits."""
        if usage.unpaid_reservations >= self.max_unpaid_orders:
            raise TooManyUnpaidOrders(limit=self.max_unpaid_orders, open=usage.unpaid_reservations)
        exceeded = [
            {
                "product_id": str(product_id),
                "requested": quantity,
                "held": usage.reserved_units.get(product_id, 0),
            }
            for product_id, quantity in requested.items()
            if quantity + usage.reserved_units.get(product_id, 0) > self.max_reserved_units
        ]
        if exceeded:
            raise TooManyUnits(limit=self.max_reserved_units, lines=exceeded)


def quantity_by_product(lines: Iterable[RequestedLine | StockQuantity]) -> dict[UUID, int]:
    """Sum the units of each product. The result is sorted by product id."""
    quantities: Counter[UUID] = Counter()
    for line in lines:
        quantities[line.product_id] += line.quantity
    return {product_id: quantities[product_id] for product_id in sorted(quantities)}


def reservation_closed_error(
    reservation_id: UUID, status: ReservationStatus | None, **details: Any
) -> ReservationClosed:
    return ReservationClosed(reservation_id=str(reservation_id), status=status, **details)


@dataclass(frozen=True)
class ShortLine:
    """A product with too little stock: the requested and the available units.

    Units of overdue reservations count as available.
    """

    product_id: UUID
    quantity: int
    available: int


def out_of_stock_error(short_lines: Sequence[ShortLine]) -> OutOfStock:
    lines = [
        {
            "product_id": str(line.product_id),
            "requested": line.quantity,
            # If stock was released after the failed attempt, enough units may be available again.
            # But the error must report fewer units than requested.
            "available": min(line.available, line.quantity - 1),
        }
        for line in short_lines
    ]
    return OutOfStock(lines=lines)


def _merge_product_lines(lines: list[ReservationLine]) -> ReservationLineView:
    """Merge the lines of one product, which differ by warehouse."""
    sums = {
        "quantity": sum(line.quantity + line.released for line in lines),
        "consumed": sum(line.consumed for line in lines),
        "released": sum(line.released for line in lines),
    }
    return ReservationLineView(**vars(lines[0]) | sums)
