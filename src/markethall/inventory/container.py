"""Wiring of the inventory context."""

from datetime import timedelta
from functools import partial
from typing import Any

from dependency_injector import containers, providers

from markethall.inventory.catalogue.contract.categories import Categories
from markethall.inventory.catalogue.contract.products import Catalogue
from markethall.inventory.catalogue.ports import ByteCache, ProductCache
from markethall.inventory.catalogue.service.api import CatalogueService
from markethall.inventory.catalogue.service.categories import CategoryService
from markethall.inventory.catalogue.service.families import FamilyQueries
from markethall.inventory.catalogue.service.response_cache import ProductResponseCache
from markethall.inventory.contract import Inventory
from markethall.inventory.imports.contract import Imports
from markethall.inventory.imports.service.api import ImportService
from markethall.inventory.imports.service.jobs import ImportWorker
from markethall.inventory.memory import InventoryTables, MemoryInventoryStore
from markethall.inventory.remote import RemoteInventory
from markethall.inventory.reservations.contract import Reservations
from markethall.inventory.reservations.domain.allocation import FewestParcels
from markethall.inventory.reservations.domain.reservations import CustomerLimits
from markethall.inventory.reservations.ports import AllocationStrategy
from markethall.inventory.reservations.service.allocation_retry import AllocationRunner
from markethall.inventory.reservations.service.api import ReservationService
from markethall.inventory.reservations.service.internal import InventoryService
from markethall.inventory.reservations.service.jobs import ReservationExpiryJob
from markethall.inventory.search.contract import ProductSearch
from markethall.inventory.search.ports import SearchIndex
from markethall.inventory.search.service import NoSearchIndex, ProductListQueries
from markethall.inventory.sql import STATEMENTS, SqlInventoryStore, TrigramSupport
from markethall.inventory.stock.contract import Stockroom, Warehouses
from markethall.inventory.stock.service.api import StockroomService
from markethall.inventory.stock.service.warehouses import WarehouseService
from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.composition.sql import SqlDatabase, build_sql_persistence
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.messaging.context_worker import LongRunningTask, PeriodicJob
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.rpc.client import RpcClient


def _memory_persistence(
    clock: Clock,
) -> ContextPersistence[MemoryDatabase[InventoryTables, MemoryInventoryStore]]:
    return build_memory_persistence(InventoryTables(), MemoryInventoryStore, clock)


def _sql_persistence(
    postgres: Postgres, clock: Clock
) -> ContextPersistence[SqlDatabase[SqlInventoryStore]]:
    store = partial(SqlInventoryStore, trigrams=TrigramSupport())
    return build_sql_persistence(postgres, STATEMENTS, store, clock)


InventoryDatabase = (
    MemoryDatabase[InventoryTables, MemoryInventoryStore] | SqlDatabase[SqlInventoryStore]
)


class InventoryContainer(containers.DeclarativeContainer):
    config = providers.Configuration(strict=True)
    postgres: providers.Dependency[Postgres] = providers.Dependency()
    clock: providers.Dependency[Clock] = providers.Dependency()
    cursors: providers.Dependency[Cursors] = providers.Dependency()
    cache: providers.Dependency[ByteCache] = providers.Dependency()
    rpc_client: providers.Dependency[RpcClient] = providers.Dependency()

    persistence: providers.Selector[ContextPersistence[Any]] = providers.Selector(
        config.storage,
        memory=providers.Singleton(_memory_persistence, clock),
        sql=providers.Singleton(_sql_persistence, postgres, clock),
    )
    database: providers.Callable[InventoryDatabase] = providers.Callable(
        lambda persistence: persistence.database, persistence
    )
    product_cache: providers.Singleton[ProductCache] = providers.Singleton(
        ProductResponseCache, cache
    )
    reservation_expiry: providers.Singleton[ReservationExpiryJob] = providers.Singleton(
        ReservationExpiryJob, database, product_cache, clock
    )

    allocation_strategy: providers.Singleton[AllocationStrategy] = providers.Singleton(
        FewestParcels
    )
    allocation_runner: providers.Singleton[AllocationRunner] = providers.Singleton(
        AllocationRunner, database, reservation_expiry, allocation_strategy, clock
    )
    customer_limits: providers.Factory[CustomerLimits] = providers.Factory(
        CustomerLimits,
        config.max_unpaid_orders_per_customer,
        config.max_reserved_units_per_customer,
    )

    local_inventory: providers.Singleton[Inventory] = providers.Singleton(
        InventoryService, database, product_cache, allocation_runner, customer_limits, clock
    )
    remote_inventory: providers.Singleton[Inventory] = providers.Singleton(
        RemoteInventory, rpc_client
    )
    inventory: providers.Selector[Inventory] = providers.Selector(
        config.mode, local=local_inventory, remote=remote_inventory
    )
    # replace it to use an external search engine
    search_index: providers.Singleton[SearchIndex] = providers.Singleton(NoSearchIndex)
    product_search: providers.Singleton[ProductSearch] = providers.Singleton(
        ProductListQueries, database, product_cache, search_index, cursors, clock
    )
    family_queries: providers.Singleton[FamilyQueries] = providers.Singleton(
        FamilyQueries, database, product_cache, product_search, clock
    )
    catalogue: providers.Singleton[Catalogue] = providers.Singleton(
        CatalogueService, database, product_cache, search_index, family_queries, clock
    )
    categories: providers.Singleton[Categories] = providers.Singleton(
        CategoryService, database, product_cache, cursors
    )
    stockroom: providers.Singleton[Stockroom] = providers.Singleton(
        StockroomService, database, product_cache, reservation_expiry, cursors, clock
    )
    import_worker: providers.Singleton[ImportWorker] = providers.Singleton(
        ImportWorker, database, product_cache, reservation_expiry, search_index, clock
    )
    imports: providers.Singleton[Imports] = providers.Singleton(
        ImportService, database, import_worker.provided.notify, cursors, clock
    )
    reservations: providers.Singleton[Reservations] = providers.Singleton(
        ReservationService, database, cursors, clock
    )
    warehouses: providers.Singleton[Warehouses] = providers.Singleton(
        WarehouseService, database, cursors
    )
    idempotency: providers.Singleton[IdempotencyService] = providers.Singleton(
        IdempotencyService,
        persistence.provided.idempotency_store,
        clock,
        providers.Factory(timedelta, seconds=config.idempotency_lease),
    )
    periodic_jobs: providers.Provider[list[PeriodicJob]] = providers.List(
        reservation_expiry.provided.run_once, import_worker.provided.run_once
    )
    # run as long as this process leads
    long_running_tasks: providers.Provider[list[LongRunningTask]] = providers.List(import_worker)
    handlers: providers.Provider[dict[str, Any]] = providers.Dict()
