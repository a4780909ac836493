"""Choose the warehouses that an order is sent from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice
from typing import Final
from uuid import UUID

from markethall.inventory.stock.domain import MAIN_WAREHOUSE, StockQuantity

# The number of warehouse sets grows exponentially, so only this many are tried. If none of them has
# enough stock, the strategy takes all warehouses and removes each one that is not needed.
_MAX_WAREHOUSE_SETS: Final = 500


@dataclass(frozen=True)
class FreeStock:
    """The units of a product that can be reserved in a warehouse.

    Warehouses with a lower `priority` number are preferred.
    """

    warehouse_id: UUID
    priority: int
    quantity: int

    @property
    def rank(self) -> tuple[int, UUID]:
        return self.priority, self.warehouse_id


FreeStockByProduct = Mapping[UUID, Sequence[FreeStock]]


class FewestParcels:
    """Choose the smallest set of warehouses that has enough stock.

    Between sets of the same size, prefer warehouses with a lower `priority` number. Implementation
    of `AllocationStrategy`.
    """

    def plan(
        self, requested: Mapping[UUID, int], free_stock: FreeStockByProduct
    ) -> tuple[StockQuantity, ...] | None:
        candidates = _warehouses_by_rank(requested, free_stock)
        if _allocate_from(candidates, requested, free_stock) is None:
            return None
        for warehouses in chain(
            _warehouse_sets_by_size(candidates),
            (_drop_unneeded_warehouses(candidates, requested, free_stock),),
        ):
            if (quantities := _allocate_from(warehouses, requested, free_stock)) is not None:
                return quantities
        return None


def allocate_from_main_warehouse(requested: Mapping[UUID, int]) -> tuple[StockQuantity, ...]:
    """Plan to take all units from the main warehouse.

    The first attempt uses this plan, because it needs no read of the stock.
    """
    return tuple(
        StockQuantity(product_id, MAIN_WAREHOUSE, quantity)
        for product_id, quantity in requested.items()
    )


def _warehouses_by_rank(
    requested: Mapping[UUID, int], free_stock: FreeStockByProduct
) -> tuple[UUID, ...]:
    ranks = {
        free.rank
        for product_id in requested
        for free in free_stock.get(product_id, ())
        if free.quantity > 0
    }
    return tuple(warehouse_id for _, warehouse_id in sorted(ranks))


def _warehouse_sets_by_size(warehouses: Sequence[UUID]) -> Iterator[tuple[UUID, ...]]:
    """Yield sets of warehouses, the smallest first; within a size, the preferred warehouses first.

    `warehouses` must be sorted by preference.
    """
    sizes = (combinations(warehouses, size) for size in range(len(warehouses) + 1))
    return islice(chain.from_iterable(sizes), _MAX_WAREHOUSE_SETS)


def _drop_unneeded_warehouses(
    warehouses: tuple[UUID, ...], requested: Mapping[UUID, int], free_stock: FreeStockByProduct
) -> tuple[UUID, ...]:
    """Remove each warehouse whose stock is not needed, beginning with the least preferred."""
    needed = warehouses
    for warehouse_id in reversed(warehouses):
        fewer = tuple(other for other in needed if other != warehouse_id)
        if _allocate_from(fewer, requested, free_stock) is not None:
            needed = fewer
    return needed


def _allocate_from(
    warehouses: Sequence[UUID], requested: Mapping[UUID, int], free_stock: FreeStockByProduct
) -> tuple[StockQuantity, ...] | None:
    """Return quantities, sorted by product and warehouse id, or None if the stock is too small."""
    quantities: list[StockQuantity] = []
    for product_id, quantity in requested.items():
        free_by_warehouse = {
            free.warehouse_id: free.quantity for free in free_stock.get(product_id, ())
        }
        portions = _split_between_warehouses(
            quantity,
            [(warehouse_id, free_by_warehouse.get(warehouse_id, 0)) for warehouse_id in warehouses],
        )
        if portions is None:
            return None
        quantities += (StockQuantity(product_id, key, portions[key]) for key in sorted(portions))
    return tuple(quantities)


def _split_between_warehouses(
    quantity: int, free_by_warehouse: Sequence[tuple[UUID, int]]
) -> dict[UUID, int] | None:
    """Take the whole quantity from the first warehouse that has enough free units.

    If none has enough, take the free units of one warehouse after the other until the quantity is
    reached. Return None if all warehouses together have too few.
    """
    sufficient = next(
        (warehouse_id for warehouse_id, free in free_by_warehouse if free >= quantity), None
    )
    if sufficient is not None:
        return {sufficient: quantity}
    quantities: dict[UUID, int] = {}
    for key, free in free_by_warehouse:
        if free > 0 and quantity:
            quantities[key] = min(free, quantity)
            quantity -= quantities[key]
    return None if quantity else quantities
