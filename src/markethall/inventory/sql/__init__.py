"""Inventory in Postgres, in a schema of that name."""

from markethall.inventory.catalogue.sql.tables import metadata
from markethall.inventory.search.sql.store import TrigramSupport
from markethall.inventory.sql_store import SqlStore
from markethall.shared.composition.sql import ContextStatements

STATEMENTS = ContextStatements(metadata)

__all__ = ["STATEMENTS", "SqlStore", "TrigramSupport", "metadata"]
