"""Where goods are kept."""

from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

from markethall.inventory.contract import (
    NewWarehouse,
    Warehouse,
    WarehouseChange,
    WarehouseInUse,
)

# the one warehouse that every hall has
MAIN_WAREHOUSE: Final = UUID("00000000-0000-7000-8000-000000000001")


@dataclass
class Depot:
    """A warehouse as it is kept."""

    warehouse_id: UUID
    name: str
    priority: int = 0
    active: bool = True
    version: int = 1

    @classmethod
    def new(cls, warehouse_id: UUID, command: NewWarehouse) -> Self:
        return cls(warehouse_id, **command.model_dump())

    def change(self, command: WarehouseChange, *, empty: bool) -> bool:
        """False when everything is so already. Raises WarehouseInUse."""
        wanted = command.model_dump(exclude_unset=True)
        if wanted.get("active") is False and not (empty and self._may_go()):
            raise self.in_use()
        new = {name: value for name, value in wanted.items() if value != getattr(self, name)}
        for name, value in new.items():
            setattr(self, name, value)
        self.version += 1 if new else 0
        return bool(new)

    def check_unused(self, *, used: bool) -> None:
        """Raises WarehouseInUse."""
        if used or not self._may_go():
            raise self.in_use()

    def in_use(self) -> WarehouseInUse:
        return WarehouseInUse(warehouse_id=str(self.warehouse_id))

    def view(self) -> Warehouse:
        return Warehouse(**vars(self))

    def _may_go(self) -> bool:
        return self.warehouse_id != MAIN_WAREHOUSE
