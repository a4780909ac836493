"""What inventory needs from the outside."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from markethall.inventory.ports.catalogue import (
    Bytes,
    Card,
    FamilyFacts,
    ProductCache,
    Products,
    ProductStore,
)
from markethall.inventory.ports.categories import Tree, TreeStore
from markethall.inventory.ports.importing import ImportReads, ImportStore
from markethall.inventory.ports.search import (
    Cards,
    Count,
    Found,
    Listing,
    Lists,
    SearchIndex,
    spread,
)
from markethall.inventory.ports.stock import Allocation, AtOnce, Expired, Stocks, StockStore, Supply
from markethall.inventory.ports.warehouses import Depots, DepotStore
from markethall.shared.call import Call
from markethall.shared.events import Delivery, Event
from markethall.shared.idempotency import Attempt


class Shelf(Products, Lists, Stocks, AtOnce, ImportReads, Depots, Tree, Protocol):
    """Reads. Each is one statement that takes no lock."""


class Store(Shelf, ProductStore, StockStore, ImportStore, DepotStore, TreeStore, Protocol):
    """Reads and writes of one transaction."""

    async def publish(self, event: Event, call: Call) -> None: ...

    async def handled(self, delivery: Delivery) -> bool: ...

    async def finish(self, attempt: Attempt, result: Any) -> None: ...


class Database(Protocol):
    on_publish: Callable[[], None]

    def transaction(self) -> AbstractAsyncContextManager[Store]:
        """Commits when the block ends, rolls back when it raises."""

    def reading(self) -> AbstractAsyncContextManager[Shelf]:
        """Takes no locks."""


__all__ = [
    "Allocation",
    "AtOnce",
    "Bytes",
    "Card",
    "Cards",
    "Count",
    "Database",
    "DepotStore",
    "Depots",
    "Expired",
    "FamilyFacts",
    "Found",
    "ImportReads",
    "ImportStore",
    "Listing",
    "Lists",
    "ProductCache",
    "ProductStore",
    "Products",
    "SearchIndex",
    "Shelf",
    "StockStore",
    "Stocks",
    "Store",
    "Supply",
    "Tree",
    "TreeStore",
    "spread",
]
