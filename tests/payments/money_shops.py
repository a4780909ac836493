"""One interface to a shop with the sandbox and to a shop with the fake of Stripe.

So one test checks both providers. Each shop compares its amounts with the ledger of its provider.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final
from uuid import UUID

from dependency_injector import providers

from markethall.payments.contract import PaymentStatus
from markethall.payments.contract.api import OperationView, PaymentView
from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.payments.domain.operation import Succeeded
from markethall.payments.ports import GatewayTools
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.inventory.race_setup import slow_connection_to
from tests.payments.conftest import (
    SECRET,
    STAFF,
    InterruptibleGateway,
    PaymentsApp,
    build_payments_app,
    skip_sleep,
)
from tests.payments.faulty_sandbox import FaultySandbox
from tests.payments.provider_faults import STRIPE_FAULTS, ProviderFault
from tests.payments.stripe_app import NEEDS_ACTION, OK, StripeApp, stripe_app
from tests.payments.stripe_server import StripeServer
from tests.proxy import Mode

PROVIDERS: Final = ("sandbox", "stripe")
POOL: Final = PoolSize(min_size=5, max_size=20, timeout=30)
# the timeout of calls in seconds, for tests in which the provider does not answer
SHORT_TIMEOUT: Final = 0.5
# maps each kind of operation to the name of its request in stripe_server.py
_STRIPE_NAMES: Final = {
    OperationKind.CHARGE: "confirm",
    OperationKind.AUTHORIZE: "confirm",
    OperationKind.CAPTURE: "capture",
    OperationKind.VOID: "cancel",
    OperationKind.REFUND: "refund",
}
_OPEN: Final = {OperationStatus.PENDING, OperationStatus.UNKNOWN}
_IN_PROGRESS: Final = {PaymentStatus.PROCESSING, PaymentStatus.UNKNOWN}


class MoneyShop(ABC):
    """A shop with one provider. The method `ok` pays at once, `needs_action` after an action."""

    provider: str
    ok: str
    needs_action: str
    app: PaymentsApp

    @abstractmethod
    async def totals(self, payment: PaymentView) -> tuple[int, int, int]:
        """Return the number of charges at the provider, and the captured and refunded amounts."""

    @abstractmethod
    async def live_authorizations(self, payment: PaymentView) -> int:
        """Return how many authorizations of the payment can be captured at the provider."""

    @abstractmethod
    async def finish_action(self, operation_id: UUID) -> None:
        """Let the customer finish the required action."""

    @abstractmethod
    async def deliver_success(self, payment: PaymentView, operation_id: UUID) -> bool:
        """Deliver the webhook of the successful charge. Return whether it was a duplicate.

        At Stripe, first wait until the payment is charged. At the sandbox, deliver it at once.
        """

    @abstractmethod
    def fail(self, kind: OperationKind, *faults: ProviderFault) -> None:
        """Let the next requests of this kind fail, one for each fault."""

    @abstractmethod
    async def release_delayed(self) -> None:
        """Let the requests with the fault DELAYED_REQUEST take effect."""

    @abstractmethod
    def set_down(self, *, is_down: bool) -> None:
        """Begin or end an outage, in which no request reaches the provider."""

    async def paid(self, amount: int = 1999) -> PaymentView:
        payment = await self.app.confirm(await self.app.open(amount), self.ok)
        assert payment.status is PaymentStatus.CAPTURED
        return payment

    async def settle(self, *payments: PaymentView) -> list[PaymentView]:
        """Reconcile until no operation of the payments is open, at most five times."""
        for _ in range(5):
            await self.app.reconcile()
            if not [one for payment in payments for one in await self.open_operations(payment)]:
                break
        return [await self.app.current(payment) for payment in payments]

    async def operations(self, payment: PaymentView) -> list[OperationView]:
        page = await self.app.payment_api.list_operations(
            STAFF, payment.payment_id, PageQuery(limit=100)
        )
        return list(page.items)

    async def open_operations(self, payment: PaymentView) -> list[OperationView]:
        return [one for one in await self.operations(payment) if one.status in _OPEN]

    async def assert_agrees(self, *payments: PaymentView) -> None:
        """Check that no payment is in progress, and that the provider has the same amounts."""
        for payment in payments:
            now, (charges, captured, refunded) = (
                await self.app.current(payment),
                await self.totals(payment),
            )
            assert now.status not in _IN_PROGRESS
            assert not await self.open_operations(payment)
            assert charges <= 1
            assert (now.captured.amount, now.refunded.amount) == (captured, refunded)
        report = await self.app.ledger.verify(STAFF)
        assert report.intact, report.findings


class SandboxShop(MoneyShop):
    provider, ok, needs_action = "sandbox", "sandbox_ok", "sandbox_action_required"

    def __init__(self, app: PaymentsApp) -> None:
        self.app = app
        tools = GatewayTools(
            clock=app.clock,
            secret_key=SECRET,
            sandbox_ledger=app.sandbox_ledger,
            deliver_webhook=app.container.local_webhooks(),
            sleep=skip_sleep,
        )
        self._gateway = FaultySandbox(tools, SECRET)
        app.gateway = InterruptibleGateway(self._gateway)
        app.container.gateways.override(providers.Object([app.gateway]))

    async def totals(self, payment: PaymentView) -> tuple[int, int, int]:
        found = [
            await self.app.sandbox_ledger.get_charge(one.operation_id)
            for one in await self.operations(payment)
        ]
        charges = [charge for charge in found if charge and charge.captured]
        captured, refunded = (
            sum(charge.captured for charge in charges),
            sum(charge.refunded for charge in charges),
        )
        return len(charges), captured, refunded

    async def live_authorizations(self, payment: PaymentView) -> int:
        found = [
            await self.app.sandbox_ledger.get_charge(one.operation_id)
            for one in await self.operations(payment)
        ]
        return sum(charge is not None and charge.status == "authorized" for charge in found)

    async def finish_action(self, operation_id: UUID) -> None:
        """Change nothing, because the webhook of `deliver_success` finishes the action."""

    async def deliver_success(self, payment: PaymentView, operation_id: UUID) -> bool:
        return await self.app.send(operation_id, Succeeded("ch_1"))

    def fail(self, kind: OperationKind, *faults: ProviderFault) -> None:
        self._gateway.fail(kind, *faults)

    async def release_delayed(self) -> None:
        await self._gateway.release()

    def set_down(self, *, is_down: bool) -> None:
        self._gateway.is_down = is_down


class StripeShop(MoneyShop):
    provider, ok, needs_action = "stripe", OK, NEEDS_ACTION

    def __init__(self, app: StripeApp) -> None:
        self.app: PaymentsApp = app
        self._stripe, self._deliver = app.stripe, app.deliver

    async def totals(self, payment: PaymentView) -> tuple[int, int, int]:
        return self._stripe.totals(payment.payment_id)

    async def deliver_success(self, payment: PaymentView, operation_id: UUID) -> bool:
        return (await self._deliver(await self._success_event(payment))).duplicate

    async def live_authorizations(self, payment: PaymentView) -> int:
        return sum(
            intent["status"] == "requires_capture"
            and intent["metadata"].get("markethall_payment_id") == str(payment.payment_id)
            for intent in self._stripe.intents.values()
        )

    async def finish_action(self, operation_id: UUID) -> None:
        self._stripe.finish_action(self._stripe.intent_of(operation_id))

    def fail(self, kind: OperationKind, *faults: ProviderFault) -> None:
        self._stripe.fail(_STRIPE_NAMES[kind], *(STRIPE_FAULTS[fault] for fault in faults))

    async def release_delayed(self) -> None:
        await self._stripe.release()

    def set_down(self, *, is_down: bool) -> None:
        self._stripe.is_down = is_down

    async def _success_event(self, payment: PaymentView) -> dict[str, Any]:
        """Wait until Stripe has charged the payment. Raises TimeoutError."""
        async with asyncio.timeout(30):
            while not (found := self._find_success_event(payment)):
                await asyncio.sleep(0.001)
        return found

    def _find_success_event(self, payment: PaymentView) -> dict[str, Any] | None:
        for event in self._stripe.events:
            metadata = event["data"]["object"]["metadata"]
            is_about = metadata.get("markethall_payment_id") == str(payment.payment_id)
            if is_about and event["type"] == "payment_intent.succeeded":
                return event
        return None


@asynccontextmanager
async def open_money_shop(
    provider: str,
    storage: str,
    postgres: Postgres | None,
    timeout_seconds: float = 8,
    **settings: Any,
) -> AsyncIterator[MoneyShop]:
    """Open a shop with one provider. Its calls time out after `timeout_seconds`."""
    settings["payment_provider_timeout_seconds"] = timeout_seconds
    if provider == "sandbox":
        yield SandboxShop(build_payments_app(storage, postgres, **settings))
        return
    async with StripeServer() as server, stripe_app(storage, postgres, server, **settings) as app:
        yield StripeShop(app)


@asynccontextmanager
async def slow_postgres(database_url: str, latency: float) -> AsyncIterator[Postgres]:
    """Connect to the database with a latency of `latency` seconds in each direction."""
    async with AsyncExitStack() as stack:
        url = database_url
        if latency:
            url, proxy = await stack.enter_async_context(slow_connection_to(database_url, latency))
            await proxy.switch(Mode.DELAY)
        postgres = Postgres(url, POOL)
        stack.push_async_callback(postgres.close)
        yield postgres


async def run_concurrently(*calls: Awaitable[Any] | Iterable[Awaitable[Any]]) -> list[Any]:
    """Run all calls at once. Return the result or the exception of each call."""
    flat: list[Awaitable[Any]] = []
    for call in calls:
        flat.extend([call] if isinstance(call, Awaitable) else call)
    return await asyncio.gather(*flat, return_exceptions=True)
