"""The implementations of payments."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property

from markethall.payments.contract import PaymentApi, Payments
from markethall.payments.gateway import SandboxGateway, SandboxWebhooks
from markethall.payments.gateway.sandbox import DeliverWebhook, Sleep
from markethall.payments.memory import MemoryPaymentStore, MemorySandboxLedger, Tables
from markethall.payments.ports import PaymentGateway, ReadStore, SandboxLedger, Store
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
from markethall.payments.settings import PaymentsSettings
from markethall.payments.sql import STATEMENTS, SqlPaymentStore, SqlSandboxLedger
from markethall.shared.composition.container import ContextContainer, Counter
from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.composition.sql import SqlDatabase, build_sql_persistence
from markethall.shared.kernel.call_context import system_context
from markethall.shared.messaging.context_worker import PeriodicJob
from markethall.shared.persistence.database import Database
from markethall.shared.persistence.postgres import Postgres


class PaymentsContainer(ContextContainer[PaymentsSettings]):
    # tests replace this, so that the method `sandbox_slow` does not wait five seconds
    sleep: Sleep = staticmethod(asyncio.sleep)

    def build_memory_persistence(
        self,
    ) -> ContextPersistence[MemoryDatabase[Tables, MemoryPaymentStore]]:
        return build_memory_persistence(Tables(), MemoryPaymentStore, self.clock)

    def build_sql_persistence(
        self, postgres: Postgres
    ) -> ContextPersistence[SqlDatabase[SqlPaymentStore]]:
        return build_sql_persistence(postgres, STATEMENTS, SqlPaymentStore, self.clock)

    @cached_property
    def database(self) -> Database[ReadStore, Store]:
        database: Database[ReadStore, Store] = self.persistence.database
        return database

    @cached_property
    def sandbox_ledger(self) -> SandboxLedger:
        if self.settings.storage == "memory":
            return MemorySandboxLedger(self.persistence.database)
        return SqlSandboxLedger(self.postgres)

    @cached_property
    def sandbox_webhooks(self) -> SandboxWebhooks:
        return SandboxWebhooks(self.tools.secret_key)

    @cached_property
    def webhook_handler(self) -> WebhookHandler:
        readers = {"sandbox": self.sandbox_webhooks}
        return WebhookHandler(self.database, readers, self.clock)

    @cached_property
    def gateway(self) -> PaymentGateway:
        deliver = _deliver_to(self.webhook_handler)
        return SandboxGateway(
            self.sandbox_ledger, self.sandbox_webhooks, deliver, self.clock, self.sleep
        )

    @cached_property
    def provider_client(self) -> ProviderClient:
        timeouts = ProviderTimeouts(
            response=timedelta(seconds=self.settings.payment_provider_timeout_seconds),
            reconcile_after=timedelta(seconds=self.settings.payment_reconcile_after_seconds),
        )
        return ProviderClient(self.gateway, timeouts)

    @cached_property
    def charge_payment(self) -> ChargePayment:
        return ChargePayment(self.database, self.provider_client, self.clock)

    @cached_property
    def issue_refund(self) -> IssueRefund:
        return IssueRefund(self.database, self.provider_client, self.clock)

    @cached_property
    def payments(self) -> Payments:
        return InternalPaymentService(
            self.database, self.provider_client, self.issue_refund, self.clock
        )

    @cached_property
    def payment_api(self) -> PaymentApi:
        return PaymentApiService(
            self.database,
            self.charge_payment,
            self.issue_refund,
            self.webhook_handler,
            self.cursors,
        )

    @cached_property
    def payment_jobs(self) -> PaymentJobs:
        return PaymentJobs(self.database, self.provider_client, self.webhook_handler, self.clock)

    @property
    def periodic_jobs(self) -> list[PeriodicJob]:
        jobs = self.payment_jobs
        return [jobs.expire_overdue_payments, jobs.reconcile, jobs.apply_pending_webhooks]

    @property
    def counters(self) -> dict[str, Counter]:
        return {"payment_count": self.payment_api.count}


def _deliver_to(handler: WebhookHandler) -> DeliverWebhook:
    """Build the function that passes the sandbox's webhooks to the handler."""

    async def deliver(headers: Mapping[str, str], body: bytes) -> None:
        await handler.receive(system_context("payments.sandbox"), "sandbox", headers, body)

    return deliver
