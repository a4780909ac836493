"""Which implementation stands behind each promise of payments."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from dependency_injector import containers, providers

from markethall.payments.contract import PaymentDesk, Payments
from markethall.payments.gateway import SandboxGateway, SandboxWebhooks
from markethall.payments.gateway.sandbox import Deliver, Sleep
from markethall.payments.memory import MemorySandboxBook, MemoryStore, Tables
from markethall.payments.ports import Database, Gateway, SandboxBook, WebhookReader
from markethall.payments.remote import RemotePayments
from markethall.payments.service import (
    Charges,
    Patience,
    PaymentDeskService,
    PaymentService,
    Refunds,
    Sweeps,
    Till,
    WebhookIntake,
)
from markethall.payments.sql import STATEMENTS, SqlSandboxBook, SqlStore
from markethall.shared.backend import Backend
from markethall.shared.call import system_call
from markethall.shared.clock import Clock
from markethall.shared.db import Postgres
from markethall.shared.idempotency import Keys
from markethall.shared.memory import MemoryDatabase, memory_backend
from markethall.shared.pages import Cursors
from markethall.shared.sql import SqlDatabase, sql_backend
from markethall.shared.steward import Sweep
from markethall.shared.wire import Wire


def _in_memory(clock: Clock) -> Backend[MemoryDatabase[Tables, MemoryStore]]:
    return memory_backend(Tables(), MemoryStore, clock)


def _in_sql(postgres: Postgres, clock: Clock) -> Backend[SqlDatabase[SqlStore]]:
    return sql_backend(postgres, STATEMENTS, SqlStore, clock)


def _to(intake: WebhookIntake) -> Deliver:
    """The sandbox sends its webhooks where a real provider would: bytes and headers, no more."""

    async def deliver(headers: Mapping[str, str], body: bytes) -> None:
        await intake.receive(system_call("payments.sandbox"), "sandbox", headers, body)

    return deliver


def _seconds(setting: Any) -> providers.Factory[timedelta]:
    return providers.Factory(timedelta, seconds=setting)


class PaymentsContainer(containers.DeclarativeContainer):
    config = providers.Configuration(strict=True)
    postgres: providers.Dependency[Postgres] = providers.Dependency()
    clock: providers.Dependency[Clock] = providers.Dependency()
    cursors: providers.Dependency[Cursors] = providers.Dependency()
    webhook_secret: providers.Dependency[bytes] = providers.Dependency()
    remote_wire: providers.Dependency[Wire] = providers.Dependency()
    sleep: providers.Provider[Sleep] = providers.Object(asyncio.sleep)

    backend: providers.Selector[Backend[Any]] = providers.Selector(
        config.storage,
        memory=providers.Singleton(_in_memory, clock),
        sql=providers.Singleton(_in_sql, postgres, clock),
    )
    database: providers.Callable[Database] = providers.Callable(
        lambda backend: backend.database, backend
    )
    book: providers.Selector[SandboxBook] = providers.Selector(
        config.storage,
        memory=providers.Singleton(MemorySandboxBook, database),
        sql=providers.Singleton(SqlSandboxBook, postgres),
    )

    sandbox_webhooks: providers.Singleton[SandboxWebhooks] = providers.Singleton(
        SandboxWebhooks, webhook_secret
    )
    readers: providers.Provider[dict[str, WebhookReader]] = providers.Dict(sandbox=sandbox_webhooks)
    intake: providers.Singleton[WebhookIntake] = providers.Singleton(
        WebhookIntake, database, readers, clock
    )
    gateway: providers.Singleton[Gateway] = providers.Singleton(
        SandboxGateway, book, sandbox_webhooks, providers.Callable(_to, intake), clock, sleep
    )
    till: providers.Singleton[Till] = providers.Singleton(
        Till,
        gateway,
        providers.Factory(
            Patience,
            answer=_seconds(config.gateway_timeout),
            reconcile=_seconds(config.reconcile_after),
        ),
    )
    charges: providers.Singleton[Charges] = providers.Singleton(Charges, database, till, clock)
    refunds: providers.Singleton[Refunds] = providers.Singleton(Refunds, database, till, clock)

    here: providers.Singleton[Payments] = providers.Singleton(
        PaymentService, database, till, refunds, clock
    )
    elsewhere: providers.Singleton[Payments] = providers.Singleton(RemotePayments, remote_wire)
    payments: providers.Selector[Payments] = providers.Selector(
        config.where, local=here, remote=elsewhere
    )
    payment_desk: providers.Singleton[PaymentDesk] = providers.Singleton(
        PaymentDeskService, database, charges, refunds, intake, cursors
    )
    keys: providers.Singleton[Keys] = providers.Singleton(
        Keys, backend.provided.claims, clock, _seconds(config.idempotency_lease)
    )
    sweeping: providers.Singleton[Sweeps] = providers.Singleton(
        Sweeps, database, till, intake, clock
    )
    sweeps: providers.Provider[list[Sweep]] = providers.List(
        sweeping.provided.expire_overdue,
        sweeping.provided.reconcile,
        sweeping.provided.apply_parked_webhooks,
    )
    handlers: providers.Provider[dict[str, Any]] = providers.Dict()
