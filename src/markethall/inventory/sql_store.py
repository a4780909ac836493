"""All of inventory in one transaction."""

from markethall.inventory.catalogue.sql.category_store import SqlCategoryStore
from markethall.inventory.imports.sql.store import SqlImportStore
from markethall.inventory.reservations.sql.store import SqlStock
from markethall.inventory.search.sql.store import SqlSearchStore
from markethall.inventory.stock.sql.warehouse_store import SqlWarehouses


class SqlStore(SqlSearchStore, SqlStock, SqlImportStore, SqlWarehouses, SqlCategoryStore):
    """One transaction, or reads without one."""
