"""Fixtures of orders: the container on each storage, with fakes of the other contexts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

import pytest

from markethall.contexts import topology
from markethall.event_workers import bind_event_handlers
from markethall.inventory.remote import GuardedInventory
from markethall.orders.container import OrdersContainer
from markethall.orders.contract import (
    CancelOrder,
    Fulfilments,
    FulfilOrder,
    Orders,
    OrderView,
    PlaceOrder,
    TimelineView,
)
from markethall.orders.service.event_handlers import OrderEventHandlers
from markethall.orders.settings import OrdersSettings
from markethall.payments.remote import GuardedPayments
from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.settings import read_one
from markethall.shared.http.idempotent_routes import (
    IDEMPOTENCY_RETENTION_EXTENDED,
    created_response,
)
from markethall.shared.idempotency.records import (
    IdempotentCommand,
    IdempotentRequest,
    StoredResponse,
)
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.call_context import Actor, CallContext, system_context
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.scopes import scopes_for_roles
from markethall.shared.messaging.events import Delivery, Event, EventHandler, RetryLater, wrap_event
from markethall.shared.messaging.outbox_relay import InProcessTransport, OutboxRelay
from markethall.shared.persistence.postgres import Postgres
from markethall.testing import context_tools
from markethall.users.remote import GuardedUsers
from tests.orders.fakes import (
    CallFailures,
    FakeClock,
    FakeInventory,
    FakePayments,
    FakeUsers,
    orders_guard,
    with_failures,
)

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
HANDLER_KEYS = topology().handler_keys("orders")
RESERVATION_TTL = timedelta(minutes=15)
CANCEL = CancelOrder(reason="changed my mind")
SHIP = FulfilOrder(carrier="DHL", tracking_number="JD01")
to_response = created_response(lambda made: f"/orders/{made.order_id}")


def user_context(user_id: UUID, *roles: str) -> CallContext:
    actor = Actor(user_id=user_id, roles=roles, scopes=scopes_for_roles(roles))
    return CallContext(actor=actor, request_id="test")


STAFF = user_context(new_id(), "staff")


def attempt_without_key(attempt_id: UUID | None = None) -> IdempotentCommand:
    return IdempotentCommand(
        "", attempt_id or new_id(), IDEMPOTENCY_RETENTION_EXTENDED, to_response
    )


def order_command(product_id: UUID, quantity: int = 1, **more: Any) -> PlaceOrder:
    line = {"product_id": product_id, "quantity": quantity}
    return PlaceOrder.model_validate({"lines": [line], "shipping_address": "Market 1", **more})


@dataclass
class OrdersApp:
    """The app under test, with its fakes, its clock and helpers."""

    container: OrdersContainer
    clock: FakeClock
    fake_users: FakeUsers
    fake_inventory: FakeInventory
    fake_payments: FakePayments
    call_failures: CallFailures
    buyer: CallContext = field(default_factory=lambda: user_context(new_id(), "customer"))
    initial_stock: int = 0

    @property
    def orders(self) -> Orders:
        return self.container.orders()

    @property
    def fulfilments(self) -> Fulfilments:
        return self.container.fulfilments()

    @property
    def idempotency(self) -> IdempotencyService:
        return self.container.idempotency()

    @property
    def persistence(self) -> ContextPersistence[Any]:
        return self.container.persistence()

    @property
    def event_handlers(self) -> OrderEventHandlers:
        return self.container.event_handlers()

    def stock_up(self, quantity: int = 5) -> UUID:
        """Add a product. Remember its stock for `assert_consistent`."""
        self.initial_stock = quantity
        return self.fake_inventory.add_product(quantity)

    def advance_clock(self, time: timedelta) -> None:
        self.clock.now += time

    async def place(self, product_id: UUID, quantity: int = 1, **more: Any) -> OrderView:
        return await self.orders.place(
            self.buyer, order_command(product_id, quantity, **more), attempt_without_key()
        )

    async def place_with_key(self, key: str, command: PlaceOrder) -> StoredResponse:
        """Place an order with an idempotency key, as the router does."""
        request = IdempotentRequest(
            principal=self.buyer.actor.audit_name,
            method="POST",
            path="/orders",
            key=key,
            payload=command.model_dump(mode="json"),
        )
        answer, _ = await self.idempotency.run(
            request,
            IDEMPOTENCY_RETENTION_EXTENDED,
            to_response,
            lambda attempt: self.orders.place(self.buyer, command, attempt),
        )
        return answer

    async def paid(self, product_id: UUID, quantity: int = 1) -> OrderView:
        """Place an order, capture its payment and process the events."""
        order = await self.place(product_id, quantity)
        self.fake_payments.capture(order.payment.payment_id)
        await self.process_events()
        return await self.read_order(order)

    async def read_order(self, order: OrderView) -> OrderView:
        return await self.orders.get_order(STAFF, order.order_id)

    async def read_timeline(self, order: OrderView) -> TimelineView:
        return await self.orders.get_timeline(STAFF, order.order_id)

    async def changes(self, order: OrderView) -> list[str]:
        return [entry.change for entry in (await self.read_timeline(order)).items]

    async def run_periodic_jobs(self) -> None:
        for sweep in self.container.periodic_jobs():
            await sweep()

    async def process_events(self, times: int = 1) -> None:
        """Process events until none is left. Deliver each event `times` times."""
        while await self._process_once(times):
            pass

    async def _process_once(self, times: int) -> bool:
        events, self.fake_payments.pending_events = self.fake_payments.pending_events, []
        for event in events:
            await self.receive_event(event)
        relayed = await self.relay()
        deliveries = await self.claim()
        for delivery in deliveries:
            for _ in range(times):
                await self.handle_or_retry_later(delivery)
        return bool(events or relayed or deliveries)

    async def receive_event(self, event: Event) -> None:
        """Write the event to the inbox, as an event transport does."""
        envelope = wrap_event(event, system_context("test"), self.clock())
        names = HANDLER_KEYS[event.type]
        await self.persistence.inbox.enqueue(names, [envelope])

    async def relay(self) -> int:
        """Relay the events of the `orders` context to its own inbox."""
        relay = OutboxRelay(
            "orders", [InProcessTransport(self.persistence.inbox, HANDLER_KEYS)], self.clock
        )
        async with self.persistence.outbox.acquire_leadership() as leader:
            assert leader
            return await relay.relay_batch(leader, 100)

    async def claim(self) -> Sequence[Delivery]:
        return await self.persistence.inbox.claim(self.clock(), timedelta(seconds=30), 16)

    @cached_property
    def handlers(self) -> dict[str, EventHandler]:
        return bind_event_handlers(
            "orders", topology().subscriptions["orders"], self.container.event_handlers()
        )

    async def handle(self, delivery: Delivery) -> None:
        await self.handlers[delivery.handler](delivery, delivery.envelope.decode())

    async def handle_or_retry_later(self, delivery: Delivery) -> None:
        try:
            await self.handle(delivery)
        except (RetryLater, Unavailable) as error:
            due_at = self.clock() + timedelta(seconds=1)
            await self.persistence.inbox.retry_later(delivery, repr(error), due_at)


@pytest.fixture(params=["memory", "sql"])
def orders_app(request: pytest.FixtureRequest) -> OrdersApp:
    storage: str = request.param
    postgres: Postgres | None = request.getfixturevalue("postgres") if storage == "sql" else None
    return build_orders_app(storage, postgres)


def build_orders_app(storage: str, postgres: Postgres | None) -> OrdersApp:
    clock = FakeClock(START)
    fake_users, fake_inventory, fake_payments, call_failures = (
        FakeUsers(),
        FakeInventory(clock),
        FakePayments(clock),
        CallFailures(),
    )
    users = GuardedUsers(with_failures(fake_users, call_failures), orders_guard("users"))
    inventory = GuardedInventory(
        with_failures(fake_inventory, call_failures), orders_guard("inventory")
    )
    payments = GuardedPayments(
        with_failures(fake_payments, call_failures), orders_guard("payments")
    )
    settings = read_one(
        OrdersSettings,
        {"storage": storage, "reservation_ttl_seconds": RESERVATION_TTL.total_seconds()},
    )
    container = OrdersContainer(
        settings=settings,
        tools=context_tools(clock=clock, postgres=postgres),
        users=users,
        inventory=inventory,
        payments=payments,
    )
    return OrdersApp(container, clock, fake_users, fake_inventory, fake_payments, call_failures)
