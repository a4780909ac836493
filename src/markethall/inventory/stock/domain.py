"""Stock rows and their changes, transfers, stocktakes and warehouses."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Self
from uuid import UUID

from markethall.inventory.catalogue.domain.products import invalid_field, set_fields
from markethall.inventory.catalogue.domain.text_keys import sku_key
from markethall.inventory.stock.contract import (
    Adjustment,
    CountedLine,
    Movement,
    MovementReason,
    NewStocktake,
    NewStocktakeLine,
    NewTransfer,
    NewWarehouse,
    Stocktake,
    Transfer,
    WarehouseChange,
    WarehouseInUse,
    WarehouseView,
    WouldGoNegative,
)
from markethall.shared.kernel.errors import DomainError, ValidationFailed


class OfStockRow:
    """Belongs to one stock row, which `key` identifies: the product id and the warehouse id."""

    product_id: UUID
    warehouse_id: UUID

    @property
    def key(self) -> tuple[UUID, UUID]:
        return self.product_id, self.warehouse_id


@dataclass(frozen=True)
class Stock(OfStockRow):
    """The stock of one product in one warehouse.

    `overdue` is the part of `reserved` that belongs to overdue reservations. These are past
    `expires_at`, but their stock is not released yet.
    """

    product_id: UUID
    warehouse_id: UUID
    on_hand: int = 0
    reserved: int = 0
    overdue: int = 0
    # Units that may be sold before they arrive. Normally `backorder` equals `backorder_limit`. If
    # the limit is lowered below the number of units already sold as backorder, `backorder` keeps
    # that number, and falls when stock arrives or is released.
    backorder: int = 0
    backorder_limit: int = 0

    @property
    def available(self) -> int:
        return self.allocatable + self.overdue

    @property
    def allocatable(self) -> int:
        """The units that can be reserved now, including backorder.

        Units of overdue reservations do not count until they are released.
        """
        return self.unreserved + self.backorder

    @property
    def unreserved(self) -> int:
        """The units on hand minus the reserved units. Negative if units were sold as backorder."""
        return self.on_hand - self.reserved

    def with_backorder_limit(self, backorder_limit: int) -> Self:
        """Set the limit. `backorder` stays above it if more units are already sold as backorder."""
        backorder = max(backorder_limit, self.reserved - self.on_hand)
        return replace(self, backorder=backorder, backorder_limit=backorder_limit)

    def with_backorder_clamped(self) -> Self:
        """Lower `backorder` to the limit, but not below the units that are sold as backorder.

        Call it after each change of the stock.
        """
        needed = max(self.backorder_limit, self.reserved - self.on_hand)
        return replace(self, backorder=min(self.backorder, needed))

    def would_underflow(self, change: "StockChange") -> bool:
        """Tell whether the change would leave fewer units on hand than are reserved.

        Units of overdue reservations and backorder units do not count as reserved here.
        """
        on_hand_after = self.on_hand + change.delta_from(self.on_hand)
        return on_hand_after < max(0, self.reserved - self.overdue - self.backorder)


@dataclass(frozen=True)
class StockQuantity(OfStockRow):
    """A number of units of one product in one warehouse."""

    product_id: UUID
    warehouse_id: UUID
    quantity: int


@dataclass(frozen=True)
class StockChange(OfStockRow):
    """A requested movement. It adds `delta` units, or sets the units on hand to `counted`."""

    movement_id: UUID
    product_id: UUID
    warehouse_id: UUID
    reason: MovementReason
    actor: str
    created_at: datetime
    delta: int | None = None
    counted: int | None = None
    note: str = ""
    reference: UUID | None = None

    def delta_from(self, on_hand: int) -> int:
        if self.delta is not None:
            return self.delta
        return (self.counted or 0) - on_hand

    def mirrored(self, movement_id: UUID, warehouse_id: UUID) -> Self:
        """Build the incoming movement of a transfer from the outgoing one."""
        delta = None if self.delta is None else -self.delta
        return replace(self, movement_id=movement_id, warehouse_id=warehouse_id, delta=delta)


def check_adjustment(command: Adjustment) -> None:
    """Raises ValidationFailed."""
    if (command.delta is None) == (command.counted is None):
        message = "exactly one of delta and counted must be given"
        raise invalid_field("", "delta_or_counted", message)
    if command.delta == 0:
        raise invalid_field("/delta", "zero", "must not be zero")


def sum_by_stock_row(quantities: Iterable[StockQuantity]) -> tuple[StockQuantity, ...]:
    """Sum up the quantities of each stock row. Sort by product id and warehouse id."""
    total: Counter[tuple[UUID, UUID]] = Counter()
    for stock_quantity in quantities:
        total[stock_quantity.key] += stock_quantity.quantity
    # all transactions must lock stock rows in this order, so that they cannot deadlock
    return tuple(StockQuantity(*key, total[key]) for key in sorted(total))


class InsufficientStock(Exception):
    """There is too little stock. `error` is the error for the client.

    If `is_final` is false, the release of overdue reservations will free enough stock.
    """

    def __init__(self, product_ids: Sequence[UUID], error: DomainError, *, is_final: bool) -> None:
        super().__init__(error)
        self.product_ids = product_ids
        self.error = error
        self.is_final = is_final


def movement_shortage(stock: Stock, change: StockChange) -> InsufficientStock:
    """Build the error for a movement that would leave fewer units on hand than are reserved."""
    error = WouldGoNegative(on_hand=stock.on_hand, reserved=stock.reserved)
    return InsufficientStock([stock.product_id], error, is_final=stock.would_underflow(change))


def stocktake_shortage(counted: Sequence[tuple[Stock, StockChange]]) -> InsufficientStock:
    """Build the error for stock rows with fewer counted units than reserved units."""
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


def check_transfer(command: NewTransfer) -> None:
    """Raises ValidationFailed."""
    if command.from_warehouse_id == command.to_warehouse_id:
        message = "must be another warehouse than the goods come from"
        raise invalid_field("/to_warehouse_id", "same_warehouse", message)


def plan_transfer(
    command: NewTransfer,
    transfer_id: UUID,
    movement_ids: tuple[UUID, UUID],
    actor: str,
    now: datetime,
) -> tuple[StockChange, StockChange]:
    """Return the outgoing and the incoming change of a transfer."""
    outgoing = StockChange(
        movement_id=movement_ids[0],
        product_id=command.product_id,
        warehouse_id=command.from_warehouse_id,
        delta=-command.quantity,
        reason=MovementReason.TRANSFERRED,
        note=command.note,
        reference=transfer_id,
        actor=actor,
        created_at=now,
    )
    return outgoing, outgoing.mirrored(movement_ids[1], command.to_warehouse_id)


def transfer_from_movements(movements: Iterable[Movement]) -> Transfer:
    """Build a transfer from its two movements. They may be in any order."""
    outgoing, incoming = sorted(movements, key=lambda movement: movement.delta)
    return Transfer(
        **vars(outgoing),
        transfer_id=_reference(outgoing),
        from_warehouse_id=outgoing.warehouse_id,
        to_warehouse_id=incoming.warehouse_id,
        quantity=incoming.delta,
        movements=(outgoing, incoming),
    )


def check_stocktake(command: NewStocktake) -> None:
    """Raises ValidationFailed."""
    message = "exactly one of product_id and sku must be given"
    errors = [
        {"field": f"/lines/{number}", "code": "product_id_or_sku", "message": message}
        for number, line in enumerate(command.lines)
        if (line.product_id is None) == (line.sku is None)
    ]
    if errors:
        raise ValidationFailed(errors=errors)


def counts_by_product(
    lines: Sequence[NewStocktakeLine], skus: Mapping[UUID, str]
) -> dict[UUID, int]:
    """Return the counted units by product id, sorted. Raises ValidationFailed for duplicates."""
    product_ids_by_sku = {sku_key(sku): product_id for product_id, sku in skus.items()}
    counts: dict[UUID, int] = {}
    for number, line in enumerate(lines):
        product_id = line.product_id or product_ids_by_sku[sku_key(line.sku or "")]
        if product_id in counts:
            message = "another line has counted this product"
            raise invalid_field(f"/lines/{number}", "twice", message)
        counts[product_id] = line.counted
    return dict(sorted(counts.items()))


def stocktake_from_movements(movements: Sequence[Movement], skus: Mapping[UUID, str]) -> Stocktake:
    """Build a stocktake from its movements. There must be at least one."""
    first = movements[0]
    lines = [
        CountedLine(**vars(each), sku=skus[each.product_id], counted=each.on_hand_after)
        for each in sorted(movements, key=lambda movement: movement.product_id)
    ]
    return Stocktake(**vars(first), stocktake_id=_reference(first), lines=tuple(lines))


def _reference(movement: Movement) -> UUID:
    if movement.reference is None:
        raise LookupError(f"movement {movement.movement_id} has no reference")
    return movement.reference


# the migration creates the main warehouse with this id
MAIN_WAREHOUSE: Final = UUID("00000000-0000-7000-8000-000000000001")


@dataclass
class Warehouse:
    warehouse_id: UUID
    name: str
    priority: int = 0
    active: bool = True
    version: int = 1

    @classmethod
    def new(cls, warehouse_id: UUID, command: NewWarehouse) -> Self:
        return cls(warehouse_id, **command.model_dump())

    def change(self, command: WarehouseChange, *, is_empty: bool) -> bool:
        """Apply a merge patch. Return False when nothing changes. Raises WarehouseInUse."""
        requested = command.model_dump(exclude_unset=True)
        if requested.get("active") is False and not (is_empty and self._is_removable()):
            raise self.in_use_error()
        is_changed = bool(set_fields(self, requested))
        self.version += is_changed
        return is_changed

    def check_unused(self, *, has_stock_rows: bool) -> None:
        """Raises WarehouseInUse."""
        if has_stock_rows or not self._is_removable():
            raise self.in_use_error()

    def in_use_error(self) -> WarehouseInUse:
        return WarehouseInUse(warehouse_id=str(self.warehouse_id))

    def to_view(self) -> WarehouseView:
        return WarehouseView(**vars(self))

    def _is_removable(self) -> bool:
        return self.warehouse_id != MAIN_WAREHOUSE
