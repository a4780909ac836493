"""Warehouses in memory."""

from collections.abc import Sequence
from uuid import UUID

from markethall.inventory.domain import Depot
from markethall.inventory.memory.tables import Tables
from markethall.shared import memory
from markethall.shared.clock import Clock


class MemoryWarehouses(memory.MemoryStore):
    """One transaction, or reads without one: the warehouses."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def find_depot(self, warehouse_id: UUID) -> Depot | None:
        return self._tables.warehouses.get(warehouse_id)

    # one transaction at a time: whoever is in it has the lock
    depot = open_depot = find_depot

    async def depots(self, after: tuple[int, UUID] | None, limit: int) -> Sequence[Depot]:
        beyond = self._tables.warehouses.where(lambda row: after is None or _place(row) > after)
        return sorted(beyond, key=_place)[:limit]

    async def add_depot(self, depot: Depot) -> bool:
        return self._tables.warehouses.add(depot.warehouse_id, depot)

    async def save_depot(self, depot: Depot) -> None:
        self._tables.warehouses.put(depot.warehouse_id, depot)

    async def remove_depot(self, warehouse_id: UUID) -> None:
        self._tables.warehouses.remove(warehouse_id)

    async def has_goods(self, warehouse_id: UUID) -> bool:
        return any(
            stock.on_hand + stock.reserved
            for stock in self._tables.stock.rows()
            if stock.warehouse_id == warehouse_id
        )

    async def has_shelves(self, warehouse_id: UUID) -> bool:
        return any(stock.warehouse_id == warehouse_id for stock in self._tables.stock.rows())


def _place(depot: Depot) -> tuple[int, UUID]:
    return depot.priority, depot.warehouse_id
