"""All of inventory in one transaction."""

from markethall.inventory.sql.product_rows import SqlProducts
from markethall.inventory.sql.stock_rows import SqlStock


class SqlStore(SqlProducts, SqlStock):
    """One transaction, or reads without one."""
