"""All of inventory in one transaction."""

from markethall.inventory.sql.import_rows import SqlImports
from markethall.inventory.sql.search_rows import SqlSearch
from markethall.inventory.sql.stock_rows import SqlStock


class SqlStore(SqlSearch, SqlStock, SqlImports):
    """One transaction, or reads without one."""
