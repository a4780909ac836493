"""Inventory in Postgres, in a schema of that name."""

from markethall.inventory.sql.search_rows import TrigramSupport
from markethall.inventory.sql.store import SqlStore
from markethall.inventory.sql.tables import metadata
from markethall.shared.sql import ContextStatements

STATEMENTS = ContextStatements(metadata)

__all__ = ["STATEMENTS", "SqlStore", "TrigramSupport", "metadata"]
