"""Orders with the real users, inventory and payments, in memory and on Postgres."""

import json
from asyncio import gather
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from dependency_injector import providers

from markethall.container import Container, build_container
from markethall.contexts import topology
from markethall.inventory.catalogue.contract.products import NewProduct
from markethall.inventory.contract import OutOfStock
from markethall.inventory.reservations.contract import ReservationQuery
from markethall.inventory.stock.contract.movements import Adjustment
from markethall.orders.contract import OrderPaymentStatus, Orders, OrderStatus, OrderView
from markethall.orders.service import EVENT_HANDLERS
from markethall.payments.contract import PaymentQuery, PaymentStatus, PaymentView
from markethall.secret_keys import ApplicationSecrets
from markethall.settings import Settings, read_settings
from markethall.shared.http.idempotent_routes import IDEMPOTENCY_RETENTION_EXTENDED, ok_response
from markethall.shared.idempotency.records import (
    IdempotentCommand,
    IdempotentRequest,
    StoredResponse,
)
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.outbox_relay import OutboxRelay
from markethall.shared.messaging.transports import InProcessTransport
from markethall.shared.observability.metrics import STATEMENTS
from markethall.shared.security.access_tokens import generate_private_key
from markethall.users.contract import Register
from tests.orders.conftest import (
    CANCEL,
    RESERVATION_TTL,
    SHIP,
    STAFF,
    attempt_without_key,
    order_command,
    to_response,
    user_context,
)
from tests.orders.fakes import CallFailures, FakeClock, with_failures

CALLS = ["get_active_customer", "reserve", "open"]
MAX_STATEMENTS = 12


@dataclass
class ContextsApp:
    """The root container, with failures of its calls and a controlled clock."""

    container: Container
    clock: FakeClock
    call_failures: CallFailures = field(default_factory=CallFailures)
    buyer: Any = None

    @property
    def orders(self) -> Orders:
        return self.container.orders()

    def connect_events(self) -> None:
        for provider in (
            self.container.users,
            self.container.inventory,
            self.container.payments,
        ):
            provider.override(providers.Object(with_failures(provider(), self.call_failures)))

    async def open(self) -> None:
        name = f"buyer{new_id().hex[-8:]}"
        command = Register(username=name, email=f"{name}@example.com", password="a long enough one")
        account = await self.container.accounts().register(STAFF, command, attempt_without_key())
        self.buyer = user_context(account.user_id, "customer")

    async def product(self, stock: int) -> UUID:
        price = {"amount": 1000, "currency": "EUR"}
        body = {"sku": f"SKU-{new_id().hex}", "name": "A thing", "price": price}
        command = NewProduct.model_validate(body)
        product = await self.container.catalogue().create(STAFF, command, attempt_without_key())
        received = Adjustment(delta=stock, reason="received")
        await self.container.stockroom().adjust(
            STAFF, product.product_id, received, attempt_without_key()
        )
        return product.product_id

    async def place(self, product_id: UUID, quantity: int = 2) -> OrderView:
        return await self.orders.place(
            self.buyer, order_command(product_id, quantity), attempt_without_key()
        )

    async def place_with_key(self, product_id: UUID) -> StoredResponse:
        command = order_command(product_id, 2)
        request = IdempotentRequest(
            self.buyer.actor.audit_name, "POST", "/orders", "key", str(product_id)
        )
        response, _ = await self.container.orders_idempotency().run(
            request,
            IDEMPOTENCY_RETENTION_EXTENDED,
            to_response,
            lambda attempt: self.orders.place(self.buyer, command, attempt),
        )
        return response

    async def confirm(self, order: OrderView, method: str = "sandbox_ok") -> PaymentView:
        attempt = IdempotentCommand("", new_id(), IDEMPOTENCY_RETENTION_EXTENDED, ok_response)
        payment_id = order.payment.payment_id
        return await self.container.payment_api().confirm(self.buyer, payment_id, method, attempt)

    async def payment(self, order: OrderView) -> PaymentView:
        return await self.container.payment_api().get_payment(STAFF, order.payment.payment_id)

    async def available(self, product_id: UUID) -> int:
        stock = await self.container.stockroom().get_stock(STAFF, product_id)
        return stock.available

    async def read_order(self, order: OrderView) -> OrderView:
        return await self.orders.get_order(STAFF, order.order_id)

    async def run_periodic_jobs(self) -> None:
        for context in (self.container.orders_context, self.container.inventory_context):
            for sweep in context.periodic_jobs():
                await sweep()

    async def process_events(self) -> None:
        while await self._relay_events() + await self._handle_events():
            pass

    async def _relay_events(self) -> int:
        persistence = self.container.orders_context.persistence()
        names = {entry.event.type: [entry.handler] for entry in EVENT_HANDLERS}
        transport = InProcessTransport(persistence.inbox, names)
        sum_ = 0
        for context in (self.container.orders_context, self.container.payments_context):
            relay = OutboxRelay("test", [transport], self.clock)
            async with context.persistence().outbox.acquire_leadership() as leader:
                sum_ += await relay.relay_batch(leader, 100)
        return sum_

    async def _handle_events(self) -> int:
        context: Any = self.container.orders_context
        lease = timedelta(seconds=30)
        deliveries = await context.persistence().inbox.claim(self.clock(), lease, 16)
        for delivery in deliveries:
            await context.handlers()[delivery.handler](delivery, delivery.envelope.decode())
        return len(deliveries)


