"""Inventory in the memory of this process. The same promises as in Postgres, kept by one lock."""

from markethall.inventory.memory.imports import MemoryImportStore
from markethall.inventory.memory.search import MemorySearchStore
from markethall.inventory.memory.tables import Tables
from markethall.inventory.memory.warehouses import MemoryWarehouses


class MemoryStore(MemorySearchStore, MemoryImportStore, MemoryWarehouses):
    """One transaction, or reads without one."""


__all__ = ["MemoryStore", "Tables"]
