"""Orders between the neighbours that it will really have, on memory and on Postgres."""

import json
from asyncio import gather
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from dependency_injector import providers

from markethall.container import LISTENERS as WIRED
from markethall.container import Container, build_container
from markethall.inventory.contract import Adjustment, NewProduct, OutOfStock, ReservationQuery
from markethall.keys import Secrets
from markethall.orders.contract import Orders, OrderStatus, OrderView, PaymentState
from markethall.orders.service import LISTENERS
from markethall.payments.contract import Payment, PaymentQuery, PaymentStatus
from markethall.settings import Settings, read_settings
from markethall.shared.clock import utc_now
from markethall.shared.errors import Unavailable
from markethall.shared.events import DirectPipe
from markethall.shared.http import MONEY, ok
from markethall.shared.idempotency import Answer, Attempt, Request
from markethall.shared.ids import new_id
from markethall.shared.metrics import STATEMENTS
from markethall.shared.steward import Relay
from markethall.shared.tokens import generate_key
from markethall.users.contract import Register
from tests.orders.conftest import CANCEL, HOLD, SHIP, STAFF, person, present, unkeyed, wanted
from tests.orders.neighbours import Cuts, TurnableClock, cut_off

CALLS = ["active", "reserve", "open"]
MOST_STATEMENTS = 12


@dataclass
class House:
    """The root container, a wire in front of each neighbour, and a clock to turn."""

    container: Container
    clock: TurnableClock
    cuts: Cuts = field(default_factory=Cuts)
    buyer: Any = None

    @property
    def orders(self) -> Orders:
        return self.container.orders()

    def wire_up(self) -> None:
        for provider in (
            self.container.users,
            self.container.inventory,
            self.container.payments,
        ):
            provider.override(providers.Object(cut_off(provider(), self.cuts)))

    async def open(self) -> None:
        name = f"buyer{new_id().hex[-8:]}"
        command = Register(username=name, email=f"{name}@example.com", password="a long enough one")
        account = await self.container.accounts().register(STAFF, command, unkeyed())
        self.buyer = person(account.user_id, "customer")

    async def product(self, stock: int) -> UUID:
        price = {"amount": 1000, "currency": "EUR"}
        body = {"sku": f"SKU-{new_id().hex}", "name": "A thing", "price": price}
        command = NewProduct.model_validate(body)
        product = await self.container.catalogue().create(STAFF, command, unkeyed())
        received = Adjustment(delta=stock, reason="received")
        await self.container.stockroom().adjust(STAFF, product.product_id, received, unkeyed())
        return product.product_id

    async def place(self, product_id: UUID, quantity: int = 2) -> OrderView:
        return await self.orders.place(self.buyer, wanted(product_id, quantity), unkeyed())

    async def place_with_key(self, product_id: UUID) -> Answer:
        command = wanted(product_id, 2)
        request = Request(self.buyer.actor.known_as, "POST", "/orders", "key", str(product_id))
        answer, _ = await self.container.orders_keys().once(
            request, MONEY, present, lambda attempt: self.orders.place(self.buyer, command, attempt)
        )
        return answer

    async def confirm(self, order: OrderView, method: str = "sandbox_ok") -> Payment:
        attempt = Attempt("", new_id(), MONEY, ok)
        payment_id = order.payment.payment_id
        return await self.container.payment_desk().confirm(self.buyer, payment_id, method, attempt)

    async def payment(self, order: OrderView) -> Payment:
        return await self.container.payment_desk().payment(STAFF, order.payment.payment_id)

    async def available(self, product_id: UUID) -> int:
        stock = await self.container.stockroom().stock(STAFF, product_id)
        return stock.available

    async def seen(self, order: OrderView) -> OrderView:
        return await self.orders.order(STAFF, order.order_id)

    async def sweep(self) -> None:
        for context in (self.container.orders_context, self.container.inventory_context):
            for sweep in context.sweeps():
                await sweep()

    async def settle(self) -> None:
        while await self._relayed() + await self._handled():
            pass

    async def _relayed(self) -> int:
        backend = self.container.orders_context.backend()
        names = {entry.event.type: [entry.handler] for entry in LISTENERS}
        pipe = DirectPipe(backend.inbox, names)
        sum_ = 0
        for context in (self.container.orders_context, self.container.payments_context):
            relay = Relay("test", [pipe], self.clock)
            async with context.backend().outbox.lead() as lead:
                sum_ += await relay.run_once(lead, 100)
        return sum_

    async def _handled(self) -> int:
        context: Any = self.container.orders_context
        lease = timedelta(seconds=30)
        deliveries = await context.backend().inbox.claim(self.clock(), lease, 16)
        for delivery in deliveries:
            await context.handlers()[delivery.handler](delivery, delivery.envelope.open())
        return len(deliveries)


@pytest.fixture(params=["memory", "sql"])
def settings(request: pytest.FixtureRequest) -> Settings:
    storage: str = request.param
    return read_settings(
        storage=storage,
        database_url=request.getfixturevalue("database_url") if storage == "sql" else "",
        hold_ttl=HOLD.total_seconds(),
        cache="off",
        # a busy machine takes its time
        database_timeout=30,
        deadline=60,
    )


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[House]:
    secrets = Secrets(
        secret=b"a secret of the tests" * 2, signing_key=generate_key(), service_key=generate_key()
    )
    house = House(build_container(settings, secrets), TurnableClock(utc_now()))
    house.container.clock.override(providers.Object(house.clock))
    house.wire_up()
    await house.open()
    yield house
    house.container.passwords().close()
    await house.container.pools().close()