@pytest.fixture(params=["memory", "sql"])
def settings(request: pytest.FixtureRequest) -> Settings:
    storage: str = request.param
    return read_settings(
        storage=storage,
        database_url=request.getfixturevalue("database_url") if storage == "sql" else "",
        reservation_ttl_seconds=RESERVATION_TTL.total_seconds(),
        cache="off",
        # a busy machine needs more time
        database_timeout=30,
        request_deadline_seconds=60,
    )


@pytest.fixture
async def contexts_app(settings: Settings) -> AsyncIterator[ContextsApp]:
    secrets = ApplicationSecrets(
        secret_key=b"a secret of the tests" * 2,
        access_token_private_key=generate_private_key(),
        service_token_private_key=generate_private_key(),
    )
    contexts_app = ContextsApp(build_container(settings, secrets), FakeClock(utc_now()))
    contexts_app.container.clock.override(providers.Object(contexts_app.clock))
    contexts_app.connect_events()
    await contexts_app.open()
    yield contexts_app
    contexts_app.container.passwords().close()
    await contexts_app.container.databases().close()


async def test_an_order_is_placed_paid_shipped_and_delivered(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)

    order = await contexts_app.place(product_id)
    held = await contexts_app.available(product_id)
    paid = await contexts_app.confirm(order)
    await contexts_app.process_events()
    processing = await contexts_app.read_order(order)
    shipped = await contexts_app.orders.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    await contexts_app.process_events()
    await contexts_app.orders.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())
    await contexts_app.process_events()

    assert (held, paid.status) == (3, PaymentStatus.CAPTURED)
    assert (processing.status, processing.payment_status) == (
        OrderStatus.PROCESSING,
        OrderPaymentStatus.PAID,
    )
    assert (await contexts_app.read_order(order)).status is OrderStatus.COMPLETED
    stock = await contexts_app.container.stockroom().get_stock(STAFF, product_id)
    assert [(level.on_hand, level.reserved) for level in stock.warehouses] == [(3, 0)]


async def test_a_decline_leaves_the_order_payable(contexts_app: ContextsApp) -> None:
    order = await contexts_app.place(await contexts_app.product(stock=5))

    await contexts_app.confirm(order, "sandbox_declined")
    await contexts_app.process_events()
    failed = await contexts_app.read_order(order)
    await contexts_app.confirm(order)
    await contexts_app.process_events()

    assert (failed.status, failed.payment_status) == (
        OrderStatus.PENDING,
        OrderPaymentStatus.FAILED,
    )
    assert (await contexts_app.read_order(order)).status is OrderStatus.PROCESSING


