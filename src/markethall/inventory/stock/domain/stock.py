"""What is on the shelves, and how it changes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self
from uuid import UUID

from markethall.inventory.stock.contract.movements import (
    Adjustment,
    MovementReason,
    WouldGoNegative,
)
from markethall.shared.kernel.errors import DomainError, ValidationFailed


@dataclass(frozen=True)
class Stock:
    """One product in one warehouse. `overdue` is what expired holds still have of `reserved`."""

    product_id: UUID
    warehouse_id: UUID
    on_hand: int = 0
    reserved: int = 0
    overdue: int = 0
    # how many may be sold before they are there: more than the limit where more were promised
    # before it was lowered, until goods move or are given back
    backorder: int = 0
    backorder_limit: int = 0

    @property
    def available(self) -> int:
        return self.allocatable + self.overdue

    @property
    def allocatable(self) -> int:
        """How many can be taken, there or not yet, expired holds left alone."""
        return self.unreserved + self.backorder

    @property
    def unreserved(self) -> int:
        """How many are on hand for the next one: less than nothing where more are promised."""
        return self.on_hand - self.reserved

    def with_backorder_limit(self, backorder_limit: int) -> Self:
        """What is promised already stays promised."""
        backorder = max(backorder_limit, self.reserved - self.on_hand)
        return replace(self, backorder=backorder, backorder_limit=backorder_limit)

    def with_backorder_clamped(self) -> Self:
        """After goods have come, gone or been given back: what is not promised beyond the
        limit is not on offer.
        """
        needed = max(self.backorder_limit, self.reserved - self.on_hand)
        return replace(self, backorder=min(self.backorder, needed))

    def would_underflow(self, change: "StockChange") -> bool:
        """Less would be on hand than is reserved, expired holds left out."""
        on_hand_after = self.on_hand + change.delta_from(self.on_hand)
        return on_hand_after < max(0, self.reserved - self.overdue - self.backorder)


@dataclass(frozen=True)
class StockQuantity:
    """Some units of one product in one warehouse."""

    product_id: UUID
    warehouse_id: UUID
    quantity: int


@dataclass(frozen=True)
class StockChange:
    """A movement that is asked for: by so much (delta), or to so much (counted)."""

    movement_id: UUID
    product_id: UUID
    warehouse_id: UUID
    delta: int | None
    counted: int | None
    reason: MovementReason
    note: str
    reference: UUID | None
    actor: str
    created_at: datetime

    def delta_from(self, on_hand: int) -> int:
        if self.delta is not None:
            return self.delta
        return (self.counted or 0) - on_hand

    def mirrored(self, movement_id: UUID, warehouse_id: UUID) -> Self:
        """What leaves here arrives there."""
        delta = None if self.delta is None else -self.delta
        return replace(self, movement_id=movement_id, warehouse_id=warehouse_id, delta=delta)


def total_available(levels: Iterable[Stock]) -> int:
    """In all warehouses."""
    return sum(level.available for level in levels)


def check_adjustment(command: Adjustment) -> None:
    """Raises ValidationFailed."""
    if (command.delta is None) == (command.counted is None):
        message = "exactly one of delta and counted must be given"
        raise ValidationFailed(
            errors=[{"field": "", "code": "delta_or_counted", "message": message}]
        )
    if command.delta == 0:
        message = "must not be zero"
        raise ValidationFailed(errors=[{"field": "/delta", "code": "zero", "message": message}])


def sum_by_stock_row(quantities: Iterable[StockQuantity]) -> tuple[StockQuantity, ...]:
    """One per product and warehouse, in that order."""
    total: Counter[tuple[UUID, UUID]] = Counter()
    for stock_quantity in quantities:
        total[stock_quantity.product_id, stock_quantity.warehouse_id] += stock_quantity.quantity
    # sorted: whoever takes several products locks their rows in the same order as all others
    return tuple(StockQuantity(*key, total[key]) for key in sorted(total))


class InsufficientStock(Exception):
    """There is too little just now: `refusal`. Unless it is `final`, the goods of expired holds
    would do.
    """

    def __init__(self, product_ids: Sequence[UUID], error: DomainError, *, is_final: bool) -> None:
        super().__init__(error)
        self.product_ids = product_ids
        self.error = error
        self.is_final = is_final


def movement_shortage(stock: Stock, change: StockChange) -> InsufficientStock:
    """For a movement that would leave less on hand than is reserved."""
    error = WouldGoNegative(on_hand=stock.on_hand, reserved=stock.reserved)
    return InsufficientStock([stock.product_id], error, is_final=stock.would_underflow(change))


def stocktake_shortage(counted: Sequence[tuple[Stock, StockChange]]) -> InsufficientStock:
    """For shelves of which less was counted than is reserved."""
    lines = [
        {
            "product_id": str(stock.product_id),
            "counted": change.counted,
            "on_hand": stock.on_hand,
            "reserved": stock.reserved,
        }
        for stock, change in counted
    ]
    final = any(stock.would_underflow(change) for stock, change in counted)
    return InsufficientStock(
        [stock.product_id for stock, _ in counted], WouldGoNegative(lines=lines), is_final=final
    )
