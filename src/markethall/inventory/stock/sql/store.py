from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from markethall.inventory.catalogue.domain.text_keys import sku_key
from markethall.inventory.stock.contract import Movement
from markethall.inventory.stock.domain import MAIN_WAREHOUSE, Stock, StockChange, Warehouse
from markethall.inventory.stock.sql import statements, warehouse_statements
from markethall.shared.composition.sql import SqlUnitOfWork

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlStockStore(SqlUnitOfWork):
    async def get_product_stock(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        rows = await self._connection.fetch_all(
            statements.PRODUCT_STOCK, product_id=product_id, now=now
        )
        return [Stock(**row) for row in rows]

    async def get_movement(self, movement_id: UUID) -> Movement | None:
        row = await self._connection.fetch_one(statements.GET_MOVEMENT, movement_id=movement_id)
        return _movement(row) if row else None

    async def list_movements(
        self, product_id: UUID, before: int | None, limit: int
    ) -> Sequence[tuple[int, Movement]]:
        rows = await self._connection.fetch_all(
            statements.LIST_MOVEMENTS, product_id=product_id, before=before, limit=limit
        )
        return [(row["number"], _movement(row)) for row in rows]

    async def list_movements_by_reference(self, reference: UUID) -> Sequence[Movement]:
        rows = await self._connection.fetch_all(
            statements.LIST_MOVEMENTS_BY_REFERENCE, reference=reference
        )
        return [_movement(row) for row in rows]

    async def get_on_hand_at(self, product_id: UUID, at: datetime) -> Mapping[UUID, int]:
        rows = await self._connection.fetch_all(
            statements.ON_HAND_AT, product_id=product_id, now=at
        )
        return {row["warehouse_id"]: row["on_hand"] for row in rows}

    async def get_warehouse_stock(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        rows = await self._connection.fetch_all(
            statements.WAREHOUSE_STOCK,
            product_ids=list(product_ids),
            warehouse_id=warehouse_id,
            now=now,
        )
        return [Stock(**row) for row in rows]

    async def get_skus(
        self, product_ids: Collection[UUID], skus: Collection[str]
    ) -> Mapping[UUID, str]:
        rows = await self._connection.fetch_all(
            statements.SKUS, product_ids=list(product_ids), skus=list(map(sku_key, skus))
        )
        return {row["product_id"]: row["sku"] for row in rows}

    async def apply_changes(self, changes: Sequence[StockChange]) -> Sequence[Movement]:
        rows = await self._connection.fetch_all(
            statements.APPLY_CHANGES, **_change_parameters(changes)
        )
        return [_movement(row) for row in rows]

    async def ensure_stock_rows(self, product_ids: Collection[UUID], warehouse_id: UUID) -> None:
        await self._connection.execute(
            statements.ENSURE_STOCK_ROWS,
            product_ids=list(product_ids),
            warehouse_id=warehouse_id,
        )

    async def ensure_main_stock_row(self, product_id: UUID) -> None:
        await self.ensure_stock_rows([product_id], MAIN_WAREHOUSE)


class SqlWarehouseStore(SqlUnitOfWork):
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


def _change_parameters(changes: Sequence[StockChange]) -> dict[str, Any]:
    first = changes[0]
    return {
        "movement_ids": [change.movement_id for change in changes],
        "product_ids": [change.product_id for change in changes],
        "warehouse_ids": [change.warehouse_id for change in changes],
        "deltas": [change.delta for change in changes],
        "counts": [change.counted for change in changes],
        "reason": first.reason.value,
        "note": first.note,
        "reference": first.reference,
        "actor": first.actor,
        "now": first.created_at,
    }


def _movement(row: "Record") -> Movement:
    return Movement(**{name: row[name] for name in Movement.model_fields})


def _warehouse(row: "Record | None") -> Warehouse | None:
    return Warehouse(**row) if row else None
