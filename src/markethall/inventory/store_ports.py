"""What inventory needs from the outside."""

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from markethall.inventory.catalogue.ports.categories import CategoryReads, CategoryStore
from markethall.inventory.catalogue.ports.products import (
    ByteCache,
    FamilySummary,
    ProductCache,
    ProductJson,
    ProductReads,
    ProductStore,
)
from markethall.inventory.imports.ports import ImportReads, ImportStore
from markethall.inventory.reservations.ports import (
    AllocationStrategy,
    Availability,
    ExpiredReservations,
    SingleStatementReserve,
    StockReads,
    StockStore,
)
from markethall.inventory.search.ports import (
    FacetCount,
    ProductListReads,
    ProductPageJson,
    ProductPageRequest,
    SearchHits,
    SearchIndex,
    build_facets,
)
from markethall.inventory.stock.ports import WarehouseReads, WarehouseStore
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.messaging.events import Delivery, Event


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
    def transaction(self) -> AbstractAsyncContextManager[Store]:
        """Commits when the block ends, rolls back when it raises."""

    def read_session(self) -> AbstractAsyncContextManager[ReadStore]:
        """Takes no locks."""


__all__ = [
    "AllocationStrategy",
    "Availability",
    "ByteCache",
    "CategoryReads",
    "CategoryStore",
    "Database",
    "ExpiredReservations",
    "FacetCount",
    "FamilySummary",
    "ImportReads",
    "ImportStore",
    "ProductCache",
    "ProductJson",
    "ProductListReads",
    "ProductPageJson",
    "ProductPageRequest",
    "ProductReads",
    "ProductStore",
    "ReadStore",
    "SearchHits",
    "SearchIndex",
    "SingleStatementReserve",
    "StockReads",
    "StockStore",
    "Store",
    "WarehouseReads",
    "WarehouseStore",
    "build_facets",
]
