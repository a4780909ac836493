"""Inventory in the memory of this process. The same promises as in Postgres, kept by one lock."""

from markethall.inventory.memory.products import MemoryProducts
from markethall.inventory.memory.tables import Tables


class MemoryStore(MemoryProducts):
    """One transaction, or reads without one."""


__all__ = ["MemoryStore", "Tables"]
