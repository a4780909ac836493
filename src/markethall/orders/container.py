"""The container of orders: chooses the implementation of each port."""

from datetime import timedelta
from typing import Any

from dependency_injector import containers, providers

from markethall.inventory.contract import Inventory
from markethall.orders.contract import Orders
from markethall.orders.memory import MemoryOrderStore, Tables
from markethall.orders.ports import Database
from markethall.orders.service import (
    EVENT_HANDLERS,
    Checkout,
    ContextClients,
    OrderEventHandlers,
    OrderExpiryJob,
    OrderService,
    ReservationPolicy,
)
from markethall.orders.sql import STATEMENTS, SqlOrderStore
from markethall.payments.contract import Payments
from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.composition.sql import SqlDatabase, build_sql_persistence
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.messaging.context_worker import PeriodicJob
from markethall.shared.messaging.events import EventHandler
from markethall.shared.persistence.postgres import Postgres
from markethall.users.contract import Users


def _memory_persistence(
    clock: Clock,
) -> ContextPersistence[MemoryDatabase[Tables, MemoryOrderStore]]:
    return build_memory_persistence(Tables(), MemoryOrderStore, clock)


def _sql_persistence(
    postgres: Postgres, clock: Clock
) -> ContextPersistence[SqlDatabase[SqlOrderStore]]:
    return build_sql_persistence(postgres, STATEMENTS, SqlOrderStore, clock)


def _bind_handlers(listeners: OrderEventHandlers) -> dict[str, EventHandler]:
    """Map handler names to bound methods."""
    return {entry.handler: entry.method.__get__(listeners) for entry in EVENT_HANDLERS}


class OrdersContainer(containers.DeclarativeContainer):
    config = providers.Configuration(strict=True)
    postgres: providers.Dependency[Postgres] = providers.Dependency()
    clock: providers.Dependency[Clock] = providers.Dependency()
    cursors: providers.Dependency[Cursors] = providers.Dependency()
    users: providers.Dependency[Users] = providers.Dependency()
    inventory: providers.Dependency[Inventory] = providers.Dependency()
    payments: providers.Dependency[Payments] = providers.Dependency()

    persistence: providers.Selector[ContextPersistence[Any]] = providers.Selector(
        config.storage,
        memory=providers.Singleton(_memory_persistence, clock),
        sql=providers.Singleton(_sql_persistence, postgres, clock),
    )
    database: providers.Callable[Database] = providers.Callable(
        lambda persistence: persistence.database, persistence
    )
    reservation_policy: providers.Singleton[ReservationPolicy] = providers.Singleton(
        ReservationPolicy, providers.Factory(timedelta, seconds=config.reservation_ttl_seconds)
    )
    context_clients: providers.Singleton[ContextClients] = providers.Singleton(
        ContextClients, users, inventory, payments
    )
    checkout: providers.Singleton[Checkout] = providers.Singleton(
        Checkout, context_clients, database, reservation_policy, clock
    )
    orders: providers.Singleton[Orders] = providers.Singleton(
        OrderService, checkout, inventory, database, cursors, clock
    )
    idempotency: providers.Singleton[IdempotencyService] = providers.Singleton(
        IdempotencyService,
        persistence.provided.idempotency_store,
        clock,
        providers.Factory(timedelta, seconds=config.idempotency_lease),
    )
    event_handlers: providers.Singleton[OrderEventHandlers] = providers.Singleton(
        OrderEventHandlers, context_clients, database, reservation_policy, clock
    )
    order_expiry_job: providers.Singleton[OrderExpiryJob] = providers.Singleton(
        OrderExpiryJob, payments, database, clock
    )
    periodic_jobs: providers.Provider[list[PeriodicJob]] = providers.List(
        order_expiry_job.provided.run_once
    )
    handlers: providers.Provider[dict[str, EventHandler]] = providers.Callable(
        _bind_handlers, event_handlers
    )
