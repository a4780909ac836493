"""The in-memory storage of payments."""

from markethall.payments.memory.integrity import (
    MemoryPaymentIntegrityReads as MemoryPaymentIntegrityReads,
)
from markethall.payments.memory.sandbox import MemorySandboxLedger as MemorySandboxLedger
from markethall.payments.memory.store import MemoryPaymentStore as MemoryPaymentStore
from markethall.payments.memory.tables import Tables as Tables
