"""The implementations of orders."""

from datetime import timedelta
from functools import cached_property

from markethall.inventory.contract import Inventory
from markethall.orders.contract import Orders
from markethall.orders.memory import MemoryOrderStore, Tables
from markethall.orders.ports import ReadStore, Store
from markethall.orders.service import (
    Checkout,
    ContextClients,
    OrderEventHandlers,
    OrderService,
    PendingOrdersJob,
    ReservationPolicy,
)
from markethall.orders.settings import OrdersSettings
from markethall.orders.sql import STATEMENTS, SqlOrderStore
from markethall.payments.contract import Payments
from markethall.shared.composition.container import ContextContainer, ContextTools, Counter
from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.composition.sql import SqlDatabase, build_sql_persistence
from markethall.shared.messaging.context_worker import PeriodicJob
from markethall.shared.persistence.database import Database
from markethall.shared.persistence.postgres import Postgres
from markethall.users.contract import Users


class OrdersContainer(ContextContainer[OrdersSettings]):
    def __init__(
        self,
        settings: OrdersSettings,
        tools: ContextTools,
        *,
        users: Users,
        inventory: Inventory,
        payments: Payments,
    ) -> None:
        super().__init__(settings, tools)
        self.clients = ContextClients(users, inventory, payments)

    def build_memory_persistence(
        self,
    ) -> ContextPersistence[MemoryDatabase[Tables, MemoryOrderStore]]:
        return build_memory_persistence(Tables(), MemoryOrderStore, self.clock)

    def build_sql_persistence(
        self, postgres: Postgres
    ) -> ContextPersistence[SqlDatabase[SqlOrderStore]]:
        return build_sql_persistence(postgres, STATEMENTS, SqlOrderStore, self.clock)

    @cached_property
    def database(self) -> Database[ReadStore, Store]:
        database: Database[ReadStore, Store] = self.persistence.database
        return database

    @cached_property
    def reservation_policy(self) -> ReservationPolicy:
        return ReservationPolicy(timedelta(seconds=self.settings.reservation_ttl_seconds))

    @cached_property
    def checkout(self) -> Checkout:
        return Checkout(self.clients, self.database, self.reservation_policy, self.clock)

    @cached_property
    def orders(self) -> Orders:
        return OrderService(
            self.checkout, self.clients.inventory, self.database, self.cursors, self.clock
        )

    @cached_property
    def event_handlers(self) -> OrderEventHandlers:
        return OrderEventHandlers(self.clients, self.database, self.reservation_policy, self.clock)

    @cached_property
    def pending_orders_job(self) -> PendingOrdersJob:
        return PendingOrdersJob(self.clients.payments, self.database, self.clock)

    @property
    def periodic_jobs(self) -> list[PeriodicJob]:
        return [self.pending_orders_job.run_once]

    @property
    def counters(self) -> dict[str, Counter]:
        return {"order_count": self.orders.count}
