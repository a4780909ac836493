"""The Postgres storage of payments."""

from markethall.payments.sql.integrity import SqlPaymentIntegrityReads
from markethall.payments.sql.sandbox_ledger import SqlSandboxLedger
from markethall.payments.sql.store import SqlPaymentStore
from markethall.payments.sql.tables import STATEMENTS, metadata

__all__ = [
    "STATEMENTS",
    "SqlPaymentIntegrityReads",
    "SqlPaymentStore",
    "SqlSandboxLedger",
    "metadata",
]
