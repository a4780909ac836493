"""What inventory needs from the outside."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from markethall.inventory.ports.catalogue import (
    ByteCache,
    FamilySummary,
    ProductCache,
    ProductJson,
    ProductReads,
    ProductStore,
)
from markethall.inventory.ports.categories import CategoryReads, CategoryStore
from markethall.inventory.ports.importing import ImportReads, ImportStore
from markethall.inventory.ports.search import (
    FacetCount,
    ProductListReads,
    ProductPageJson,
    ProductPageRequest,
    SearchHits,
    SearchIndex,
    build_facets,
)
from markethall.inventory.ports.stock import (
    AllocationStrategy,
    Availability,
    ExpiredReservations,
    SingleStatementReserve,
    StockReads,
    StockStore,
)
from markethall.inventory.ports.warehouses import WarehouseReads, WarehouseStore
from markethall.shared.call import CallContext
from markethall.shared.events import Delivery, Event
from markethall.shared.idempotency import IdempotentCommand


class ReadStore(
    ProductReads,
    ProductListReads,
    StockReads,
    SingleStatementReserve,
    ImportReads,
    WarehouseReads,
    CategoryReads,
    Protocol,
):
    """Reads. Each is one statement that takes no lock."""


class Store(
    ReadStore, ProductStore, StockStore, ImportStore, WarehouseStore, CategoryStore, Protocol
):
    """Reads and writes of one transaction."""

    async def publish(self, event: Event, ctx: CallContext) -> None: ...

    async def mark_processed(self, delivery: Delivery) -> bool: ...

    async def store_response(self, attempt: IdempotentCommand, result: Any) -> None: ...


class Database(Protocol):
    after_publish: Callable[[], None]

    def transaction(self) -> AbstractAsyncContextManager[Store]:
        """Commits when the block ends, rolls back when it raises."""

    def read_session(self) -> AbstractAsyncContextManager[ReadStore]:
        """Takes no locks."""


__all__ = [
    "AllocationStrategy",
    "SingleStatementReserve",
    "ByteCache",
    "ProductJson",
    "ProductPageJson",
    "FacetCount",
    "Database",
    "WarehouseStore",
    "WarehouseReads",
    "ExpiredReservations",
    "FamilySummary",
    "SearchHits",
    "ImportReads",
    "ImportStore",
    "ProductPageRequest",
    "ProductListReads",
    "ProductCache",
    "ProductStore",
    "ProductReads",
    "SearchIndex",
    "ReadStore",
    "StockStore",
    "StockReads",
    "Store",
    "Availability",
    "CategoryReads",
    "CategoryStore",
    "build_facets",
]
