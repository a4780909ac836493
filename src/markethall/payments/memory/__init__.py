"""The in-memory storage of payments."""

from markethall.payments.memory.store import MemoryPaymentStore, MemorySandboxLedger, Tables

__all__ = ["MemoryPaymentStore", "MemorySandboxLedger", "Tables"]
