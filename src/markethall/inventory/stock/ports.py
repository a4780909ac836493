"""What warehouses need from the outside."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from markethall.inventory.stock.domain.warehouses import Warehouse


class WarehouseReads(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def get_warehouse(self, warehouse_id: UUID) -> Warehouse | None: ...

    async def list_warehouses(
        self, after: tuple[int, UUID] | None, limit: int
    ) -> Sequence[Warehouse]:
        """By priority and id, beyond that place."""


class WarehouseStore(WarehouseReads, Protocol):
    """Reads and writes of one transaction."""

    async def insert_warehouse(self, warehouse: Warehouse) -> bool:
        """False when its id is taken."""

    async def get_warehouse_for_update(self, warehouse_id: UUID) -> Warehouse | None:
        """Locked until the end of the transaction: no goods come in meanwhile."""

    async def get_warehouse_for_share(self, warehouse_id: UUID) -> Warehouse | None:
        """It is neither changed nor deleted until the end of the transaction."""

    async def has_stock(self, warehouse_id: UUID) -> bool:
        """Are any on hand, or reserved?"""

    async def has_stock_rows(self, warehouse_id: UUID) -> bool:
        """Were goods ever there?"""

    async def save_warehouse(self, warehouse: Warehouse) -> None: ...

    async def delete_warehouse(self, warehouse_id: UUID) -> None: ...
