"""All of inventory in one transaction."""

from markethall.inventory.sql.category_rows import SqlCategories
from markethall.inventory.sql.import_rows import SqlImports
from markethall.inventory.sql.search_rows import SqlSearch
from markethall.inventory.sql.stock_rows import SqlStock
from markethall.inventory.sql.warehouse_rows import SqlWarehouses


class SqlStore(SqlSearch, SqlStock, SqlImports, SqlWarehouses, SqlCategories):
    """One transaction, or reads without one."""
