"""The payments stall on every storage, with a clock to turn and a provider that can be cut off."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from dependency_injector import providers

from markethall.migrating import upgrade
from markethall.payments.container import PaymentsContainer
from markethall.payments.contract import (
    OpenPayment,
    OperationKind,
    Payment,
    PaymentDesk,
    Payments,
    Refund,
    RefundPayment,
)
from markethall.payments.domain import Outcome
from markethall.payments.gateway import SandboxWebhooks
from markethall.payments.gateway.sandbox import Sleep
from markethall.payments.ports import Gateway, SandboxBook
from markethall.payments.remote import RemotePayments, router
from markethall.payments.sql import metadata
from markethall.shared.auth import scopes_of
from markethall.shared.call import Actor, Call, system_call
from markethall.shared.db import IN_TRANSACTION, Postgres
from markethall.shared.events import Envelope
from markethall.shared.http import MONEY, ok
from markethall.shared.idempotency import Answer, Attempt, Keys, Request
from markethall.shared.ids import new_id
from markethall.shared.money import Money
from markethall.shared.pages import Cursors
from markethall.topology import Context
from tests.conftest import on_server, url_of
from tests.remote import at_the_end_of_the_wire

SECRET = b"a secret that is only good for tests"
START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class TurnableClock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        # never twice the same: lists sort by it
        self.now += timedelta(microseconds=1)
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Killed(BaseException):
    """The process dies here: nothing catches it, nothing is tidied up."""


class Wire(Gateway):
    """The way to the provider, which a test can cut: before it is asked, or before it answers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.provider = gateway.provider
        self.before: BaseException | None = None
        self.after: BaseException | None = None
        self.asked = 0

    def accepts(self, method: str) -> bool:
        return self._gateway.accepts(method)

    async def charge(self, operation_id: UUID, amount: Money, method: str) -> Outcome:
        self._start()
        return self._answer(await self._gateway.charge(operation_id, amount, method))

    async def refund(self, operation_id: UUID, charge_operation_id: UUID, amount: Money) -> Outcome:
        self._start()
        answer = await self._gateway.refund(operation_id, charge_operation_id, amount)
        return self._answer(answer)

    async def lookup(self, operation_id: UUID, kind: OperationKind) -> Outcome | None:
        self._start()
        return await self._gateway.lookup(operation_id, kind)

    async def close(self, operation_id: UUID, kind: OperationKind) -> Outcome:
        self._start()
        return await self._gateway.close(operation_id, kind)

    def _start(self) -> None:
        assert not IN_TRANSACTION.get(), "the provider was asked inside a transaction"
        self.asked += 1
        cut, self.before = self.before, None
        if cut:
            raise cut

    def _answer(self, outcome: Outcome) -> Outcome:
        cut, self.after = self.after, None
        if cut:
            raise cut
        return outcome


