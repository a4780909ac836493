"""The `orders` context with the three real contexts that it calls, on each storage."""

import json
from asyncio import gather
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from markethall.container import ApplicationContainer
from markethall.contexts import topology
from markethall.event_workers import bind_event_handlers
from markethall.inventory.catalogue.contract.products import NewProduct
from markethall.inventory.contract import OutOfStock
from markethall.inventory.reservations.contract import ReservationQuery
from markethall.inventory.stock.contract import Adjustment
from markethall.orders.contract import (
    Fulfilments,
    OrderPaymentStatus,
    Orders,
    OrderStatus,
    OrderView,
)
from markethall.payments.contract import PaymentStatus, UnknownPaymentMethod
from markethall.payments.contract.api import PaymentQuery, PaymentView
from markethall.payments.contract.errors import PaymentNotFound
from markethall.payments.domain.operation import Succeeded
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks
from markethall.secret_keys import ApplicationSecrets
from markethall.settings import Settings, read_settings
from markethall.shared.http.idempotent_routes import IDEMPOTENCY_RETENTION_EXTENDED, ok_response
from markethall.shared.idempotency.records import (
    IdempotentCommand,
    IdempotentRequest,
    StoredResponse,
)
from markethall.shared.kernel.clock import Clock, utc_now
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.messaging.outbox_relay import InProcessTransport, OutboxRelay
from markethall.shared.observability.metrics import STATEMENTS
from markethall.shared.security.access_tokens import generate_private_key
from markethall.users.contract import Register
from tests.containers import inventory_of, orders_of, payments_of, users_of
from tests.orders.conftest import (
    CANCEL,
    HANDLER_KEYS,
    RESERVATION_TTL,
    SHIP,
    STAFF,
    attempt_without_key,
    order_command,
    to_response,
    user_context,
)
from tests.orders.fakes import CallFailures, FakeClock, with_failures

CALLS = ["get_active_customer", "reserve", "open", "activate"]
MAX_STATEMENTS = 12


class FailingCallsContainer(ApplicationContainer):
    """The root container. Calls between contexts can fail."""

    def __init__(self, settings: Settings, secrets: ApplicationSecrets, clock: Clock) -> None:
        self.call_failures = CallFailures()
        super().__init__(settings, secrets, clock=clock)

    def internal_service(self, target: str, caller: str) -> Any:
        return with_failures(super().internal_service(target, caller), self.call_failures)


@dataclass
class ContextsApp:
    """The app under test, with call failures and a test clock."""

    container: "FailingCallsContainer"
    clock: FakeClock
    buyer: Any = None

    @property
    def call_failures(self) -> CallFailures:
        return self.container.call_failures

    @property
    def orders(self) -> Orders:
        return orders_of(self.container).orders()

    @property
    def fulfilments(self) -> Fulfilments:
        return orders_of(self.container).fulfilments()

    async def open(self) -> None:
        name = f"buyer{new_id().hex[-8:]}"
        command = Register(username=name, email=f"{name}@example.com", password="a long enough one")
        account = (
            await users_of(self.container)
            .accounts()
            .register(STAFF, command, attempt_without_key())
        )
        self.buyer = user_context(account.user_id, "customer")

    async def product(self, stock: int, price: int = 1000) -> UUID:
        money = {"amount": price, "currency": "EUR"}
        body = {"sku": f"SKU-{new_id().hex}", "name": "A thing", "price": money}
        command = NewProduct.model_validate(body)
        product = (
            await inventory_of(self.container)
            .catalogue()
            .create(STAFF, command, attempt_without_key())
        )
        received = Adjustment(delta=stock, reason="received")
        await (
            inventory_of(self.container)
            .stockroom()
            .adjust(STAFF, product.product_id, received, attempt_without_key())
        )
        return product.product_id

    async def place(self, product_id: UUID, quantity: int = 2, **more: Any) -> OrderView:
        return await self.orders.place(
            self.buyer, order_command(product_id, quantity, **more), attempt_without_key()
        )

    async def place_with_key(self, product_id: UUID) -> StoredResponse:
        command = order_command(product_id, 2)
        request = IdempotentRequest(
            self.buyer.actor.audit_name, "POST", "/orders", "key", str(product_id)
        )
        response, _ = (
            await orders_of(self.container)
            .idempotency()
            .run(
                request,
                IDEMPOTENCY_RETENTION_EXTENDED,
                to_response,
                lambda attempt: self.orders.place(self.buyer, command, attempt),
            )
        )
        return response

    async def confirm(self, order: OrderView, method: str = "sandbox_ok") -> PaymentView:
        return await self.confirm_payment(order.payment.payment_id, method)

    async def confirm_payment(self, payment_id: UUID, method: str = "sandbox_ok") -> PaymentView:
        attempt = IdempotentCommand("", new_id(), IDEMPOTENCY_RETENTION_EXTENDED, ok_response)
        return (
            await payments_of(self.container)
            .payment_api()
            .confirm(self.buyer, payment_id, method, attempt)
        )

    async def payment(self, order: OrderView) -> PaymentView:
        return (
            await payments_of(self.container)
            .payment_api()
            .get_payment(STAFF, order.payment.payment_id)
        )

    async def available(self, product_id: UUID) -> int:
        stock = await inventory_of(self.container).stockroom().get_stock(STAFF, product_id)
        return stock.available

    async def read_order(self, order: OrderView) -> OrderView:
        return await self.orders.get_order(STAFF, order.order_id)

    async def run_periodic_jobs(self) -> None:
        for context in (orders_of(self.container), inventory_of(self.container)):
            for sweep in context.periodic_jobs():
                await sweep()

    async def process_events(self, *, streams_available: bool = True) -> None:
        """Process all events.

        If `streams_available` is false, the events of the `payments` context do not arrive.
        """
        while await self._relay_events(streams_available) + await self._handle_events():
            pass

    async def _relay_events(self, streams_available: bool) -> int:
        persistence = orders_of(self.container).persistence()
        transport = InProcessTransport(persistence.inbox, HANDLER_KEYS)
        sum_ = 0
        orders, payments = orders_of(self.container), payments_of(self.container)
        for context in (orders, payments) if streams_available else (orders,):
            relay = OutboxRelay("test", [transport], self.clock)
            async with context.persistence().outbox.acquire_leadership() as leader:
                assert leader
                sum_ += await relay.relay_batch(leader, 100)
        return sum_

    async def _handle_events(self) -> int:
        orders = orders_of(self.container)
        handlers = bind_event_handlers(
            "orders", topology().subscriptions["orders"], orders.event_handlers()
        )
        lease = timedelta(seconds=30)
        deliveries = await orders.persistence().inbox.claim(self.clock(), lease, 16)
        for delivery in deliveries:
            await handlers[delivery.handler](delivery, delivery.envelope.decode())
        return len(deliveries)


