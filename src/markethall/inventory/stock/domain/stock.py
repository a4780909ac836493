"""Stock rows and their changes."""

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
    """One product in one warehouse. `overdue`: the part of `reserved` of expired reservations."""

    product_id: UUID
    warehouse_id: UUID
    on_hand: int = 0
    reserved: int = 0
    overdue: int = 0
    # units that may be sold before they arrive; above the limit when it was lowered below what was
    # already sold, until stock moves or is released
    backorder: int = 0
    backorder_limit: int = 0

    @property
    def available(self) -> int:
        return self.allocatable + self.overdue

    @property
    def allocatable(self) -> int:
        """Units that can be reserved, on hand or on backorder, without those of expired reservations."""
        return self.unreserved + self.backorder

    @property
    def unreserved(self) -> int:
        """Units on hand that are not reserved; below zero with sold backorder units."""
        return self.on_hand - self.reserved

    def with_backorder_limit(self, backorder_limit: int) -> Self:
        """Set the limit; backorder units that are sold already stay sold."""
        backorder = max(backorder_limit, self.reserved - self.on_hand)
        return replace(self, backorder=backorder, backorder_limit=backorder_limit)

    def with_backorder_clamped(self) -> Self:
        """Lower a backorder above the limit to the units that are sold, after any stock change."""
        needed = max(self.backorder_limit, self.reserved - self.on_hand)
        return replace(self, backorder=min(self.backorder, needed))

    def would_underflow(self, change: "StockChange") -> bool:
        """Whether less would be on hand than is reserved, without expired reservations."""
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
    """A requested movement: by `delta` units, or to `counted` units."""

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
        """Build the incoming movement of a transfer from the outgoing one."""
        delta = None if self.delta is None else -self.delta
        return replace(self, movement_id=movement_id, warehouse_id=warehouse_id, delta=delta)


def total_available(levels: Iterable[Stock]) -> int:
    """Sum the available units over all warehouses."""
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
    """Sum the quantities of each stock row, in the order of product ids and warehouse ids."""
    total: Counter[tuple[UUID, UUID]] = Counter()
    for stock_quantity in quantities:
        total[stock_quantity.product_id, stock_quantity.warehouse_id] += stock_quantity.quantity
    # sorted: all transactions lock stock rows in the same order
    return tuple(StockQuantity(*key, total[key]) for key in sorted(total))


class InsufficientStock(Exception):
    """Too little stock. Unless `is_final`, releasing expired reservations would help.

    `error` goes to the client.
    """

    def __init__(self, product_ids: Sequence[UUID], error: DomainError, *, is_final: bool) -> None:
        super().__init__(error)
        self.product_ids = product_ids
        self.error = error
        self.is_final = is_final


def movement_shortage(stock: Stock, change: StockChange) -> InsufficientStock:
    """Build the error for a movement that would leave less on hand than is reserved."""
    error = WouldGoNegative(on_hand=stock.on_hand, reserved=stock.reserved)
    return InsufficientStock([stock.product_id], error, is_final=stock.would_underflow(change))


def stocktake_shortage(counted: Sequence[tuple[Stock, StockChange]]) -> InsufficientStock:
    """Build the error for stock rows with fewer counted than reserved units."""
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
