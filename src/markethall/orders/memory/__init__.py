"""The in-memory storage of orders."""

from markethall.orders.memory.integrity import MemoryOrderIntegrityReads
from markethall.orders.memory.store import MemoryOrderStore
from markethall.orders.memory.tables import Tables

__all__ = ["MemoryOrderIntegrityReads", "MemoryOrderStore", "Tables"]