@pytest.fixture(params=["memory", "sql"])
def settings(request: pytest.FixtureRequest) -> Settings:
    storage: str = request.param
    return read_settings(
        storage=storage,
        database_url=request.getfixturevalue("database_url") if storage == "sql" else "",
        reservation_ttl_seconds=RESERVATION_TTL.total_seconds(),
        cache="off",
        # long timeouts, because the test machine may be busy
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
    clock = FakeClock(utc_now())
    contexts_app = ContextsApp(FailingCallsContainer(settings, secrets, clock), clock)
    await contexts_app.open()
    yield contexts_app
    await contexts_app.container.close()


async def test_an_order_is_placed_paid_shipped_and_delivered(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)

    order = await contexts_app.place(product_id)
    held = await contexts_app.available(product_id)
    paid = await contexts_app.confirm(order)
    await contexts_app.process_events()
    processing = await contexts_app.read_order(order)
    shipped = await contexts_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    await contexts_app.process_events()
    await contexts_app.fulfilments.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())
    await contexts_app.process_events()

    assert (held, paid.status) == (3, PaymentStatus.CAPTURED)
    assert (processing.status, processing.payment_status) == (
        OrderStatus.PROCESSING,
        OrderPaymentStatus.PAID,
    )
    assert (await contexts_app.read_order(order)).status is OrderStatus.COMPLETED
    stock = await inventory_of(contexts_app.container).stockroom().get_stock(STAFF, product_id)
    assert [(level.on_hand, level.reserved) for level in stock.warehouses] == [(3, 0)]


async def test_order_is_refused_if_its_payment_method_is_not_offered(
    contexts_app: ContextsApp,
) -> None:
    product_id = await contexts_app.product(stock=5)

    for method in ("sandbox_unheard_of", "free", str(new_id())):
        with pytest.raises(UnknownPaymentMethod) as refused:
            await contexts_app.place(product_id, payment_method=method)
        assert refused.value.details == {"payment_method": method}
    assert await contexts_app.available(product_id) == 5

    order = await contexts_app.place(product_id, payment_method="sandbox_declined")
    # another method may be named to confirm
    assert (await contexts_app.confirm(order)).status is PaymentStatus.CAPTURED


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


async def test_confirm_before_order_is_committed_is_not_found(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)
    contexts_app.call_failures.fail_call(3, "after")
    with pytest.raises(Unavailable):
        await contexts_app.place_with_key(product_id)
    api = payments_of(contexts_app.container).payment_api()
    (payment,) = (await api.list_payments(contexts_app.buyer, PaymentQuery())).items

    with pytest.raises(PaymentNotFound):
        await contexts_app.confirm_payment(payment.payment_id)
    order = OrderView.model_validate_json((await contexts_app.place_with_key(product_id)).body)
    paid = await contexts_app.confirm(order)

    assert payment.payment_id == paid.payment_id
    assert paid.status is PaymentStatus.CAPTURED
    assert paid.captured == order.total