@dataclass
class Stall:
    """All that a test may touch, and the short ways to do what every test does."""

    container: PaymentsContainer
    clock: TurnableClock
    wire: Wire

    @property
    def payments(self) -> Payments:
        return self.container.payments()

    @property
    def desk(self) -> PaymentDesk:
        return self.container.payment_desk()

    @property
    def keys(self) -> Keys:
        return self.container.keys()

    @property
    def book(self) -> SandboxBook:
        return self.container.book()

    @property
    def webhooks(self) -> SandboxWebhooks:
        return self.container.sandbox_webhooks()

    async def open(self, amount: int = 1999, currency: str = "EUR", **given: Any) -> Payment:
        due: dict[str, Any] = {
            "payment_id": new_id(),
            "order_id": new_id(),
            "user_id": new_id(),
            "amount": Money(amount=amount, currency=currency),
            "expires_at": self.clock.now + timedelta(minutes=15),
        }
        return await self.payments.open(NEIGHBOUR, OpenPayment(**due | given))

    async def confirm(
        self, payment: Payment, method: str = "sandbox_ok", attempt: Attempt | None = None
    ) -> Payment:
        call = person(payment.user_id)
        return await self.desk.confirm(call, payment.payment_id, method, attempt or unkeyed())

    async def confirm_with_key(
        self, payment: Payment, key: str, method: str = "sandbox_ok"
    ) -> tuple[Answer, bool]:
        """As the router does it."""
        call = person(payment.user_id)
        path = f"/payments/{payment.payment_id}/confirm"
        request = Request(call.actor.known_as, "POST", path, key, {"payment_method": method})
        return await self.keys.once(
            request,
            MONEY,
            ok,
            lambda attempt: self.desk.confirm(call, payment.payment_id, method, attempt),
        )

    async def paid(self, amount: int = 1999) -> Payment:
        return await self.confirm(await self.open(amount))

    async def refund(
        self, payment: Payment, amount: int | None = None, refund_id: UUID | None = None
    ) -> Refund:
        money = None if amount is None else Money(amount=amount, currency="EUR")
        command = RefundPayment(
            payment_id=payment.payment_id,
            refund_id=refund_id or new_id(),
            amount=money,
            reason="returned",
        )
        return await self.payments.refund(NEIGHBOUR, command)

    async def now(self, payment: Payment) -> Payment:
        return await self.desk.payment(person(payment.user_id), payment.payment_id)

    async def sweep(self) -> None:
        for sweep in self.container.sweeps():
            await sweep()

    async def reconcile(self) -> None:
        self.clock.turn(16)
        await self.sweep()

    async def send(self, operation_id: UUID, outcome: Outcome) -> bool:
        """A webhook, as the provider sends it; whether it was a duplicate."""
        headers, body = self.webhooks.signed(operation_id, outcome, self.clock())
        receipt = await self.desk.webhook(ANYBODY, "sandbox", headers, body)
        return receipt.duplicate

    async def events(self) -> list[Envelope]:
        async with self.container.backend().outbox.lead() as lead:
            assert lead is not None
            return list(await lead.unpublished(1000))

    async def event_types(self) -> list[str]:
        return [event.type.removeprefix("payments.") for event in await self.events()]

    async def charged(self) -> int:
        """How often the provider has taken money, by its own book."""
        charges = await self.book.charges()
        return sum(charge.status == "succeeded" for charge in charges)

    async def posting_count(self) -> int:
        report = await self.desk.verify(STAFF)
        assert report.balanced
        return report.posting_count


def person(user_id: UUID) -> Call:
    actor = Actor(user_id=user_id, roles=("customer",), scopes=scopes_of(("customer",)))
    return Call(actor=actor, request_id="test")


def unkeyed() -> Attempt:
    return Attempt("", new_id(), MONEY, ok)


NEIGHBOUR = system_call("orders")
ANYBODY = Call(request_id="test")
STAFF = Call(
    actor=Actor(user_id=new_id(), roles=("staff",), scopes=scopes_of(("staff",))),
    request_id="test",
)


async def no_time(seconds: float) -> None:
    await asyncio.sleep(0)


def open_stall(storage: str, postgres: Postgres | None, sleep: Sleep = no_time) -> Stall:
    clock = TurnableClock()
    container = PaymentsContainer(
        postgres=providers.Object(postgres),
        clock=providers.Object(clock),
        cursors=providers.Singleton(Cursors, SECRET),
        webhook_secret=providers.Object(SECRET),
        sleep=providers.Object(sleep),
        config={
            "where": "local",
            "storage": storage,
            "idempotency_lease": 15,
            "gateway_timeout": 8,
            "reconcile_after": 15,
        },
    )
    wire = Wire(container.gateway())
    container.gateway.override(providers.Object(wire))
    return Stall(container, clock, wire)


@pytest.fixture(params=["memory", "sql", "remote"])
def wiring(request: pytest.FixtureRequest) -> tuple[str, Stall]:
    if request.param == "memory":
        return request.param, open_stall("memory", None)
    return request.param, open_stall("sql", request.getfixturevalue("postgres"))


@pytest.fixture
async def stall(wiring: tuple[str, Stall]) -> AsyncIterator[Stall]:
    where, stall = wiring
    if where != "remote":
        yield stall
        return
    here = stall.payments
    async with at_the_end_of_the_wire("payments", router, here, RemotePayments) as remote:
        stall.container.payments.override(providers.Object(remote))
        yield stall


@pytest.fixture(scope="session")
async def own_database(server_url: str) -> AsyncIterator[str]:
    """One database with the schema of payments and no other, for all tests of this folder."""
    name = f"payments_{new_id().hex}"
    await on_server(server_url, f"CREATE DATABASE {name}")
    url = url_of(server_url, name)
    await asyncio.to_thread(upgrade, url, [Context.PAYMENTS])
    yield url
    await on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(own_database: str) -> str:
    """Emptied before each test: twenty times as fast as a new one."""
    tables = ", ".join(str(table) for table in metadata.sorted_tables)
    await on_server(own_database, f"TRUNCATE {tables}")
    return own_database
