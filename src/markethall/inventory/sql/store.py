"""All of inventory in one transaction."""

from markethall.inventory.sql.search_rows import SqlSearch
from markethall.inventory.sql.stock_rows import SqlStock


class SqlStore(SqlSearch, SqlStock):
    """One transaction, or reads without one."""