async def test_paid_orders_know_it_within_a_minute_without_streams(
    contexts_app: ContextsApp,
) -> None:
    """No event of `payments` arrives, so `orders` must ask `payments` for the statuses."""
    product_id, placed = await contexts_app.product(stock=45), []
    for _ in range(3):
        await contexts_app.open()
        for _ in range(15):
            placed.append((contexts_app.buyer, await contexts_app.place(product_id, quantity=1)))
            contexts_app.clock.now += timedelta(seconds=7)
            await contexts_app.run_periodic_jobs()
    for contexts_app.buyer, order in placed:
        await contexts_app.confirm(order)
    paid_at, calls = contexts_app.clock.now, len(contexts_app.call_failures.calls)

    while contexts_app.clock.now < paid_at + timedelta(seconds=60):
        contexts_app.clock.now += timedelta(seconds=1)
        await contexts_app.run_periodic_jobs()
        await contexts_app.process_events(streams_available=False)
    within_a_minute = [await contexts_app.read_order(order) for _, order in placed]
    asked = contexts_app.call_failures.calls[calls:].count("activate")
    contexts_app.clock.now += RESERVATION_TTL
    await contexts_app.run_periodic_jobs()
    await contexts_app.process_events()

    assert {(order.status, order.payment_status) for order in within_a_minute} == {
        (OrderStatus.PROCESSING, OrderPaymentStatus.PAID)
    }
    assert asked <= len(placed)
    assert await contexts_app.available(product_id) == 0
    assert [await contexts_app.read_order(order) for _, order in placed] == within_a_minute


@pytest.mark.parametrize("paid", [False, True])
async def test_cancelled_free_order_is_voided(contexts_app: ContextsApp, paid: bool) -> None:
    """If `paid` is false, the order is cancelled before the event of its payment is processed."""
    order = await contexts_app.place(await contexts_app.product(stock=5, price=0))
    payment = await contexts_app.confirm(order, "free")
    if paid:
        await contexts_app.process_events()

    await contexts_app.orders.cancel(
        contexts_app.buyer, order.order_id, CANCEL, attempt_without_key()
    )
    await contexts_app.process_events()

    after = await contexts_app.read_order(order)
    assert payment.status is PaymentStatus.CAPTURED
    assert (after.status, after.payment_status) == (
        OrderStatus.CANCELLED,
        OrderPaymentStatus.VOIDED,
    )


@pytest.mark.parametrize("cancelled", [False, True])
async def test_action_finished_at_the_provider_pays_or_is_refunded(
    contexts_app: ContextsApp, cancelled: bool
) -> None:
    order = await contexts_app.place(await contexts_app.product(stock=5))
    payments = payments_of(contexts_app.container)
    await contexts_app.confirm(order, "sandbox_action_required")
    if cancelled:
        await contexts_app.orders.cancel(
            contexts_app.buyer, order.order_id, CANCEL, attempt_without_key()
        )
    await contexts_app.process_events()
    operations = await payments.payment_api().list_operations(
        STAFF, order.payment.payment_id, PageQuery()
    )
    headers, body = SandboxWebhooks(payments.tools().secret_key).build_signed_event(
        operations.items[0].operation_id, Succeeded("ch_1"), contexts_app.clock()
    )

    await payments.payment_api().receive_webhook(STAFF, "sandbox", headers, body)
    await contexts_app.process_events()

    payment, after = await contexts_app.payment(order), await contexts_app.read_order(order)
    timeline = await contexts_app.orders.get_timeline(STAFF, order.order_id)
    changes = [entry.change for entry in timeline.items]
    assert payment.captured == order.total
    if cancelled:
        assert (payment.refunded, after.status) == (order.total, OrderStatus.CANCELLED)
        assert after.payment_status is OrderPaymentStatus.REFUNDED
        assert changes[-2:] == ["late_payment", "payment_refunded"]
    else:
        assert after.status is OrderStatus.PROCESSING
        assert changes == ["placed", "payment_requires_action", "paid"]


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
    assert await payments_of(contexts_app.container).payment_api().count() == 1
    query = ReservationQuery(order_id=order_id)
    assert (
        len(
            (
                await inventory_of(contexts_app.container)
                .reservations()
                .list_reservations(STAFF, query)
            ).items
        )
        == 1
    )
    payments = (
        await payments_of(contexts_app.container)
        .payment_api()
        .list_payments(STAFF, PaymentQuery(order_id=order_id))
    )
    assert len(payments.items) == 1
    assert await contexts_app.available(product_id) == 3


async def test_placing_order_takes_at_most_twelve_statements(contexts_app: ContextsApp) -> None:
    product_id = await contexts_app.product(stock=5)
    await contexts_app.place(product_id)
    before = STATEMENTS._value.get()

    await contexts_app.place_with_key(product_id)

    assert STATEMENTS._value.get() - before <= MAX_STATEMENTS
