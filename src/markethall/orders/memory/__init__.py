"""The in-memory storage of orders."""

from markethall.orders.memory.integrity import (
    MemoryOrderIntegrityReads as MemoryOrderIntegrityReads,
)
from markethall.orders.memory.store import MemoryOrderStore as MemoryOrderStore
from markethall.orders.memory.store import Tables as Tables
