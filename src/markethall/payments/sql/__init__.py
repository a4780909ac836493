"""The Postgres storage of payments."""

from markethall.payments.sql.integrity import SqlPaymentIntegrityReads as SqlPaymentIntegrityReads
from markethall.payments.sql.sandbox_ledger import SqlSandboxLedger as SqlSandboxLedger
from markethall.payments.sql.store import SqlPaymentStore as SqlPaymentStore
from markethall.payments.sql.tables import STATEMENTS as STATEMENTS
from markethall.payments.sql.tables import metadata as metadata
