"""Inventory in the memory of this process. The same promises as in Postgres, kept by one lock."""

from markethall.inventory.catalogue.memory.tables import Tables
from markethall.inventory.imports.memory import MemoryImportStore
from markethall.inventory.search.memory import MemorySearchStore
from markethall.inventory.stock.memory import MemoryWarehouses


class MemoryStore(MemorySearchStore, MemoryImportStore, MemoryWarehouses):
    """One transaction, or reads without one."""


__all__ = ["MemoryStore", "Tables"]
