"""Which implementation stands behind each promise of orders."""

from datetime import timedelta
from typing import Any

from dependency_injector import containers, providers

from markethall.inventory.contract import Inventory
from markethall.orders.contract import Orders
from markethall.orders.memory import MemoryOrders, Tables
from markethall.orders.ports import Database
from markethall.orders.service import (
    LISTENERS,
    Checkout,
    Neighbours,
    OrderListeners,
    OrderService,
    OverdueOrders,
    Terms,
)
from markethall.orders.sql import STATEMENTS, SqlOrders
from markethall.payments.contract import Payments
from markethall.shared.backend import Backend
from markethall.shared.clock import Clock
from markethall.shared.db import Postgres
from markethall.shared.events import Handler
from markethall.shared.idempotency import Keys
from markethall.shared.memory import MemoryDatabase, memory_backend
from markethall.shared.pages import Cursors
from markethall.shared.sql import SqlDatabase, sql_backend
from markethall.shared.steward import Sweep
from markethall.users.contract import Users


def _in_memory(clock: Clock) -> Backend[MemoryDatabase[Tables, MemoryOrders]]:
    return memory_backend(Tables(), MemoryOrders, clock)


def _in_sql(postgres: Postgres, clock: Clock) -> Backend[SqlDatabase[SqlOrders]]:
    return sql_backend(postgres, STATEMENTS, SqlOrders, clock)


def _bound(listeners: OrderListeners) -> dict[str, Handler]:
    """Handler name -> the method that keeps it."""
    return {entry.handler: entry.method.__get__(listeners) for entry in LISTENERS}


class OrdersContainer(containers.DeclarativeContainer):
    config = providers.Configuration(strict=True)
    postgres: providers.Dependency[Postgres] = providers.Dependency()
    clock: providers.Dependency[Clock] = providers.Dependency()
    cursors: providers.Dependency[Cursors] = providers.Dependency()
    users: providers.Dependency[Users] = providers.Dependency()
    inventory: providers.Dependency[Inventory] = providers.Dependency()
    payments: providers.Dependency[Payments] = providers.Dependency()

    backend: providers.Selector[Backend[Any]] = providers.Selector(
        config.storage,
        memory=providers.Singleton(_in_memory, clock),
        sql=providers.Singleton(_in_sql, postgres, clock),
    )
    database: providers.Callable[Database] = providers.Callable(
        lambda backend: backend.database, backend
    )
    terms: providers.Singleton[Terms] = providers.Singleton(
        Terms, providers.Factory(timedelta, seconds=config.hold_ttl)
    )
    neighbours: providers.Singleton[Neighbours] = providers.Singleton(
        Neighbours, users, inventory, payments
    )
    checkout: providers.Singleton[Checkout] = providers.Singleton(
        Checkout, neighbours, database, terms, clock
    )
    orders: providers.Singleton[Orders] = providers.Singleton(
        OrderService, checkout, inventory, database, cursors, clock
    )
    keys: providers.Singleton[Keys] = providers.Singleton(
        Keys,
        backend.provided.claims,
        clock,
        providers.Factory(timedelta, seconds=config.idempotency_lease),
    )
    listeners: providers.Singleton[OrderListeners] = providers.Singleton(
        OrderListeners, neighbours, database, terms, clock
    )
    overdue: providers.Singleton[OverdueOrders] = providers.Singleton(
        OverdueOrders, payments, database, clock
    )
    sweeps: providers.Provider[list[Sweep]] = providers.List(overdue.provided.sweep)
    handlers: providers.Provider[dict[str, Handler]] = providers.Callable(_bound, listeners)
