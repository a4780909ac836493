"""The wiring of orders: from the settings to the implementations."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from dependency_injector import providers

from markethall.inventory.contract import Inventory
from markethall.orders.carts.contract import CartCheckouts, CartMerges, Carts
from markethall.orders.carts.service.api import CartService
from markethall.orders.carts.service.editor import CartEditor, CartPolicy
from markethall.orders.carts.service.jobs import ExpiredCartsJob
from markethall.orders.carts.service.merges import CartMergeService
from markethall.orders.carts.service.previews import CartPreviews
from markethall.orders.configuration.service import ConfigurationCache, ItemService
from markethall.orders.contract import (
    Fulfilments,
    OrderChanges,
    OrderEdits,
    OrderExport,
    OrderLookups,
    Orders,
    OrderStatusStreams,
)
from markethall.orders.drafts.contract import DraftOrders
from markethall.orders.invoices.contract import Invoices
from markethall.orders.memory import MemoryOrderIntegrityReads, MemoryOrderStore, Tables
from markethall.orders.ports import LookupLimiter, OrderIntegrityReads, ReadStore, Store
from markethall.orders.pricing.service import Pricing
from markethall.orders.promotions.contract import Promotions
from markethall.orders.promotions.service import PromotionFinder, PromotionService
from markethall.orders.returns.contract import Returns
from markethall.orders.service.api import OrderService
from markethall.orders.service.cart_checkouts import CartCheckoutService
from markethall.orders.service.checkout import Checkout, ContextClients, ReservationPolicy
from markethall.orders.service.draft_orders import DraftOrderService, DraftPlacer
from markethall.orders.service.event_handlers import DelegatedEvents, OrderEventHandlers
from markethall.orders.service.export_orders import OrderExporter
from markethall.orders.service.fulfilments import FulfilmentService
from markethall.orders.service.guest_orders import GuestOrders
from markethall.orders.service.handled_orders import HandledOrders
from markethall.orders.service.integrity import OrderIntegrity
from markethall.orders.service.invoices import InvoiceDrafts, InvoiceService
from markethall.orders.service.jobs import OverdueEditsJob, PendingOrdersJob
from markethall.orders.service.open_edits import OpenEdits
from markethall.orders.service.order_changes import OrderChangeService
from markethall.orders.service.order_edits import OrderEditService
from markethall.orders.service.order_events import ORDER_COUNTERS
from markethall.orders.service.order_lookups import OrderLinks, OrderLookupService
from markethall.orders.service.payment_changes import PaymentDeadlines
from markethall.orders.service.returns import ReturnService
from markethall.orders.service.settlements import ReturnSettlements
from markethall.orders.service.status_streams import StatusStreams, StreamLimits
from markethall.orders.service.status_waits import ChangeReportingDatabase, StatusWaits
from markethall.orders.settings import (
    SHIPPING_CALCULATORS,
    TAX_CALCULATORS,
    OrdersSettings,
    build_calculator,
)
from markethall.orders.shipping.contract import ShippingMethods
from markethall.orders.shipping.service import SHIPPING_METHODS
from markethall.orders.shop.contract import Shop
from markethall.orders.shop.service import ShopService
from markethall.orders.sql import STATEMENTS, SqlOrderIntegrityReads, SqlOrderStore
from markethall.orders.tax.contract import TaxRates
from markethall.orders.tax.service import TAX_RATES
from markethall.payments.contract import Payments
from markethall.shared.cache import CoherentCache, InvalidationBus, InvalidationListeners, open_bus
from markethall.shared.composition.container import (
    BackgroundTask,
    ContextContainer,
    ContextTools,
    build_idempotency,
)
from markethall.shared.composition.context_persistence import database_of
from markethall.shared.composition.memory import MemorySnapshots, build_memory_persistence
from markethall.shared.composition.providers import by_storage, singleton
from markethall.shared.composition.sql import SqlSnapshots, build_sql_persistence
from markethall.shared.http.identity_limiter import IdentityLimiter
from markethall.shared.http.rate_limits import RateLimit
from markethall.shared.persistence.database import Database, SnapshotDatabase
from markethall.users.contract import Users

LOOKUPS_PER_EMAIL: Final = RateLimit("order-lookups-per-email", quota=5, window_seconds=3600)


def _bus(tools: ContextTools) -> InvalidationBus | None:
    # with storage in memory there is only one process, so there is no bus
    return open_bus(tools.redis, tools.postgres) if tools.postgres else None


def _stream_limits(settings: OrdersSettings) -> StreamLimits:
    return StreamLimits(
        heartbeat_seconds=settings.order_stream_heartbeat_seconds,
        max_seconds=settings.order_stream_max_seconds,
        max_streams=settings.max_order_streams,
        max_streams_per_client=settings.max_order_streams_per_client,
    )


def _background_tasks(
    status_waits: StatusWaits, cache: CoherentCache, bus: InvalidationBus | None
) -> Sequence[BackgroundTask]:
    listeners = InvalidationListeners(status_waits, cache)
    return [status_waits.run, *([lambda: bus.listen(listeners)] if bus else [])]


def _reservation_policy(settings: OrdersSettings) -> ReservationPolicy:
    return ReservationPolicy(
        timedelta(seconds=settings.reservation_ttl_seconds),
        timedelta(hours=settings.edit_payment_hours),
    )


def _lookup_limiter(settings: OrdersSettings, tools: ContextTools) -> LookupLimiter:
    return IdentityLimiter(LOOKUPS_PER_EMAIL, settings.rate_limits, tools.redis, tools.secret_key)


def _order_links(
    settings: OrdersSettings, users: Users, database: Database[ReadStore, Store]
) -> OrderLinks:
    is_development = settings.environment == "development"
    return OrderLinks(users, database, settings.order_link_url if is_development else None)


def _cart_policy(settings: OrdersSettings) -> CartPolicy:
    return CartPolicy(
        settings.max_open_carts_per_owner,
        timedelta(days=settings.guest_cart_retention_days),
        timedelta(days=settings.customer_cart_retention_days),
    )


class OrdersContainer(ContextContainer):
    settings: providers.Dependency[OrdersSettings] = providers.Dependency(
        instance_of=OrdersSettings
    )
    users: providers.Dependency[Users] = providers.Dependency()
    inventory: providers.Dependency[Inventory] = providers.Dependency()
    payments: providers.Dependency[Payments] = providers.Dependency()
    tools, clock, cursors = ContextContainer.tools, ContextContainer.clock, ContextContainer.cursors

    memory_persistence = singleton(
        lambda clock: build_memory_persistence(Tables(), MemoryOrderStore, clock, ORDER_COUNTERS),
        clock,
    )
    sql_persistence = singleton(
        lambda postgres, clock: build_sql_persistence(
            postgres, STATEMENTS, SqlOrderStore, clock, ORDER_COUNTERS
        ),
        ContextContainer.postgres,
        clock,
    )
    persistence = by_storage(settings, memory=memory_persistence, sql=sql_persistence)
    stored_database: providers.Selector[Database[ReadStore, Store]] = by_storage(
        settings,
        memory=singleton(database_of, memory_persistence),
        sql=singleton(database_of, sql_persistence),
    )
    bus = singleton(_bus, tools)
    status_waits = singleton(
        lambda database, bus: StatusWaits(database, bus.publish if bus else lambda _: None),
        stored_database,
        bus,
    )
    database = singleton(ChangeReportingDatabase, stored_database, status_waits)
    idempotency = singleton(build_idempotency, persistence, settings, clock)

    # always in use, also without the setting `cache`, because every order reads the configuration
    byte_cache = singleton(CoherentCache, bus)
    configuration = singleton(ConfigurationCache, stored_database, byte_cache)
    shop: providers.Singleton[Shop] = singleton(ShopService, stored_database, configuration, clock)
    shipping_methods: providers.Singleton[ShippingMethods] = singleton(
        ItemService,
        providers.Object(SHIPPING_METHODS),
        stored_database,
        configuration,
        cursors,
        clock,
    )
    tax_rates: providers.Singleton[TaxRates] = singleton(
        ItemService, providers.Object(TAX_RATES), stored_database, configuration, cursors, clock
    )

    promotions: providers.Singleton[Promotions] = singleton(
        PromotionService, stored_database, configuration, cursors, clock
    )
    promotion_finder = singleton(PromotionFinder, stored_database, clock)

    clients = singleton(ContextClients, users, inventory, payments)
    reservation_policy = singleton(_reservation_policy, settings)
    pricing = singleton(
        Pricing,
        configuration,
        promotion_finder,
        singleton(
            lambda settings: build_calculator(SHIPPING_CALCULATORS, settings.shipping_calculator),
            settings,
        ),
        singleton(
            lambda settings: build_calculator(TAX_CALCULATORS, settings.tax_calculator), settings
        ),
    )
    checkout = singleton(Checkout, clients, database, pricing, reservation_policy, clock)
    fulfilments: providers.Singleton[Fulfilments] = singleton(
        FulfilmentService, inventory, database, cursors, clock
    )
    orders: providers.Singleton[Orders] = singleton(
        OrderService, checkout, database, cursors, clock
    )
    order_changes: providers.Singleton[OrderChanges] = singleton(
        OrderChangeService, inventory, pricing, database, clock
    )
    invoice_drafts = singleton(InvoiceDrafts, configuration)
    invoices: providers.Singleton[Invoices] = singleton(InvoiceService, stored_database)
    order_export: providers.Singleton[OrderExport] = singleton(OrderExporter, stored_database)
    status_streams: providers.Singleton[OrderStatusStreams] = singleton(
        StatusStreams, stored_database, status_waits, singleton(_stream_limits, settings)
    )
    order_edits: providers.Singleton[OrderEdits] = singleton(
        OrderEditService, clients, pricing, database, reservation_policy, clock
    )
    returns: providers.Singleton[Returns] = singleton(ReturnService, database, cursors, clock)
    handled_orders = singleton(HandledOrders, database, invoice_drafts, clock)
    delegated_events = singleton(
        DelegatedEvents,
        singleton(GuestOrders, database, clock),
        singleton(ReturnSettlements, clients, database, clock),
        singleton(_order_links, settings, users, stored_database),
        singleton(OpenEdits, clients, database, reservation_policy, handled_orders),
    )
    event_handlers: providers.Singleton[OrderEventHandlers] = singleton(
        OrderEventHandlers, clients, handled_orders, reservation_policy, delegated_events, clock
    )
    order_lookups: providers.Singleton[OrderLookups] = singleton(
        OrderLookupService, stored_database, singleton(_lookup_limiter, settings, tools)
    )
    pending_orders_job = singleton(
        PendingOrdersJob,
        payments,
        singleton(PaymentDeadlines, clients, reservation_policy),
        database,
        invoice_drafts,
        clock,
    )

    cart_policy = singleton(_cart_policy, settings)
    verify_access_token = singleton(lambda tools: tools.verify_access_token, tools)
    cart_editor = singleton(CartEditor, stored_database, cart_policy)
    cart_previews = singleton(CartPreviews, inventory, pricing)
    draft_orders: providers.Singleton[DraftOrders] = singleton(
        DraftOrderService,
        singleton(DraftPlacer, checkout, users),
        cart_previews,
        stored_database,
        cursors,
        clock,
    )
    carts: providers.Singleton[Carts] = singleton(
        CartService, cart_editor, cart_previews, cursors, clock
    )
    cart_merges: providers.Singleton[CartMerges] = singleton(
        CartMergeService, cart_editor, cart_previews, verify_access_token, stored_database, clock
    )
    cart_checkouts: providers.Singleton[CartCheckouts] = singleton(
        CartCheckoutService, checkout, stored_database
    )
    expired_carts_job = singleton(ExpiredCartsJob, stored_database, cart_policy, clock)

    overdue_edits_job = singleton(OverdueEditsJob, payments, database, clock)
    periodic_jobs = singleton(
        lambda *jobs: [job.run_once for job in jobs],
        pending_orders_job,
        overdue_edits_job,
        expired_carts_job,
    )
    background_tasks = singleton(_background_tasks, status_waits, byte_cache, bus)
    on_drain = singleton(lambda status_waits: [status_waits.end], status_waits)
    # also publishes the pending invalidations of the bus
    on_close = singleton(lambda cache: [cache.close], byte_cache)
    counters = singleton(lambda orders: {"order_count": orders.count}, orders)
    snapshots: providers.Selector[SnapshotDatabase[OrderIntegrityReads]] = by_storage(
        settings,
        memory=singleton(
            lambda persistence: MemorySnapshots(persistence.database, MemoryOrderIntegrityReads),
            memory_persistence,
        ),
        sql=singleton(
            lambda postgres: SqlSnapshots(postgres, SqlOrderIntegrityReads),
            ContextContainer.postgres,
        ),
    )
    integrity = singleton(OrderIntegrity, clients, snapshots, clock)
    integrity_checks = singleton(OrderIntegrity.list_checks, integrity)