async def test_an_order_is_placed_paid_shipped_and_delivered(house: House) -> None:
    product_id = await house.product(stock=5)

    order = await house.place(product_id)
    held = await house.available(product_id)
    paid = await house.confirm(order)
    await house.settle()
    processing = await house.seen(order)
    shipped = await house.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())
    await house.settle()
    await house.orders.deliver(STAFF, shipped.fulfilment_id, unkeyed())
    await house.settle()

    assert (held, paid.status) == (3, PaymentStatus.CAPTURED)
    assert (processing.status, processing.payment_status) == (
        OrderStatus.PROCESSING,
        PaymentState.PAID,
    )
    assert (await house.seen(order)).status is OrderStatus.COMPLETED
    stock = await house.container.stockroom().stock(STAFF, product_id)
    assert [(level.on_hand, level.reserved) for level in stock.warehouses] == [(3, 0)]


async def test_a_decline_leaves_the_order_payable(house: House) -> None:
    order = await house.place(await house.product(stock=5))

    await house.confirm(order, "sandbox_declined")
    await house.settle()
    failed = await house.seen(order)
    await house.confirm(order)
    await house.settle()

    assert (failed.status, failed.payment_status) == (OrderStatus.PENDING, PaymentState.FAILED)
    assert (await house.seen(order)).status is OrderStatus.PROCESSING


@pytest.mark.parametrize("paid", [False, True])
async def test_a_cancelled_order_gives_goods_and_money_back(house: House, paid: bool) -> None:
    product_id = await house.product(stock=5)
    order = await house.place(product_id)
    if paid:
        await house.confirm(order)
        await house.settle()

    await house.orders.cancel(house.buyer, order.order_id, CANCEL, unkeyed())
    await house.settle()

    payment = await house.payment(order)
    assert payment.refunded == payment.captured
    assert payment.status is (PaymentStatus.CAPTURED if paid else PaymentStatus.CANCELLED)
    assert await house.available(product_id) == 5
    state = PaymentState.REFUNDED if paid else PaymentState.NONE
    assert (await house.seen(order)).payment_status is state


async def test_an_unpaid_order_expires_and_gives_its_goods_back(house: House) -> None:
    product_id = await house.product(stock=5)
    order = await house.place(product_id)
    house.clock.now = order.expires_at

    await house.sweep()
    await house.settle()

    assert (await house.seen(order)).status is OrderStatus.EXPIRED
    assert (await house.payment(order)).status is PaymentStatus.CANCELLED
    assert await house.available(product_id) == 5


async def test_a_paid_order_whose_goods_are_gone_is_cancelled_and_refunded(house: House) -> None:
    product_id = await house.product(stock=2)
    order = await house.place(product_id)
    await house.confirm(order)
    house.clock.now += HOLD
    other = await house.place(product_id)

    await house.settle()

    after, payment = await house.seen(order), await house.payment(order)
    assert (after.status, after.payment_status) == (OrderStatus.CANCELLED, PaymentState.REFUNDED)
    assert payment.refunded == order.total
    assert (await house.seen(other)).status is OrderStatus.PENDING


async def test_the_last_ones_raced_by_fifty_sell_exactly_the_stock(house: House) -> None:
    product_id = await house.product(stock=5)

    answers = await gather(
        *(house.place(product_id, quantity=1) for _ in range(50)), return_exceptions=True
    )

    assert sum(isinstance(answer, OrderView) for answer in answers) == 5
    assert sum(isinstance(answer, OutOfStock) for answer in answers) == 45
    assert await house.available(product_id) == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(CALLS) + 1))
async def test_a_retry_after_a_neighbour_was_away_gives_the_one_order(
    house: House, number: int, when: str
) -> None:
    product_id = await house.product(stock=5)
    house.cuts.cut(number, when)

    with pytest.raises(Unavailable):
        await house.place_with_key(product_id)
    order_id = UUID(json.loads((await house.place_with_key(product_id)).body)["order_id"])

    assert house.cuts.made == [*CALLS[:number], *CALLS]
    assert await house.orders.count() == 1
    assert await house.container.payment_desk().count() == 1
    query = ReservationQuery(order_id=order_id)
    assert len((await house.container.stockroom().reservations(STAFF, query)).items) == 1
    payments = await house.container.payment_desk().payments(STAFF, PaymentQuery(order_id=order_id))
    assert len(payments.items) == 1
    assert await house.available(product_id) == 3


async def test_placing_an_order_costs_twelve_statements_at_most(house: House) -> None:
    product_id = await house.product(stock=5)
    await house.place(product_id)
    before = STATEMENTS._value.get()

    await house.place_with_key(product_id)

    assert STATEMENTS._value.get() - before <= MOST_STATEMENTS


def test_the_root_container_knows_every_listener_by_its_name() -> None:
    wired_up = {
        (event, handler)
        for event, listeners in WIRED.items()
        for context, handler in listeners
        if context == "orders"
    }

    assert wired_up == {(entry.event, entry.handler) for entry in LISTENERS}
