"""The container of payments: chooses the implementation of each port."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from dependency_injector import containers, providers

from markethall.payments.contract import PaymentApi, Payments
from markethall.payments.gateway import SandboxGateway, SandboxWebhooks
from markethall.payments.gateway.sandbox import DeliverWebhook, Sleep
from markethall.payments.memory import MemoryPaymentStore, MemorySandboxLedger, Tables
from markethall.payments.ports import Database, PaymentGateway, SandboxLedger, WebhookReader
from markethall.payments.remote import RemotePayments
from markethall.payments.service import (
    ChargePayment,
    InternalPaymentService,
    IssueRefund,
    PaymentApiService,
    PaymentJobs,
    ProviderClient,
    ProviderTimeouts,
    WebhookHandler,
)
from markethall.payments.sql import STATEMENTS, SqlPaymentStore, SqlSandboxLedger
from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.composition.sql import SqlDatabase, build_sql_persistence
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.messaging.context_worker import PeriodicJob
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.rpc.client import RpcClient


def _memory_persistence(
    clock: Clock,
) -> ContextPersistence[MemoryDatabase[Tables, MemoryPaymentStore]]:
    return build_memory_persistence(Tables(), MemoryPaymentStore, clock)


def _sql_persistence(
    postgres: Postgres, clock: Clock
) -> ContextPersistence[SqlDatabase[SqlPaymentStore]]:
    return build_sql_persistence(postgres, STATEMENTS, SqlPaymentStore, clock)


def _deliver_to(handler: WebhookHandler) -> DeliverWebhook:
    """Deliver the sandbox's webhooks as headers and bytes, as a real provider does."""

    async def deliver(headers: Mapping[str, str], body: bytes) -> None:
        await handler.receive(system_context("payments.sandbox"), "sandbox", headers, body)

    return deliver


def _seconds(setting: Any) -> providers.Factory[timedelta]:
    return providers.Factory(timedelta, seconds=setting)


class PaymentsContainer(containers.DeclarativeContainer):
    config = providers.Configuration(strict=True)
    postgres: providers.Dependency[Postgres] = providers.Dependency()
    clock: providers.Dependency[Clock] = providers.Dependency()
    cursors: providers.Dependency[Cursors] = providers.Dependency()
    webhook_secret: providers.Dependency[bytes] = providers.Dependency()
    rpc_client: providers.Dependency[RpcClient] = providers.Dependency()
    sleep: providers.Provider[Sleep] = providers.Object(asyncio.sleep)

    persistence: providers.Selector[ContextPersistence[Any]] = providers.Selector(
        config.storage,
        memory=providers.Singleton(_memory_persistence, clock),
        sql=providers.Singleton(_sql_persistence, postgres, clock),
    )
    database: providers.Callable[Database] = providers.Callable(
        lambda persistence: persistence.database, persistence
    )
    sandbox_ledger: providers.Selector[SandboxLedger] = providers.Selector(
        config.storage,
        memory=providers.Singleton(MemorySandboxLedger, database),
        sql=providers.Singleton(SqlSandboxLedger, postgres),
    )

    sandbox_webhooks: providers.Singleton[SandboxWebhooks] = providers.Singleton(
        SandboxWebhooks, webhook_secret
    )
    webhook_readers: providers.Provider[dict[str, WebhookReader]] = providers.Dict(
        sandbox=sandbox_webhooks
    )
    webhook_handler: providers.Singleton[WebhookHandler] = providers.Singleton(
        WebhookHandler, database, webhook_readers, clock
    )
    gateway: providers.Singleton[PaymentGateway] = providers.Singleton(
        SandboxGateway,
        sandbox_ledger,
        sandbox_webhooks,
        providers.Callable(_deliver_to, webhook_handler),
        clock,
        sleep,
    )
    provider_client: providers.Singleton[ProviderClient] = providers.Singleton(
        ProviderClient,
        gateway,
        providers.Factory(
            ProviderTimeouts,
            response=_seconds(config.payment_provider_timeout_seconds),
            reconcile_after=_seconds(config.payment_reconcile_after_seconds),
        ),
    )
    charge_payment: providers.Singleton[ChargePayment] = providers.Singleton(
        ChargePayment, database, provider_client, clock
    )
    issue_refund: providers.Singleton[IssueRefund] = providers.Singleton(
        IssueRefund, database, provider_client, clock
    )

    local_payments: providers.Singleton[Payments] = providers.Singleton(
        InternalPaymentService, database, provider_client, issue_refund, clock
    )
    remote_payments: providers.Singleton[Payments] = providers.Singleton(RemotePayments, rpc_client)
    payments: providers.Selector[Payments] = providers.Selector(
        config.mode, local=local_payments, remote=remote_payments
    )
    payment_api: providers.Singleton[PaymentApi] = providers.Singleton(
        PaymentApiService, database, charge_payment, issue_refund, webhook_handler, cursors
    )
    idempotency: providers.Singleton[IdempotencyService] = providers.Singleton(
        IdempotencyService,
        persistence.provided.idempotency_store,
        clock,
        _seconds(config.idempotency_lease),
    )
    payment_jobs: providers.Singleton[PaymentJobs] = providers.Singleton(
        PaymentJobs, database, provider_client, webhook_handler, clock
    )
    periodic_jobs: providers.Provider[list[PeriodicJob]] = providers.List(
        payment_jobs.provided.expire_overdue_payments,
        payment_jobs.provided.reconcile,
        payment_jobs.provided.apply_pending_webhooks,
    )
    handlers: providers.Provider[dict[str, Any]] = providers.Dict()
