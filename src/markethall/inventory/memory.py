"""The in-memory store of inventory. It combines the stores of the sub-domains by inheritance."""

from markethall.inventory.imports.memory import ImportTables, MemoryImportStore
from markethall.inventory.media.memory import MediaTables, MemoryMediaStore
from markethall.inventory.reservations.memory import (
    MemoryIntegrityReads,
    MemoryReservationStore,
    ReservationTables,
)
from markethall.inventory.search.memory import MemorySearchStore
from markethall.inventory.stock.memory import MemoryWarehouseStore
from markethall.shared.kernel.clock import Clock


class InventoryTables(ReservationTables, ImportTables, MediaTables):
    """The tables of all sub-domains."""


class MemoryInventoryStore(
    MemorySearchStore,
    MemoryImportStore,
    MemoryReservationStore,
    MemoryWarehouseStore,
    MemoryMediaStore,
):
    """The store that a transaction or a read session of inventory uses."""

    def __init__(self, tables: InventoryTables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables: InventoryTables = tables


__all__ = ["InventoryTables", "MemoryIntegrityReads", "MemoryInventoryStore"]
