"""Warehouses."""

from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

from markethall.inventory.stock.contract.warehouses import (
    NewWarehouse,
    WarehouseChange,
    WarehouseInUse,
    WarehouseView,
)

# created by the first migration
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
        """Apply a merge patch. False when nothing changes. Raises WarehouseInUse."""
        requested = command.model_dump(exclude_unset=True)
        if requested.get("active") is False and not (is_empty and self._is_removable()):
            raise self.in_use_error()
        changes = {name: value for name, value in requested.items() if value != getattr(self, name)}
        for name, value in changes.items():
            setattr(self, name, value)
        self.version += 1 if changes else 0
        return bool(changes)

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
