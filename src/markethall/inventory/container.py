from collections.abc import Sequence
from functools import partial
from ipaddress import ip_network

from dependency_injector import providers

from markethall.inventory.catalogue.contract.categories import Categories
from markethall.inventory.catalogue.contract.families import Families
from markethall.inventory.catalogue.contract.products import Catalogue
from markethall.inventory.catalogue.ports import ProductCache
from markethall.inventory.catalogue.service.api import CatalogueService
from markethall.inventory.catalogue.service.categories import CategoryService
from markethall.inventory.catalogue.service.families import FamilyService
from markethall.inventory.catalogue.service.response_cache import ProductResponseCache
from markethall.inventory.contract import Inventory
from markethall.inventory.imports.contract import Imports
from markethall.inventory.imports.service.api import ImportService
from markethall.inventory.imports.service.jobs import ImportWorker, ReadModels
from markethall.inventory.imports.service.row_images import MAX_IMAGE_REDIRECTS, RowImages
from markethall.inventory.media.contract import MediaLibrary
from markethall.inventory.media.gateway.directory_storage import DirectoryStorage
from markethall.inventory.media.gateway.image_processor import SubprocessImageProcessor
from markethall.inventory.media.gateway.s3_storage import S3Storage
from markethall.inventory.media.memory import MemoryMediaStorage
from markethall.inventory.media.ports import ImageProcessor, MediaStorage, StorageMisconfigured
from markethall.inventory.media.service import MediaGarbageJob, MediaService
from markethall.inventory.memory import InventoryTables, MemoryIntegrityReads, MemoryInventoryStore
from markethall.inventory.reservations.contract import Reservations
from markethall.inventory.reservations.domain.allocation import FewestParcels
from markethall.inventory.reservations.domain.reservations import CustomerLimits
from markethall.inventory.reservations.ports import AllocationStrategy, IntegrityReads
from markethall.inventory.reservations.service.allocation_retry import AllocationRunner
from markethall.inventory.reservations.service.api import ReservationService
from markethall.inventory.reservations.service.integrity import InventoryIntegrity
from markethall.inventory.reservations.service.internal import InventoryService
from markethall.inventory.reservations.service.jobs import ReservationExpiryJob
from markethall.inventory.search.contract import FamilySearch
from markethall.inventory.search.ports import SearchIndex
from markethall.inventory.search.service import FamilyListQueries, NoSearchIndex, ProductListQueries
from markethall.inventory.settings import InventorySettings
from markethall.inventory.sql import (
    STATEMENTS,
    SqlIntegrityReads,
    SqlInventoryStore,
    TrigramSupport,
)
from markethall.inventory.stock.contract import Stockroom, Warehouses
from markethall.inventory.stock.service.api import StockroomService
from markethall.inventory.stock.service.warehouses import WarehouseService
from markethall.shared.cache import open_cache
from markethall.shared.composition.container import (
    ContextContainer,
    ContextTools,
    LifecycleHook,
    build_idempotency,
)
from markethall.shared.composition.context_persistence import ContextPersistence, database_of
from markethall.shared.composition.memory import (
    MemoryDatabase,
    MemorySnapshots,
    build_memory_persistence,
)
from markethall.shared.composition.providers import by_storage, singleton
from markethall.shared.composition.settings import SettingsError
from markethall.shared.composition.sql import SqlDatabase, SqlSnapshots, build_sql_persistence
from markethall.shared.kernel.clock import Clock
from markethall.shared.outbound.client import GuardedHttpClient
from markethall.shared.outbound.port import OutboundHttp, OutboundLimits
from markethall.shared.persistence.database import SnapshotDatabase
from markethall.shared.persistence.postgres import Postgres

InventoryDatabase = (
    MemoryDatabase[InventoryTables, MemoryInventoryStore] | SqlDatabase[SqlInventoryStore]
)


def _memory_persistence(
    clock: Clock,
) -> ContextPersistence[MemoryDatabase[InventoryTables, MemoryInventoryStore]]:
    return build_memory_persistence(InventoryTables(), MemoryInventoryStore, clock)


def _sql_persistence(
    postgres: Postgres, clock: Clock
) -> ContextPersistence[SqlDatabase[SqlInventoryStore]]:
    store = partial(SqlInventoryStore, trigrams=TrigramSupport())
    return build_sql_persistence(postgres, STATEMENTS, store, clock)


def _memory_snapshots(
    persistence: ContextPersistence[MemoryDatabase[InventoryTables, MemoryInventoryStore]],
) -> SnapshotDatabase[IntegrityReads]:
    return MemorySnapshots(persistence.database, MemoryIntegrityReads)


def _customer_limits(settings: InventorySettings) -> CustomerLimits:
    return CustomerLimits(
        settings.max_unpaid_orders_per_customer, settings.max_reserved_units_per_customer
    )


def _file_storage(settings: InventorySettings, tools: ContextTools) -> MediaStorage:
    if settings.media_storage == "s3":
        return S3Storage(settings.media_bucket)
    directory = settings.media_directory or tools.data_directory / "media"
    return DirectoryStorage(directory.expanduser())


def _row_images(
    settings: InventorySettings, image_sources: OutboundHttp, media: MediaLibrary
) -> RowImages:
    limits = OutboundLimits(
        max_bytes=settings.max_media_bytes,
        max_redirects=MAX_IMAGE_REDIRECTS,
        schemes=frozenset({"https", "http"}),
    )
    return RowImages(image_sources, media, limits)


