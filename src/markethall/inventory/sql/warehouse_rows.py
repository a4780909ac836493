"""Warehouses in SQL: what the rest of the context sees of the statements."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from markethall.inventory.domain import Depot
from markethall.inventory.sql import warehouses
from markethall.shared import sql as shared

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlWarehouses(shared.SqlStore):
    """One transaction, or reads without one: the warehouses."""

    async def find_depot(self, warehouse_id: UUID) -> Depot | None:
        return _depot(await self._session.one(warehouses.FIND_DEPOT, of=warehouse_id))

    async def depot(self, warehouse_id: UUID) -> Depot | None:
        return _depot(await self._session.one(warehouses.DEPOT, of=warehouse_id))

    async def open_depot(self, warehouse_id: UUID) -> Depot | None:
        return _depot(await self._session.one(warehouses.OPEN_DEPOT, of=warehouse_id))

    async def depots(self, after: tuple[int, UUID] | None, limit: int) -> Sequence[Depot]:
        priority, last = after or (None, None)
        rows = await self._session.all(
            warehouses.DEPOTS, priority=priority, after=last, limit=limit
        )
        return [Depot(**row) for row in rows]

    async def add_depot(self, depot: Depot) -> bool:
        return bool(await self._session.run(warehouses.ADD_DEPOT, **vars(depot)))

    async def save_depot(self, depot: Depot) -> None:
        row = {f"new_{name}": value for name, value in vars(depot).items()}
        await self._session.run(warehouses.SAVE_DEPOT, of=depot.warehouse_id, **row)

    async def remove_depot(self, warehouse_id: UUID) -> None:
        await self._session.run(warehouses.REMOVE_DEPOT, of=warehouse_id)

    async def has_goods(self, warehouse_id: UUID) -> bool:
        return bool(await self._session.value(warehouses.HAS_GOODS, of=warehouse_id))

    async def has_shelves(self, warehouse_id: UUID) -> bool:
        return bool(await self._session.value(warehouses.HAS_SHELVES, of=warehouse_id))


def _depot(row: "Record | None") -> Depot | None:
    return Depot(**row) if row else None
