"""The orders context on every storage, between neighbours that keep their promises."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from dependency_injector import providers

from markethall.inventory.contract import Inventory
from markethall.orders.container import OrdersContainer
from markethall.orders.contract import (
    CancelOrder,
    FulfilOrder,
    Orders,
    OrderView,
    PlaceOrder,
    Timeline,
)
from markethall.orders.service import LISTENERS, OrderListeners
from markethall.payments.contract import Payments
from markethall.shared.auth import scopes_of
from markethall.shared.backend import Backend
from markethall.shared.call import Actor, Call, system_call
from markethall.shared.db import Postgres
from markethall.shared.errors import Unavailable
from markethall.shared.events import Delivery, DirectPipe, Event, sealed
from markethall.shared.http import MONEY, created
from markethall.shared.idempotency import Answer, Attempt, Keys, Request
from markethall.shared.ids import new_id
from markethall.shared.pages import Cursors
from markethall.shared.steward import Relay
from markethall.topology import Context
from markethall.users.contract import Users
from tests.orders.neighbours import Cuts, People, Shelf, Till, TurnableClock, wired

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOLD = timedelta(minutes=15)
CANCEL = CancelOrder(reason="changed my mind")
SHIP = FulfilOrder(carrier="DHL", tracking_number="JD01")
present = created(lambda made: f"/orders/{made.order_id}")


def person(user_id: UUID, *roles: str) -> Call:
    actor = Actor(user_id=user_id, roles=roles, scopes=scopes_of(roles))
    return Call(actor=actor, request_id="test")


STAFF = person(new_id(), "staff")


def unkeyed(attempt_id: UUID | None = None) -> Attempt:
    return Attempt("", attempt_id or new_id(), MONEY, present)


def wanted(product_id: UUID, quantity: int = 1, **more: Any) -> PlaceOrder:
    line = {"product_id": product_id, "quantity": quantity}
    return PlaceOrder.model_validate({"lines": [line], "shipping_address": "Market 1", **more})


@dataclass
class Hall:
    """What a test asks, and the few things it has to hand."""

    container: OrdersContainer
    clock: TurnableClock
    people: People
    shelf: Shelf
    till: Till
    cuts: Cuts
    buyer: Call = field(default_factory=lambda: person(new_id(), "customer"))
    stocked: int = 0

    @property
    def orders(self) -> Orders:
        return self.container.orders()

    @property
    def keys(self) -> Keys:
        return self.container.keys()

    @property
    def backend(self) -> Backend[Any]:
        return self.container.backend()

    @property
    def listeners(self) -> OrderListeners:
        return self.container.listeners()

    def stock_up(self, quantity: int = 5) -> UUID:
        """A product, whose stock the test will come back to."""
        self.stocked = quantity
        return self.shelf.stock(quantity)

    def later(self, time: timedelta) -> None:
        self.clock.now += time

    async def place(self, product_id: UUID, quantity: int = 1, **more: Any) -> OrderView:
        return await self.orders.place(self.buyer, wanted(product_id, quantity, **more), unkeyed())

    async def place_with_key(self, key: str, command: PlaceOrder) -> Answer:
        """As a request with an Idempotency-Key does it."""
        request = Request(
            principal=self.buyer.actor.known_as,
            method="POST",
            path="/orders",
            key=key,
            payload=command.model_dump(mode="json"),
        )
        answer, _ = await self.keys.once(
            request, MONEY, present, lambda attempt: self.orders.place(self.buyer, command, attempt)
        )
        return answer

    async def paid(self, product_id: UUID, quantity: int = 1) -> OrderView:
        """An order whose money has come, and whose goods are committed."""
        order = await self.place(product_id, quantity)
        self.till.capture(order.payment.payment_id)
        await self.settle()
        return await self.seen(order)

    async def seen(self, order: OrderView) -> OrderView:
        return await self.orders.order(STAFF, order.order_id)

    async def told(self, order: OrderView) -> Timeline:
        return await self.orders.timeline(STAFF, order.order_id)

    async def changes(self, order: OrderView) -> list[str]:
        return [entry.change for entry in (await self.told(order)).items]

    async def sweep(self) -> None:
        for sweep in self.container.sweeps():
            await sweep()

    async def settle(self, times: int = 1) -> None:
        """Until no event is on its way. Each handler runs so many times for each delivery."""
        while await self._move_on(times):
            pass

    async def _move_on(self, times: int) -> bool:
        news, self.till.news = self.till.news, []
        for event in news:
            await self.hear(event)
        relayed = await self.relay()
        deliveries = await self.claim()
        for delivery in deliveries:
            for _ in range(times):
                await self.handle_or_postpone(delivery)
        return bool(news or relayed or deliveries)

    async def hear(self, event: Event) -> None:
        """The pipe brings it."""
        envelope = sealed(event, system_call("test"), self.clock())
        names = [entry.handler for entry in LISTENERS if entry.event is type(event)]
        await self.backend.inbox.accept(names, [envelope])

    async def relay(self) -> int:
        """Our own events to our own inbox, as the root container wires it."""
        handlers: dict[str, Sequence[str]] = {
            entry.event.type: [entry.handler] for entry in LISTENERS
        }
        relay = Relay("orders", [DirectPipe(self.backend.inbox, handlers)], self.clock)
        async with self.backend.outbox.lead() as lead:
            assert lead
            return await relay.run_once(lead, 100)

    async def claim(self) -> Sequence[Delivery]:
        return await self.backend.inbox.claim(self.clock(), timedelta(seconds=30), 16)

    async def handle(self, delivery: Delivery) -> None:
        await self.container.handlers()[delivery.handler](delivery, delivery.envelope.open())

    async def handle_or_postpone(self, delivery: Delivery) -> None:
        try:
            await self.handle(delivery)
        except Unavailable as error:
            due_at = self.clock() + timedelta(seconds=1)
            await self.backend.inbox.postpone(delivery, repr(error), due_at)


@pytest.fixture(params=["memory", "sql"])
def hall(request: pytest.FixtureRequest) -> Hall:
    storage: str = request.param
    postgres: Postgres | None = request.getfixturevalue("postgres") if storage == "sql" else None
    clock = TurnableClock(START)
    people, shelf, till, cuts = People(), Shelf(clock), Till(clock), Cuts()
    users: Users = wired(people, cuts, Context.USERS)
    inventory: Inventory = wired(shelf, cuts, Context.INVENTORY)
    payments: Payments = wired(till, cuts, Context.PAYMENTS)
    container = OrdersContainer(
        config={
            "storage": storage,
            "idempotency_lease": 15.0,
            "hold_ttl": HOLD.total_seconds(),
        },
        postgres=providers.Object(postgres),
        clock=providers.Object(clock),
        cursors=providers.Object(Cursors(b"a secret of the tests")),
        users=providers.Object(users),
        inventory=providers.Object(inventory),
        payments=providers.Object(payments),
    )
    return Hall(container, clock, people, shelf, till, cuts)
