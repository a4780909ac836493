"""The dependency container of payments: it builds stores, gateways, use cases and jobs."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

from dependency_injector import providers

from markethall.payments.contract.api import ManualRefunds, PaymentApi
from markethall.payments.contract.internal import Payments
from markethall.payments.contract.ledger import LedgerApi
from markethall.payments.contract.reconciliation import Reconciliations
from markethall.payments.memory.integrity import MemoryPaymentIntegrityReads
from markethall.payments.memory.sandbox import MemorySandboxLedger
from markethall.payments.memory.store import MemoryPaymentStore
from markethall.payments.memory.tables import Tables
from markethall.payments.ports import (
    GatewayTools,
    PaymentGateway,
    ReadStore,
    SandboxLedger,
    Sleep,
    Store,
)
from markethall.payments.ports.integrity import PaymentIntegrityReads
from markethall.payments.service.api import PaymentApiService, PaymentCommands
from markethall.payments.service.change_authorization import ChangeAuthorization
from markethall.payments.service.charge_payment import ChargePayment
from markethall.payments.service.event_handlers import PaymentEventHandlers
from markethall.payments.service.integrity import PaymentIntegrity
from markethall.payments.service.internal import InternalPaymentService
from markethall.payments.service.issue_refund import IssueRefund
from markethall.payments.service.jobs import FollowUps, PaymentJobs
from markethall.payments.service.ledger import LedgerService
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.provider_connection import ProviderLimits
from markethall.payments.service.reconciliations import (
    DailyReconciliation,
    ReconciliationService,
)
from markethall.payments.service.report_comparison import RecordFee, ReportComparison
from markethall.payments.service.saved_methods import SavedMethods
from markethall.payments.service.staff_records import ManualRefundService, MarkPaid
from markethall.payments.service.trial_balance import LedgerSums
from markethall.payments.service.verify_ledger import VerifyLedger
from markethall.payments.service.webhooks import WebhookHandler
from markethall.payments.settings import PaymentsSettings, installed_gateways
from markethall.payments.sql.integrity import SqlPaymentIntegrityReads
from markethall.payments.sql.sandbox import SqlSandboxLedger
from markethall.payments.sql.store import SqlPaymentStore
from markethall.payments.sql.tables import STATEMENTS
from markethall.shared.composition.container import (
    ContextContainer,
    ContextTools,
    build_idempotency,
)
from markethall.shared.composition.context_persistence import database_of
from markethall.shared.composition.memory import MemorySnapshots, build_memory_persistence
from markethall.shared.composition.providers import by_storage, singleton
from markethall.shared.composition.sql import SqlSnapshots, build_sql_persistence
from markethall.shared.kernel.call_context import system_context
from markethall.shared.messaging.context_worker import PeriodicJob
from markethall.shared.persistence.database import Database, SnapshotDatabase


class LocalWebhooks:
    """Passes webhooks of a provider that is simulated in this process to the webhook handler.

    `handler` is set after the construction: the handler needs the gateways, and the gateways need
    this object.
    """

    handler: WebhookHandler | None = None

    async def __call__(self, provider: str, headers: Mapping[str, str], body: bytes) -> None:
        if self.handler:
            ctx = system_context(f"payments.{provider}")
            await self.handler.receive(ctx, provider, headers, body)


def _connect(local_webhooks: LocalWebhooks, handler: WebhookHandler) -> WebhookHandler:
    local_webhooks.handler = handler
    return handler


def _gateway_tools(
    tools: ContextTools, sandbox_ledger: SandboxLedger, deliver: LocalWebhooks, sleep: Sleep
) -> GatewayTools:
    return GatewayTools(
        clock=tools.clock,
        secret_key=tools.secret_key,
        sandbox_ledger=sandbox_ledger,
        deliver_webhook=deliver,
        sleep=sleep,
    )


def _gateways(tools: GatewayTools, settings: PaymentsSettings) -> Sequence[PaymentGateway]:
    manifests = [installed_gateways()[name] for name in settings.payment_providers]
    return [manifest.build(tools, settings.extension(manifest.settings)) for manifest in manifests]


def _provider_client(
    gateways: Sequence[PaymentGateway], settings: PaymentsSettings
) -> ProviderClient:
    limits = ProviderLimits(
        response=timedelta(seconds=settings.payment_provider_timeout_seconds),
        reconcile_after=timedelta(seconds=settings.payment_reconcile_after_seconds),
        max_concurrent_calls=settings.payment_provider_max_concurrent_calls,
        failure_threshold=settings.payment_provider_failure_threshold,
    )
    return ProviderClient(gateways, limits)


def _periodic_jobs(
    jobs: PaymentJobs,
    follow_ups: FollowUps,
    webhooks: WebhookHandler,
    saved_methods: SavedMethods,
    change_authorization: ChangeAuthorization,
) -> Sequence[PeriodicJob]:
    return [
        # before the expiry, so that the payment of a customer who acted in time is recorded first
        follow_ups.run,
        jobs.expire_overdue_payments,
        jobs.refund_ended_payments,
        jobs.reconcile,
        webhooks.apply_pending,
        saved_methods.detach_deleted,
        # after the reconciliation, which records captures whose answer was lost
        change_authorization.expire_overdue,
    ]


def _report_comparison(
    database: Database[ReadStore, Store],
    provider: ProviderClient,
    jobs: PaymentJobs,
    record_fee: RecordFee,
    settings: PaymentsSettings,
) -> ReportComparison:
    tolerance = timedelta(seconds=settings.payment_reconciliation_tolerance_seconds)
    return ReportComparison(database, provider, jobs.reconcile_operation, record_fee, tolerance)


def _reconciliation_delay(settings: PaymentsSettings) -> timedelta | None:
    """Return the hour of the setting, but at least the tolerance. None switches the job off."""
    if settings.payment_reconciliation == "off":
        return None
    tolerance = timedelta(seconds=settings.payment_reconciliation_tolerance_seconds)
    return max(timedelta(hours=settings.payment_reconciliation_hour), tolerance)


class PaymentsContainer(ContextContainer):
    settings: providers.Dependency[PaymentsSettings] = providers.Dependency(
        instance_of=PaymentsSettings
    )
    tools, clock, cursors = ContextContainer.tools, ContextContainer.clock, ContextContainer.cursors
    postgres = ContextContainer.postgres

    memory_persistence = singleton(
        lambda clock: build_memory_persistence(Tables(), MemoryPaymentStore, clock), clock
    )
    sql_persistence = singleton(
        lambda postgres, clock: build_sql_persistence(postgres, STATEMENTS, SqlPaymentStore, clock),
        postgres,
        clock,
    )
    persistence = by_storage(settings, memory=memory_persistence, sql=sql_persistence)
    database: providers.Selector[Database[ReadStore, Store]] = by_storage(
        settings,
        memory=singleton(database_of, memory_persistence),
        sql=singleton(database_of, sql_persistence),
    )
    idempotency = singleton(build_idempotency, persistence, settings, clock)

    # tests replace this, so that the method `sandbox_slow` does not wait five seconds
    sleep: providers.Object[Sleep] = providers.Object(asyncio.sleep)
    sandbox_ledger: providers.Selector[SandboxLedger] = by_storage(
        settings,
        memory=singleton(MemorySandboxLedger, singleton(database_of, memory_persistence)),
        sql=singleton(SqlSandboxLedger, postgres),
    )
    local_webhooks = singleton(LocalWebhooks)
    gateways: providers.Singleton[Sequence[PaymentGateway]] = singleton(
        _gateways, singleton(_gateway_tools, tools, sandbox_ledger, local_webhooks, sleep), settings
    )
    provider_client = singleton(_provider_client, gateways, settings)
    webhook_handler = singleton(
        _connect, local_webhooks, singleton(WebhookHandler, database, provider_client, clock)
    )
    charge_payment = singleton(
        ChargePayment,
        database,
        provider_client,
        clock,
        singleton(lambda settings: settings.payments_capture, settings),
    )
    change_authorization = singleton(ChangeAuthorization, database, provider_client, clock)
    issue_refund = singleton(IssueRefund, database, provider_client, clock)
    saved_methods = singleton(SavedMethods, database, provider_client, cursors, clock)
    manual_refunds: providers.Singleton[ManualRefunds] = singleton(
        ManualRefundService, database, provider_client, cursors, clock
    )
    mark_paid = singleton(MarkPaid, database, provider_client, clock)
    commands = singleton(
        PaymentCommands,
        charge_payment,
        change_authorization,
        issue_refund,
        mark_paid,
        saved_methods,
    )
    payments: providers.Singleton[Payments] = singleton(
        InternalPaymentService, database, provider_client, commands, clock
    )
    payment_api: providers.Singleton[PaymentApi] = singleton(
        PaymentApiService, database, commands, webhook_handler, cursors
    )
    verify_ledger = singleton(VerifyLedger, database)
    ledger: providers.Singleton[LedgerApi] = singleton(
        LedgerService, database, singleton(LedgerSums, database), verify_ledger, cursors, clock
    )
    record_fee = singleton(RecordFee, database, clock)
    payment_jobs = singleton(PaymentJobs, database, provider_client, issue_refund, clock)
    follow_ups = singleton(FollowUps, database, provider_client, clock)

    report_comparison = singleton(
        _report_comparison, database, provider_client, payment_jobs, record_fee, settings
    )
    reconciliations: providers.Singleton[Reconciliations] = singleton(
        ReconciliationService, database, cursors
    )
    daily_reconciliation = singleton(
        DailyReconciliation,
        database,
        provider_client,
        report_comparison,
        singleton(_reconciliation_delay, settings),
        clock,
    )

    event_handlers = singleton(PaymentEventHandlers, database)
    long_running_tasks = singleton(lambda job: [job], daily_reconciliation)
    periodic_jobs = singleton(
        _periodic_jobs,
        payment_jobs,
        follow_ups,
        webhook_handler,
        saved_methods,
        change_authorization,
    )
    counters = singleton(lambda payments: {"payment_count": payments.count}, payment_api)
    snapshots: providers.Selector[SnapshotDatabase[PaymentIntegrityReads]] = by_storage(
        settings,
        memory=singleton(
            lambda persistence: MemorySnapshots(persistence.database, MemoryPaymentIntegrityReads),
            memory_persistence,
        ),
        sql=singleton(lambda postgres: SqlSnapshots(postgres, SqlPaymentIntegrityReads), postgres),
    )
    integrity = singleton(PaymentIntegrity, snapshots, verify_ledger, clock)
    integrity_checks = singleton(PaymentIntegrity.list_checks, integrity)
    on_close = singleton(lambda gateways: [gateway.close for gateway in gateways], gateways)
