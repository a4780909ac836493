"""Fixtures of payments: the container on each storage, a test clock, provider failures."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from dependency_injector import providers

from markethall.payments.container import PaymentsContainer
from markethall.payments.contract import ActivatePayments, OpenPayment, Payments, RefundPayment
from markethall.payments.contract.api import PaymentApi, PaymentView
from markethall.payments.contract.internal import RefundView
from markethall.payments.contract.ledger import LedgerApi
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import Operation, Outcome
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks
from markethall.payments.ports import (
    OperationRequest,
    PaymentGateway,
    ProviderDispute,
    ProviderNews,
    SandboxLedger,
    Sleep,
)
from markethall.payments.remote import RemotePayments, routes
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.saved_methods import ChosenMethod
from markethall.payments.settings import PaymentsSettings
from markethall.payments.sql.tables import metadata
from markethall.schema_migrations import upgrade
from markethall.shared.composition.settings import read_one
from markethall.shared.http.idempotent_routes import IDEMPOTENCY_RETENTION_EXTENDED, ok_response
from markethall.shared.idempotency.records import (
    IdempotentCommand,
    IdempotentRequest,
    StoredResponse,
)
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.call_context import Actor, CallContext, system_context
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.kernel.scopes import scopes_for_roles
from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.persistence.database import HOLDS_CONNECTION
from markethall.shared.persistence.postgres import Postgres
from markethall.testing import context_tools
from tests.conftest import on_server, url_of
from tests.rpc_loopback import over_rpc

SECRET = b"a secret that is only good for tests"
MANUAL_METHODS = (
    {
        "code": "bank_transfer",
        "name": "Bank transfer",
        "instructions": "Transfer the amount to NL00; reference {payment_id}.",
        "deadline_days": 7,
    },
    {
        "code": "cash_on_delivery",
        "name": "Cash on delivery",
        "instructions": "Pay the carrier.",
        "deadline_days": 30,
        "currencies": ["EUR"],
        "countries": ["NL"],
        "max_total": {"amount": 5000, "currency": "EUR"},
    },
)
EUR_19_99 = Money(amount=1999, currency="EUR")
START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class FakeClock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        # each call returns a later time, because lists are sorted by time
        self.now += timedelta(microseconds=1)
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Killed(BaseException):
    """A simulated crash. It is a BaseException, so `except Exception` does not catch it."""


class CalledInTransaction(BaseException):
    """The provider was called inside a transaction. No code catches this BaseException."""


class InterruptibleGateway(PaymentGateway):
    """Wraps a gateway. A test can make the next call fail before or after its effect.

    `before_response` runs after the effect of a charge, before its response.
    """

    def __init__(self, gateway: PaymentGateway) -> None:
        self._gateway = gateway
        self.provider = gateway.provider
        self.capabilities = gateway.capabilities
        self.parse_event = gateway.parse_event  # type: ignore[method-assign]  # delegates
        self.parse_news = gateway.parse_news  # type: ignore[method-assign]  # delegates
        self.list_methods = gateway.list_methods  # type: ignore[method-assign]  # delegates
        self.report = gateway.report  # type: ignore[method-assign]  # delegates
        self.parse_report_row = gateway.parse_report_row  # type: ignore[method-assign]  # delegates
        self.before: BaseException | None = None
        self.after: BaseException | None = None
        self.before_response: Callable[[], Awaitable[object]] | None = None
        self.calls = 0

    def accepts(self, method: str) -> bool:
        return self._gateway.accepts(method)

    async def charge(self, request: OperationRequest) -> Outcome:
        self._start()
        outcome = await self._gateway.charge(request)
        if self.before_response:
            await self.before_response()
        return self._answer(outcome)

    async def authorize(self, request: OperationRequest) -> Outcome:
        self._start()
        outcome = await self._gateway.authorize(request)
        if self.before_response:
            await self.before_response()
        return self._answer(outcome)

    async def capture(self, request: OperationRequest) -> Outcome:
        self._start()
        return self._answer(await self._gateway.capture(request))

    async def void(self, request: OperationRequest) -> Outcome:
        self._start()
        return self._answer(await self._gateway.void(request))

    async def refund(self, request: OperationRequest) -> Outcome:
        self._start()
        answer = await self._gateway.refund(request)
        return self._answer(answer)

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        self._start()
        return await self._gateway.lookup(request)

    async def lookup_after_news(
        self, request: OperationRequest, news: ProviderNews
    ) -> Outcome | None:
        self._start()
        return await self._gateway.lookup_after_news(request, news)

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        self._start()
        return await self._gateway.cancel_unknown(request)

    async def lookup_dispute(self, reference: str) -> ProviderDispute | None:
        self._start()
        return await self._gateway.lookup_dispute(reference)

    async def ensure_customer(self, user_id: UUID, known: str | None = None) -> str:
        self._start()
        return await self._gateway.ensure_customer(user_id, known)

    async def detach_method(self, token: str) -> None:
        self._start()
        await self._gateway.detach_method(token)
        cut, self.after = self.after, None
        if cut:
            raise cut

    async def cancel_action(self, request: OperationRequest) -> Outcome:
        self._start()
        return await self._gateway.cancel_action(request)

    def _start(self) -> None:
        if HOLDS_CONNECTION.get():
            raise CalledInTransaction
        self.calls += 1
        cut, self.before = self.before, None
        if cut:
            raise cut

    def _answer(self, outcome: Outcome) -> Outcome:
        cut, self.after = self.after, None
        if cut:
            raise cut
        return outcome


@dataclass
class PaymentsApp:
    """The app under test, with its clock, its gateway and helpers."""

    container: PaymentsContainer
    clock: FakeClock
    gateway: InterruptibleGateway

    @property
    def payments(self) -> Payments:
        return self.container.payments()

    @property
    def payment_api(self) -> PaymentApi:
        return self.container.payment_api()

    @property
    def ledger(self) -> LedgerApi:
        return self.container.ledger()

    @property
    def idempotency(self) -> IdempotencyService:
        return self.container.idempotency()

    @property
    def sandbox_ledger(self) -> SandboxLedger:
        return self.container.sandbox_ledger()

    @property
    def webhooks(self) -> SandboxWebhooks:
        return SandboxWebhooks(SECRET)

    def replace_provider_client(self, client: ProviderClient) -> None:
        """Let customers pay with the gateways of this client.

        The internal API, which a remote app has built, shares the commands of customers. So these
        are built again.
        """
        container = self.container
        container.provider_client.override(providers.Object(client))
        container.saved_methods.reset()
        container.charge_payment.reset()
        container.mark_paid.reset()
        container.commands.reset()

    async def open(
        self, amount: int = 1999, currency: str = "EUR", *, activate: bool = True, **values: Any
    ) -> PaymentView:
        due: dict[str, Any] = {
            "payment_id": new_id(),
            "order_id": new_id(),
            "user_id": new_id(),
            "amount": Money(amount=amount, currency=currency),
            "expires_at": self.clock.now + timedelta(minutes=15),
        }
        opened = await self.payments.open(ORDERS_CONTEXT, OpenPayment(**due | values))
        payment = PaymentView(**dict(opened))
        if activate:
            await self.activate(payment)
        return payment

    async def activate(self, *payments: PaymentView) -> list[PaymentView]:
        command = ActivatePayments(payment_ids=tuple(payment.payment_id for payment in payments))
        activated = await self.payments.activate(ORDERS_CONTEXT, command)
        return [PaymentView(**dict(payment)) for payment in activated.items]

    async def confirm(
        self,
        payment: PaymentView,
        method: str = "sandbox_ok",
        attempt: IdempotentCommand | None = None,
        *,
        save_method: bool = False,
        ctx: CallContext | None = None,
    ) -> PaymentView:
        return await self.payment_api.confirm(
            ctx or user_context(payment.user_id),
            payment.payment_id,
            method,
            attempt or attempt_without_key(),
            save_method=save_method,
        )

    async def confirm_with_key(
        self, payment: PaymentView, key: str, method: str = "sandbox_ok"
    ) -> tuple[StoredResponse, bool]:
        """Confirm a payment with an idempotency key, as the router does."""
        ctx = user_context(payment.user_id)
        path = f"/payments/{payment.payment_id}/confirm"
        request = IdempotentRequest(
            ctx.actor.audit_name, "POST", path, key, {"payment_method": method}
        )
        return await self.idempotency.run(
            request,
            IDEMPOTENCY_RETENTION_EXTENDED,
            ok_response,
            lambda attempt: self.payment_api.confirm(ctx, payment.payment_id, method, attempt),
        )

    async def record_intent(self, payment: PaymentView, method: str) -> Operation:
        """Record a charge without calling the provider, as if the process had crashed."""
        _, operation = await self.container.charge_payment()._record_intent(
            user_context(payment.user_id),
            payment.payment_id,
            ChosenMethod(method, self.container.provider_client().provider_of(method)),
            new_id(),
        )
        return operation

    async def mark_paid(
        self,
        payment: PaymentView,
        amount: int,
        attempt: IdempotentCommand | None = None,
        currency: str = "EUR",
    ) -> PaymentView:
        return await self.payment_api.mark_paid(
            STAFF,
            payment.payment_id,
            Money(amount=amount, currency=currency),
            "2026-11-30/17",
            attempt or attempt_without_key(),
        )

    async def authorized(self, amount: int = 1999) -> PaymentView:
        """Confirm a payment in a shop that captures on fulfilment."""
        return await self.confirm(await self.open(amount))

    async def capture(
        self,
        payment: PaymentView,
        amount: int | None = None,
        attempt: IdempotentCommand | None = None,
        *,
        is_final: bool = False,
    ) -> PaymentView:
        money = None if amount is None else Money(amount=amount, currency="EUR")
        return await self.payment_api.capture(
            STAFF, payment.payment_id, money, attempt or attempt_without_key(), is_final=is_final
        )

    async def void(
        self, payment: PaymentView, attempt: IdempotentCommand | None = None
    ) -> PaymentView:
        return await self.payment_api.void(
            STAFF, payment.payment_id, attempt or attempt_without_key()
        )

    async def taken(self, payment: PaymentView) -> tuple[int, int]:
        """Return (captured, refunded) of all charges of the payment in the sandbox ledger."""
        operations = await self.payment_api.list_operations(
            STAFF, payment.payment_id, PageQuery(limit=100)
        )
        found = [await self.sandbox_ledger.get_charge(one.operation_id) for one in operations.items]
        charges = [charge for charge in found if charge]
        return sum(one.captured for one in charges), sum(one.refunded for one in charges)

    async def paid(self, amount: int = 1999) -> PaymentView:
        return await self.confirm(await self.open(amount))

    async def refund(
        self, payment: PaymentView, amount: int | None = None, refund_id: UUID | None = None
    ) -> RefundView:
        money = None if amount is None else Money(amount=amount, currency="EUR")
        command = RefundPayment(
            payment_id=payment.payment_id,
            refund_id=refund_id or new_id(),
            amount=money,
            reason="returned",
        )
        return await self.payments.refund(ORDERS_CONTEXT, command)

    async def current(self, payment: PaymentView) -> PaymentView:
        return await self.payment_api.get_payment(user_context(payment.user_id), payment.payment_id)

    async def run_periodic_jobs(self) -> None:
        for sweep in self.container.periodic_jobs():
            await sweep()

    async def reconcile(self) -> None:
        self.clock.advance(16)
        await self.run_periodic_jobs()

    async def send(
        self,
        operation_id: UUID,
        outcome: Outcome,
        kind: OperationKind = OperationKind.CHARGE,
    ) -> bool:
        """Send a signed webhook. Return whether it was a duplicate."""
        headers, body = self.webhooks.build_signed_event(
            operation_id, outcome, self.clock(), kind=kind
        )
        receipt = await self.payment_api.receive_webhook(ANONYMOUS, "sandbox", headers, body)
        return receipt.duplicate

    async def events(self) -> list[EventEnvelope]:
        async with self.container.persistence().outbox.acquire_leadership() as leader:
            assert leader is not None
            return list(await leader.get_unrelayed(1000))

    async def event_types(self) -> list[str]:
        return [event.type.removeprefix("payments.") for event in await self.events()]

    async def charged(self) -> int:
        """Return the number of successful charges in the sandbox ledger."""
        charges = await self.sandbox_ledger.list_charges()
        return sum(charge.status == "succeeded" for charge in charges)

    async def posting_count(self) -> int:
        report = await self.ledger.verify(STAFF)
        assert report.intact, report.findings
        return report.posting_count


def charge_request(
    operation_id: UUID, amount: Money = EUR_19_99, method: str = "sandbox_ok"
) -> OperationRequest:
    return OperationRequest(
        operation_id=operation_id,
        payment_id=new_id(),
        kind=OperationKind.CHARGE,
        amount=amount,
        created_at=START,
        method=method,
    )


def user_context(user_id: UUID) -> CallContext:
    actor = Actor(user_id=user_id, roles=("customer",), scopes=scopes_for_roles(("customer",)))
    return CallContext(actor=actor, request_id="test")


def attempt_without_key() -> IdempotentCommand:
    return IdempotentCommand("", new_id(), IDEMPOTENCY_RETENTION_EXTENDED, ok_response)


ORDERS_CONTEXT = system_context("orders")
ANONYMOUS = CallContext(request_id="test")
STAFF = CallContext(
    actor=Actor(user_id=new_id(), roles=("staff",), scopes=scopes_for_roles(("staff",))),
    request_id="test",
)


async def skip_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


def build_payments_app(
    storage: str, postgres: Postgres | None, sleep: Sleep = skip_sleep, **overrides: Any
) -> PaymentsApp:
    clock = FakeClock()
    tools = context_tools(clock=clock, postgres=postgres, secret_key=SECRET)
    # tests let many calls fail in a row, which must not open the circuit breaker
    values: dict[str, Any] = {
        "storage": storage,
        "payment_provider_failure_threshold": 1_000_000,
        "payment_providers": "sandbox,manual",
        "manual_payment_methods": MANUAL_METHODS,
    } | overrides
    settings = read_one(PaymentsSettings, values)
    settings.read_extensions(values)
    container = PaymentsContainer(settings=settings, tools=tools, sleep=sleep)
    sandbox, manual = container.gateways()
    gateway = InterruptibleGateway(sandbox)
    container.gateways.override(providers.Object([gateway, manual]))
    return PaymentsApp(container, clock, gateway)


@pytest.fixture(params=["memory", "sql"])
def storage(request: pytest.FixtureRequest) -> tuple[str, Postgres | None]:
    return request.param, (request.getfixturevalue("postgres") if request.param == "sql" else None)


@pytest.fixture(params=["memory", "sql", "remote"])
def wiring(request: pytest.FixtureRequest) -> tuple[str, PaymentsApp]:
    if request.param == "memory":
        return request.param, build_payments_app("memory", None)
    return request.param, build_payments_app("sql", request.getfixturevalue("postgres"))


@pytest.fixture
async def payments_app(wiring: tuple[str, PaymentsApp]) -> AsyncIterator[PaymentsApp]:
    where, payments_app = wiring
    if where != "remote":
        yield payments_app
        return
    here = payments_app.payments
    async with over_rpc("payments", routes.router, here, RemotePayments) as remote:
        payments_app.container.payments.override(remote)
        yield payments_app


@pytest.fixture(scope="session")
async def dedicated_database(server_url: str) -> AsyncIterator[str]:
    """Create one database with the schema `payments` for all tests of this directory."""
    name = f"payments_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name}")
    url = url_of(server_url, name)
    await asyncio.to_thread(upgrade, url, ["payments"])
    yield url
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(dedicated_database: str) -> str:
    """Empty all tables before each test. A new database per test would take twenty times longer."""
    tables = ", ".join(str(table) for table in metadata.sorted_tables)
    await on_server(dedicated_database, f"TRUNCATE {tables}")
    return dedicated_database
