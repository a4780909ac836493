"""What is on the shelves, and how it changes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from markethall.inventory.contract import (
    Adjustment,
    OutOfStock,
    Reason,
    WouldGoNegative,
)
from markethall.shared.errors import Invalid, Refusal


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
        return self.free + self.overdue

    @property
    def free(self) -> int:
        """How many can be taken, there or not yet, expired holds left alone."""
        return self.there + self.backorder

    @property
    def there(self) -> int:
        """How many are on hand for the next one: less than nothing where more are promised."""
        return self.on_hand - self.reserved

    def limited_to(self, backorder_limit: int) -> Self:
        """What is promised already stays promised."""
        backorder = max(backorder_limit, self.reserved - self.on_hand)
        return replace(self, backorder=backorder, backorder_limit=backorder_limit)

    def settled(self) -> Self:
        """After goods have come, gone or been given back: what is not promised beyond the
        limit is not on offer.
        """
        needed = max(self.backorder_limit, self.reserved - self.on_hand)
        return replace(self, backorder=min(self.backorder, needed))

    def lacks_for(self, change: "Change") -> bool:
        """Less would be on hand than is reserved, expired holds left out."""
        left = self.on_hand + change.delta_of(self.on_hand)
        return left < max(0, self.reserved - self.overdue - self.backorder)


@dataclass(frozen=True)
class Goods:
    """Some units of one product in one warehouse."""

    product_id: UUID
    warehouse_id: UUID
    quantity: int


@dataclass(frozen=True)
class Change:
    """A movement that is asked for: by so much (delta), or to so much (counted)."""

    movement_id: UUID
    product_id: UUID
    warehouse_id: UUID
    delta: int | None
    counted: int | None
    reason: Reason
    note: str
    reference: UUID | None
    actor: str
    created_at: datetime

    def delta_of(self, on_hand: int) -> int:
        if self.delta is not None:
            return self.delta
        return (self.counted or 0) - on_hand

    def opposite(self, movement_id: UUID, warehouse_id: UUID) -> Self:
        """What leaves here arrives there."""
        delta = None if self.delta is None else -self.delta
        return replace(self, movement_id=movement_id, warehouse_id=warehouse_id, delta=delta)


def available_of(levels: Iterable[Stock]) -> int:
    """In all warehouses."""
    return sum(level.available for level in levels)


def check_adjustment(command: Adjustment) -> None:
    """Raises Invalid."""
    if (command.delta is None) == (command.counted is None):
        message = "exactly one of delta and counted must be given"
        raise Invalid(errors=[{"field": "", "code": "delta_or_counted", "message": message}])
    if command.delta == 0:
        message = "must not be zero"
        raise Invalid(errors=[{"field": "/delta", "code": "zero", "message": message}])


def summed(goods: Iterable[Goods]) -> tuple[Goods, ...]:
    """One per product and warehouse, in that order."""
    total: Counter[tuple[UUID, UUID]] = Counter()
    for some in goods:
        total[some.product_id, some.warehouse_id] += some.quantity
    # sorted: whoever takes several products locks their rows in the same order as all others
    return tuple(Goods(*place, total[place]) for place in sorted(total))


@dataclass(frozen=True)
class Missing:
    """Units of a product that could not be taken, and how many there were, those of expired holds
    included.
    """

    product_id: UUID
    quantity: int
    available: int


class Shortage(Exception):
    """There is too little just now: `refusal`. Unless it is `final`, the goods of expired holds
    would do.
    """

    def __init__(self, product_ids: Sequence[UUID], refusal: Refusal, *, final: bool) -> None:
        super().__init__(refusal)
        self.product_ids = product_ids
        self.refusal = refusal
        self.final = final


def not_enough(missing: Sequence[Missing]) -> OutOfStock:
    """For what could not be taken."""
    return OutOfStock(lines=[_line_of(some) for some in missing])


def too_few(stock: Stock, change: Change) -> Shortage:
    """For a movement that would leave less on hand than is reserved."""
    refusal = WouldGoNegative(on_hand=stock.on_hand, reserved=stock.reserved)
    return Shortage([stock.product_id], refusal, final=stock.lacks_for(change))


def too_many(counted: Sequence[tuple[Stock, Change]]) -> Shortage:
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
    final = any(stock.lacks_for(change) for stock, change in counted)
    return Shortage(
        [stock.product_id for stock, _ in counted], WouldGoNegative(lines=lines), final=final
    )


def _line_of(some: Missing) -> dict[str, Any]:
    return {
        "product_id": str(some.product_id),
        "requested": some.quantity,
        # what came back since we failed to take it was not there when we did
        "available": min(some.available, some.quantity - 1),
    }