@pytest.mark.parametrize("paid", [False, True])
async def test_cancelled_order_releases_stock_and_refunds(
    contexts_app: ContextsApp, paid: bool
) -> None:
    product_id = await contexts_app.product(stock=5)
    order = await contexts_app.place(product_id)
    if paid:
        await contexts_app.confirm(order)
        await contexts_app.process_events()

    await contexts_app.orders.cancel(
        contexts_app.buyer, order.order_id, CANCEL, attempt_without_key()
    )
    await contexts_app.process_events()

    payment = await contexts_app.payment(order)
    assert payment.refunded == payment.captured
    assert payment.status is (PaymentStatus.CAPTURED if paid else PaymentStatus.CANCELLED)
    assert await contexts_app.available(product_id) == 5
    state = OrderPaymentStatus.REFUNDED if paid else OrderPaymentStatus.NONE
    assert (await contexts_app.read_order(order)).payment_status is state


async def test_unpaid_order_expires_and_releases_stock(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)
    order = await contexts_app.place(product_id)
    contexts_app.clock.now = order.expires_at

    await contexts_app.run_periodic_jobs()
    await contexts_app.process_events()

    assert (await contexts_app.read_order(order)).status is OrderStatus.EXPIRED
    assert (await contexts_app.payment(order)).status is PaymentStatus.CANCELLED
    assert await contexts_app.available(product_id) == 5


async def test_paid_order_without_stock_is_cancelled_and_refunded(
    contexts_app: ContextsApp,
) -> None:
    product_id = await contexts_app.product(stock=2)
    order = await contexts_app.place(product_id)
    await contexts_app.confirm(order)
    contexts_app.clock.now += RESERVATION_TTL
    other = await contexts_app.place(product_id)

    await contexts_app.process_events()

    after, payment = await contexts_app.read_order(order), await contexts_app.payment(order)
    assert (after.status, after.payment_status) == (
        OrderStatus.CANCELLED,
        OrderPaymentStatus.REFUNDED,
    )
    assert payment.refunded == order.total
    assert (await contexts_app.read_order(other)).status is OrderStatus.PENDING


async def test_fifty_concurrent_orders_sell_exactly_the_stock(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)

    responses = await gather(
        *(contexts_app.place(product_id, quantity=1) for _ in range(50)), return_exceptions=True
    )

    assert sum(isinstance(response, OrderView) for response in responses) == 5
    assert sum(isinstance(response, OutOfStock) for response in responses) == 45
    assert await contexts_app.available(product_id) == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(CALLS) + 1))
async def test_retry_after_unavailable_context_gives_one_order(
    contexts_app: ContextsApp, number: int, when: str
) -> None:
    product_id = await contexts_app.product(stock=5)
    contexts_app.call_failures.fail_call(number, when)

    with pytest.raises(Unavailable):
        await contexts_app.place_with_key(product_id)
    order_id = UUID(json.loads((await contexts_app.place_with_key(product_id)).body)["order_id"])

    assert contexts_app.call_failures.calls == [*CALLS[:number], *CALLS]
    assert await contexts_app.orders.count() == 1
    assert await contexts_app.container.payment_api().count() == 1
    query = ReservationQuery(order_id=order_id)
    assert (
        len((await contexts_app.container.reservations().list_reservations(STAFF, query)).items)
        == 1
    )
    payments = await contexts_app.container.payment_api().list_payments(
        STAFF, PaymentQuery(order_id=order_id)
    )
    assert len(payments.items) == 1
    assert await contexts_app.available(product_id) == 3


async def test_placing_order_takes_at_most_twelve_statements(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)
    await contexts_app.place(product_id)
    before = STATEMENTS._value.get()

    await contexts_app.place_with_key(product_id)

    assert STATEMENTS._value.get() - before <= MAX_STATEMENTS


def test_manifest_subscribes_every_handler() -> None:
    handlers = {entry.event.type: [entry.handler] for entry in EVENT_HANDLERS}

    assert topology().handler_keys("orders") == handlers
