"""All of inventory in one transaction."""

from markethall.inventory.sql.category_rows import SqlCategoryStore
from markethall.inventory.sql.import_rows import SqlImportStore
from markethall.inventory.sql.search_rows import SqlSearchStore
from markethall.inventory.sql.stock_rows import SqlStock
from markethall.inventory.sql.warehouse_rows import SqlWarehouses


class SqlStore(SqlSearchStore, SqlStock, SqlImportStore, SqlWarehouses, SqlCategoryStore):
    """One transaction, or reads without one."""
