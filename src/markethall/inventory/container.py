"""The implementations of inventory."""

from functools import cached_property, partial

from markethall.inventory.catalogue.contract.categories import Categories
from markethall.inventory.catalogue.contract.products import Catalogue
from markethall.inventory.catalogue.ports import ProductCache
from markethall.inventory.catalogue.service.api import CatalogueService
from markethall.inventory.catalogue.service.categories import CategoryService
from markethall.inventory.catalogue.service.families import FamilyQueries
from markethall.inventory.catalogue.service.response_cache import ProductResponseCache
from markethall.inventory.contract import Inventory
from markethall.inventory.imports.contract import Imports
from markethall.inventory.imports.service.api import ImportService
from markethall.inventory.imports.service.jobs import ImportWorker
from markethall.inventory.memory import InventoryTables, MemoryInventoryStore
from markethall.inventory.reservations.contract import Reservations
from markethall.inventory.reservations.domain.allocation import FewestParcels
from markethall.inventory.reservations.domain.reservations import CustomerLimits
from markethall.inventory.reservations.ports import AllocationStrategy
from markethall.inventory.reservations.service.allocation_retry import AllocationRunner
from markethall.inventory.reservations.service.api import ReservationService
from markethall.inventory.reservations.service.internal import InventoryService
from markethall.inventory.reservations.service.jobs import ReservationExpiryJob
from markethall.inventory.search.ports import SearchIndex
from markethall.inventory.search.service import NoSearchIndex, ProductListQueries
from markethall.inventory.settings import InventorySettings
from markethall.inventory.sql import STATEMENTS, SqlInventoryStore, TrigramSupport
from markethall.inventory.stock.contract import Stockroom, Warehouses
from markethall.inventory.stock.service.api import StockroomService
from markethall.inventory.stock.service.warehouses import WarehouseService
from markethall.shared.cache import CoherentCache, open_cache
from markethall.shared.composition.container import BackgroundTask, ContextContainer, Counter
from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.composition.sql import SqlDatabase, build_sql_persistence
from markethall.shared.messaging.context_worker import LongRunningTask, PeriodicJob
from markethall.shared.persistence.postgres import Postgres

InventoryDatabase = (
    MemoryDatabase[InventoryTables, MemoryInventoryStore] | SqlDatabase[SqlInventoryStore]
)


class InventoryContainer(ContextContainer[InventorySettings]):
    def build_memory_persistence(
        self,
    ) -> ContextPersistence[MemoryDatabase[InventoryTables, MemoryInventoryStore]]:
        return build_memory_persistence(InventoryTables(), MemoryInventoryStore, self.clock)

    def build_sql_persistence(
        self, postgres: Postgres
    ) -> ContextPersistence[SqlDatabase[SqlInventoryStore]]:
        store = partial(SqlInventoryStore, trigrams=TrigramSupport())
        return build_sql_persistence(postgres, STATEMENTS, store, self.clock)

    @cached_property
    def database(self) -> InventoryDatabase:
        database: InventoryDatabase = self.persistence.database
        return database

    @cached_property
    def cache(self) -> CoherentCache:
        return open_cache(self.tools.cache_mode, self.tools.redis, self.tools.postgres)

    @cached_property
    def product_cache(self) -> ProductCache:
        return ProductResponseCache(self.cache)

    @cached_property
    def reservation_expiry(self) -> ReservationExpiryJob:
        return ReservationExpiryJob(self.database, self.product_cache, self.clock)

    @cached_property
    def allocation_runner(self) -> AllocationRunner:
        strategy: AllocationStrategy = FewestParcels()
        return AllocationRunner(self.database, self.reservation_expiry, strategy, self.clock)

    @cached_property
    def inventory(self) -> Inventory:
        limits = CustomerLimits(
            self.settings.max_unpaid_orders_per_customer,
            self.settings.max_reserved_units_per_customer,
        )
        return InventoryService(
            self.database, self.product_cache, self.allocation_runner, limits, self.clock
        )

    @cached_property
    def search_index(self) -> SearchIndex:
        """Return the index that receives changed products. Replace it to use a search engine."""
        return NoSearchIndex()

    @cached_property
    def product_search(self) -> ProductListQueries:
        return ProductListQueries(
            self.database, self.product_cache, self.search_index, self.cursors, self.clock
        )

    @cached_property
    def family_queries(self) -> FamilyQueries:
        return FamilyQueries(self.database, self.product_cache, self.product_search, self.clock)

    @cached_property
    def catalogue(self) -> Catalogue:
        return CatalogueService(
            self.database, self.product_cache, self.search_index, self.family_queries, self.clock
        )

    @cached_property
    def categories(self) -> Categories:
        return CategoryService(self.database, self.product_cache, self.cursors)

    @cached_property
    def stockroom(self) -> Stockroom:
        return StockroomService(
            self.database, self.product_cache, self.reservation_expiry, self.cursors, self.clock
        )

    @cached_property
    def import_worker(self) -> ImportWorker:
        return ImportWorker(
            self.database,
            self.product_cache,
            self.reservation_expiry,
            self.search_index,
            self.clock,
        )

    @cached_property
    def imports(self) -> Imports:
        return ImportService(self.database, self.import_worker.notify, self.cursors, self.clock)

    @cached_property
    def reservations(self) -> Reservations:
        return ReservationService(self.database, self.cursors, self.clock)

    @cached_property
    def warehouses(self) -> Warehouses:
        return WarehouseService(self.database, self.cursors)

    @property
    def periodic_jobs(self) -> list[PeriodicJob]:
        return [self.reservation_expiry.run_once, self.import_worker.run_once]

    @property
    def long_running_tasks(self) -> list[LongRunningTask]:
        return [self.import_worker]

    @property
    def background_tasks(self) -> list[BackgroundTask]:
        return [self.cache.listen]

    @property
    def counters(self) -> dict[str, Counter]:
        return {"product_count": self.catalogue.count}

    async def close(self) -> None:
        await self.cache.close()
