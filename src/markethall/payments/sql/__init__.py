"""Payments in Postgres."""

from markethall.payments.sql.book import SqlSandboxBook
from markethall.payments.sql.store import SqlStore
from markethall.payments.sql.tables import STATEMENTS, metadata

__all__ = ["STATEMENTS", "SqlSandboxBook", "SqlStore", "metadata"]
