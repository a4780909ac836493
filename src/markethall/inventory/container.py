"""Which implementation stands behind each promise of inventory."""

from datetime import timedelta
from functools import partial
from typing import Any

from dependency_injector import containers, providers

from markethall.inventory.contract import (
    Catalogue,
    Categories,
    Imports,
    Inventory,
    Stockroom,
    Warehouses,
)
from markethall.inventory.domain import FewestParcels, Limits
from markethall.inventory.memory import MemoryStore, Tables
from markethall.inventory.ports import Allocation, Bytes, Database, ProductCache, SearchIndex
from markethall.inventory.remote import RemoteInventory
from markethall.inventory.service import (
    CachedProducts,
    CatalogueService,
    CategoryService,
    ExpiredHolds,
    FamilyPages,
    Importer,
    ImportService,
    InventoryService,
    NoSearchIndex,
    Plans,
    ProductLists,
    StockroomService,
    WarehouseService,
)
from markethall.inventory.sql import STATEMENTS, SqlStore, Trigrams
from markethall.shared.backend import Backend
from markethall.shared.clock import Clock
from markethall.shared.db import Postgres
from markethall.shared.idempotency import Keys
from markethall.shared.memory import MemoryDatabase, memory_backend
from markethall.shared.pages import Cursors
from markethall.shared.sql import SqlDatabase, sql_backend
from markethall.shared.steward import Sweep, Worker
from markethall.shared.wire import Wire


def _in_memory(clock: Clock) -> Backend[MemoryDatabase[Tables, MemoryStore]]:
    return memory_backend(Tables(), MemoryStore, clock)


def _in_sql(postgres: Postgres, clock: Clock) -> Backend[SqlDatabase[SqlStore]]:
    store = partial(SqlStore, trigrams=Trigrams())
    return sql_backend(postgres, STATEMENTS, store, clock)


class InventoryContainer(containers.DeclarativeContainer):
    config = providers.Configuration(strict=True)
    postgres: providers.Dependency[Postgres] = providers.Dependency()
    clock: providers.Dependency[Clock] = providers.Dependency()
    cursors: providers.Dependency[Cursors] = providers.Dependency()
    cache: providers.Dependency[Bytes] = providers.Dependency()
    remote_wire: providers.Dependency[Wire] = providers.Dependency()

    backend: providers.Selector[Backend[Any]] = providers.Selector(
        config.storage,
        memory=providers.Singleton(_in_memory, clock),
        sql=providers.Singleton(_in_sql, postgres, clock),
    )
    database: providers.Callable[Database] = providers.Callable(
        lambda backend: backend.database, backend
    )
    cached: providers.Singleton[ProductCache] = providers.Singleton(CachedProducts, cache)
    expired: providers.Singleton[ExpiredHolds] = providers.Singleton(
        ExpiredHolds, database, cached, clock
    )

    allocation: providers.Singleton[Allocation] = providers.Singleton(FewestParcels)
    plans: providers.Singleton[Plans] = providers.Singleton(
        Plans, database, expired, allocation, clock
    )
    limits: providers.Factory[Limits] = providers.Factory(
        Limits, config.open_holds, config.held_units
    )

    here: providers.Singleton[Inventory] = providers.Singleton(
        InventoryService, database, cached, plans, limits, clock
    )
    elsewhere: providers.Singleton[Inventory] = providers.Singleton(RemoteInventory, remote_wire)
    inventory: providers.Selector[Inventory] = providers.Selector(
        config.where, local=here, remote=elsewhere
    )
    # an engine outside goes here
    index: providers.Singleton[SearchIndex] = providers.Singleton(NoSearchIndex)
    lists: providers.Singleton[ProductLists] = providers.Singleton(
        ProductLists, database, cached, index, cursors, clock
    )
    families: providers.Singleton[FamilyPages] = providers.Singleton(
        FamilyPages, database, cached, lists, clock
    )
    catalogue: providers.Singleton[Catalogue] = providers.Singleton(
        CatalogueService, database, cached, lists, families, clock
    )
    categories: providers.Singleton[Categories] = providers.Singleton(
        CategoryService, database, cached, cursors
    )
    stockroom: providers.Singleton[Stockroom] = providers.Singleton(
        StockroomService, database, cached, expired, cursors, clock
    )
    importer: providers.Singleton[Importer] = providers.Singleton(
        Importer, database, cached, expired, index, clock
    )
    imports: providers.Singleton[Imports] = providers.Singleton(
        ImportService, database, importer.provided.wake, cursors, clock
    )
    warehouses: providers.Singleton[Warehouses] = providers.Singleton(
        WarehouseService, database, cursors
    )
    keys: providers.Singleton[Keys] = providers.Singleton(
        Keys,
        backend.provided.claims,
        clock,
        providers.Factory(timedelta, seconds=config.idempotency_lease),
    )
    sweeps: providers.Provider[list[Sweep]] = providers.List(
        expired.provided.sweep, importer.provided.sweep
    )
    # what runs beside the sweeps, as long as this process leads
    workers: providers.Provider[list[Worker]] = providers.List(importer)
    handlers: providers.Provider[dict[str, Any]] = providers.Dict()
