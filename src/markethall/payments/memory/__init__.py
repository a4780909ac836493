"""The in-memory storage of payments."""

from markethall.payments.memory.integrity import MemoryPaymentIntegrityReads
from markethall.payments.memory.sandbox import MemorySandboxLedger
from markethall.payments.memory.store import MemoryPaymentStore
from markethall.payments.memory.tables import Tables

__all__ = ["MemoryPaymentIntegrityReads", "MemoryPaymentStore", "MemorySandboxLedger", "Tables"]
