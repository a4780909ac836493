"""The Postgres store of inventory. It combines the stores of the sub-domains by inheritance."""

from markethall.inventory.catalogue.sql.category_store import SqlCategoryStore
from markethall.inventory.catalogue.sql.store import SqlFamilyStore
from markethall.inventory.catalogue.sql.tables import metadata
from markethall.inventory.imports.sql.store import SqlImportStore
from markethall.inventory.media.sql import SqlMediaStore
from markethall.inventory.reservations.sql.integrity import SqlIntegrityReads
from markethall.inventory.reservations.sql.store import SqlReservationStore
from markethall.inventory.search.sql.store import SqlSearchStore, TrigramSupport
from markethall.inventory.stock.sql.store import SqlStockStore, SqlWarehouseStore
from markethall.shared.composition.sql import ContextStatements

STATEMENTS = ContextStatements(metadata)


class SqlInventoryStore(
    SqlSearchStore,
    SqlReservationStore,
    SqlImportStore,
    SqlStockStore,
    SqlWarehouseStore,
    SqlFamilyStore,
    SqlCategoryStore,
    SqlMediaStore,
):
    """The store that a transaction or a read session of inventory uses."""


__all__ = ["STATEMENTS", "SqlIntegrityReads", "SqlInventoryStore", "TrigramSupport", "metadata"]
