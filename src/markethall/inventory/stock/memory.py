"""Warehouses in memory."""

from collections.abc import Sequence
from uuid import UUID

from markethall.inventory.catalogue.memory.tables import Tables
from markethall.inventory.stock.domain.warehouses import Warehouse
from markethall.shared.composition.memory import MemoryUnitOfWork
from markethall.shared.kernel.clock import Clock


class MemoryWarehouses(MemoryUnitOfWork):
    """One transaction, or reads without one: the warehouses."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def get_warehouse(self, warehouse_id: UUID) -> Warehouse | None:
        return self._tables.warehouses.get(warehouse_id)

    # one transaction at a time: whoever is in it has the lock
    get_warehouse_for_update = get_warehouse_for_share = get_warehouse

    async def list_warehouses(
        self, after: tuple[int, UUID] | None, limit: int
    ) -> Sequence[Warehouse]:
        after_cursor = self._tables.warehouses.where(
            lambda row: after is None or _sort_key(row) > after
        )
        return sorted(after_cursor, key=_sort_key)[:limit]

    async def insert_warehouse(self, warehouse: Warehouse) -> bool:
        return self._tables.warehouses.add(warehouse.warehouse_id, warehouse)

    async def save_warehouse(self, warehouse: Warehouse) -> None:
        self._tables.warehouses.put(warehouse.warehouse_id, warehouse)

    async def delete_warehouse(self, warehouse_id: UUID) -> None:
        self._tables.warehouses.remove(warehouse_id)

    async def has_stock(self, warehouse_id: UUID) -> bool:
        return any(
            stock.on_hand + stock.reserved
            for stock in self._tables.stock.rows()
            if stock.warehouse_id == warehouse_id
        )

    async def has_stock_rows(self, warehouse_id: UUID) -> bool:
        return any(stock.warehouse_id == warehouse_id for stock in self._tables.stock.rows())


def _sort_key(warehouse: Warehouse) -> tuple[int, UUID]:
    return warehouse.priority, warehouse.warehouse_id
