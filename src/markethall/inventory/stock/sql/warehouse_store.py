"""Warehouses in SQL: what the rest of the context sees of the statements."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from markethall.inventory.stock.domain.warehouses import Warehouse
from markethall.inventory.stock.sql import warehouse_statements
from markethall.shared.composition.sql import SqlUnitOfWork

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlWarehouses(SqlUnitOfWork):
    """One transaction, or reads without one: the warehouses."""

    async def get_warehouse(self, warehouse_id: UUID) -> Warehouse | None:
        return _warehouse(
            await self._connection.fetch_one(
                warehouse_statements.GET_WAREHOUSE, warehouse_id=warehouse_id
            )
        )

    async def get_warehouse_for_update(self, warehouse_id: UUID) -> Warehouse | None:
        return _warehouse(
            await self._connection.fetch_one(
                warehouse_statements.GET_WAREHOUSE_FOR_UPDATE, warehouse_id=warehouse_id
            )
        )

    async def get_warehouse_for_share(self, warehouse_id: UUID) -> Warehouse | None:
        return _warehouse(
            await self._connection.fetch_one(
                warehouse_statements.GET_WAREHOUSE_FOR_SHARE, warehouse_id=warehouse_id
            )
        )

    async def list_warehouses(
        self, after: tuple[int, UUID] | None, limit: int
    ) -> Sequence[Warehouse]:
        priority, after_id = after or (None, None)
        rows = await self._connection.fetch_all(
            warehouse_statements.LIST_WAREHOUSES, priority=priority, after=after_id, limit=limit
        )
        return [Warehouse(**row) for row in rows]

    async def insert_warehouse(self, warehouse: Warehouse) -> bool:
        return bool(
            await self._connection.execute(warehouse_statements.INSERT_WAREHOUSE, **vars(warehouse))
        )

    async def save_warehouse(self, warehouse: Warehouse) -> None:
        row = {f"new_{name}": value for name, value in vars(warehouse).items()}
        await self._connection.execute(
            warehouse_statements.SAVE_WAREHOUSE, warehouse_id=warehouse.warehouse_id, **row
        )

    async def delete_warehouse(self, warehouse_id: UUID) -> None:
        await self._connection.execute(
            warehouse_statements.DELETE_WAREHOUSE, warehouse_id=warehouse_id
        )

    async def has_stock(self, warehouse_id: UUID) -> bool:
        return bool(
            await self._connection.fetch_value(
                warehouse_statements.HAS_STOCK, warehouse_id=warehouse_id
            )
        )

    async def has_stock_rows(self, warehouse_id: UUID) -> bool:
        return bool(
            await self._connection.fetch_value(
                warehouse_statements.HAS_STOCK_ROWS, warehouse_id=warehouse_id
            )
        )


def _warehouse(row: "Record | None") -> Warehouse | None:
    return Warehouse(**row) if row else None