def _on_start(media_storage: MediaStorage) -> Sequence[LifecycleHook]:
    async def open_media_storage() -> None:
        try:
            await media_storage.open()
        except StorageMisconfigured as error:
            raise SettingsError([str(error)]) from None

    return [open_media_storage]


class InventoryContainer(ContextContainer):
    settings: providers.Dependency[InventorySettings] = providers.Dependency(
        instance_of=InventorySettings
    )
    tools, clock, cursors = ContextContainer.tools, ContextContainer.clock, ContextContainer.cursors

    memory_persistence = singleton(_memory_persistence, clock)
    sql_persistence = singleton(_sql_persistence, ContextContainer.postgres, clock)
    persistence = by_storage(settings, memory=memory_persistence, sql=sql_persistence)
    database: providers.Selector[InventoryDatabase] = by_storage(
        settings,
        memory=singleton(database_of, memory_persistence),
        sql=singleton(database_of, sql_persistence),
    )
    idempotency = singleton(build_idempotency, persistence, settings, clock)

    cache = singleton(
        lambda tools: open_cache(tools.cache_mode, tools.redis, tools.postgres), tools
    )
    product_cache: providers.Singleton[ProductCache] = singleton(ProductResponseCache, cache)
    # By default there is no search engine. Override this provider to use one: it receives all
    # changed products, and product lists with the parameter `q` are read from it.
    search_index: providers.Singleton[SearchIndex] = singleton(NoSearchIndex)

    catalogue_language: providers.Singleton[str] = singleton(
        lambda settings: settings.catalogue_language, settings
    )

    reservation_expiry = singleton(ReservationExpiryJob, database, product_cache, clock)
    allocation_strategy: providers.Singleton[AllocationStrategy] = singleton(FewestParcels)
    allocation_runner = singleton(
        AllocationRunner, database, reservation_expiry, allocation_strategy, clock
    )
    customer_limits = singleton(_customer_limits, settings)
    inventory: providers.Singleton[Inventory] = singleton(
        InventoryService, database, product_cache, allocation_runner, customer_limits, clock
    )
    reservations: providers.Singleton[Reservations] = singleton(
        ReservationService, database, cursors, clock
    )

    product_search = singleton(
        ProductListQueries, database, product_cache, search_index, cursors, clock
    )
    family_search: providers.Singleton[FamilySearch] = singleton(
        FamilyListQueries, database, product_cache, cursors, clock
    )
    catalogue: providers.Singleton[Catalogue] = singleton(
        CatalogueService, database, product_cache, search_index, clock
    )
    families: providers.Singleton[Families] = singleton(
        FamilyService, database, product_cache, search_index, clock
    )
    categories: providers.Singleton[Categories] = singleton(
        CategoryService, database, product_cache, cursors
    )

    stockroom: providers.Singleton[Stockroom] = singleton(
        StockroomService, database, product_cache, reservation_expiry, cursors, clock
    )
    warehouses: providers.Singleton[Warehouses] = singleton(WarehouseService, database, cursors)

    media_storage: providers.Selector[MediaStorage] = by_storage(
        settings,
        memory=singleton(MemoryMediaStorage, clock),
        sql=singleton(_file_storage, settings, tools),
    )
    image_processor: providers.Singleton[ImageProcessor] = singleton(
        lambda settings: SubprocessImageProcessor(settings.media_max_pixels), settings
    )
    media: providers.Singleton[MediaLibrary] = singleton(
        MediaService, database, media_storage, image_processor, cursors, clock
    )
    media_garbage = singleton(MediaGarbageJob, database, media_storage, clock)

    image_sources: providers.Singleton[OutboundHttp] = singleton(
        lambda settings: GuardedHttpClient(list(map(ip_network, settings.import_image_networks))),
        settings,
    )
    row_images = singleton(_row_images, settings, image_sources, media)
    read_models = singleton(ReadModels, product_cache, search_index)
    import_worker = singleton(
        ImportWorker, database, read_models, reservation_expiry, row_images, clock
    )
    imports: providers.Singleton[Imports] = singleton(
        lambda database, worker, cursors, clock: ImportService(
            database, worker.notify, cursors, clock
        ),
        database,
        import_worker,
        cursors,
        clock,
    )

    periodic_jobs = singleton(
        lambda expiry, worker: [expiry.run_once, worker.run_once], reservation_expiry, import_worker
    )
    long_running_tasks = singleton(
        lambda worker, garbage: [worker, garbage], import_worker, media_garbage
    )
    background_tasks = singleton(lambda cache: [cache.listen], cache)
    counters = singleton(lambda catalogue: {"product_count": catalogue.count}, catalogue)
    snapshots: providers.Selector[SnapshotDatabase[IntegrityReads]] = by_storage(
        settings,
        memory=singleton(_memory_snapshots, memory_persistence),
        sql=singleton(
            lambda postgres: SqlSnapshots(postgres, SqlIntegrityReads), ContextContainer.postgres
        ),
    )
    integrity = singleton(InventoryIntegrity, snapshots, reservation_expiry, clock)
    integrity_checks = singleton(lambda integrity: integrity.list_checks(), integrity)
    on_start = singleton(_on_start, media_storage)
    on_close = singleton(
        lambda *parts: [part.close for part in parts], cache, media_storage, image_processor
    )
