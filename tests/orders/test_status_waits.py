"""Requests that wait for a change of an order: the end of the wait, and the resources it takes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from markethall.orders.contract import (
    OrderNotFound,
    OrderStatus,
    OrderView,
    VersionedOrderStatus,
)
from markethall.orders.service.status_waits import MAX_WAITS, MAX_WAITS_PER_CLIENT, StatusWaits
from markethall.shared.cache.invalidation_bus import PostgresChannel
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.held_slots import HELD_SLOTS
from markethall.shared.kernel.ids import new_id
from markethall.shared.observability.metrics import STATEMENTS
from markethall.shared.persistence.postgres import Postgres
from tests.orders.conftest import (
    CANCEL,
    STAFF,
    OrdersApp,
    attempt_without_key,
    build_orders_app,
    user_context,
)
from tests.shared.cache_fixtures import until

# seconds; longer than any test, so that only a change ends the wait
LONG = 600.0


def waits_of(orders_app: OrdersApp) -> StatusWaits:
    return orders_app.container.status_waits()


def waiting(orders_app: OrdersApp) -> int:
    """Return the number of requests that have read the order and wait for a change."""
    return sum(
        wait.version is not None
        for waits in waits_of(orders_app)._by_order.values()
        for wait in waits
    )


async def placed(orders_app: OrdersApp) -> OrderView:
    return await orders_app.place(orders_app.stock_up(), 2)


async def pay(orders_app: OrdersApp, order: OrderView) -> None:
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()


def start_wait(
    orders_app: OrdersApp,
    order: OrderView,
    seconds: float = LONG,
    known: int | None = None,
    ctx: CallContext | None = None,
) -> "asyncio.Task[VersionedOrderStatus]":
    is_known = None if known is None else lambda version: version == known
    return asyncio.create_task(
        orders_app.orders.wait_for_order_status(
            ctx or orders_app.buyer, order.order_id, seconds, is_known
        )
    )


@asynccontextmanager
async def waits(orders_app: OrdersApp, *tasks: "asyncio.Task[Any]") -> AsyncIterator[None]:
    """Run the block when all these requests wait. Afterwards, wait for their responses."""
    await until(lambda: waiting(orders_app) == len(tasks))
    yield
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)


async def test_capture_ends_the_wait_for_a_pending_order(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    wait = start_wait(orders_app, order)
    async with waits(orders_app, wait):
        await pay(orders_app, order)

    assert (await wait).status.status is OrderStatus.PROCESSING


async def test_change_of_a_pending_order_does_not_end_its_wait(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    wait = start_wait(orders_app, order)
    async with waits(orders_app, wait):
        orders_app.fake_payments.decline(order.payment.payment_id)
        await orders_app.process_events()
        await until(lambda: waiting(orders_app) == 1)
        await pay(orders_app, order)

    assert (await wait).status.status is OrderStatus.PROCESSING


async def test_any_change_ends_the_wait_of_a_client_that_knows_the_version(
    orders_app: OrdersApp,
) -> None:
    order = await placed(orders_app)

    wait = start_wait(orders_app, order, known=order.version)
    async with waits(orders_app, wait):
        orders_app.fake_payments.decline(order.payment.payment_id)
        await orders_app.process_events()

    found = await wait
    assert (found.status.status, found.version) == (OrderStatus.PENDING, order.version + 1)


async def test_news_is_returned_at_once(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    changed = await start_wait(orders_app, order, known=order.version - 1)
    await pay(orders_app, order)
    paid = await start_wait(orders_app, order)

    assert changed.version == order.version
    assert paid.status.status is OrderStatus.PROCESSING


async def test_status_is_returned_when_the_time_is_over(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    found = await start_wait(orders_app, order, seconds=0.01, known=order.version)

    assert found.version == order.version
    assert waits_of(orders_app)._by_order == {}


async def test_order_of_another_customer_is_not_found(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    with pytest.raises(OrderNotFound):
        await start_wait(orders_app, order, ctx=user_context(new_id(), "customer"))

    assert waits_of(orders_app)._by_client == {}


async def test_change_during_the_first_read_is_not_missed(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    wait = start_wait(orders_app, order)
    await pay(orders_app, order)  # the request has not read the order yet

    async with asyncio.timeout(60):
        assert (await wait).status.status is OrderStatus.PROCESSING


async def cancel(orders_app: OrdersApp, order: OrderView) -> None:
    await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())


async def expire(orders_app: OrdersApp, order: OrderView) -> None:
    orders_app.clock.now = order.expires_at
    await orders_app.run_periodic_jobs()


@pytest.mark.parametrize("change", [pay, cancel, expire])
async def test_every_way_to_change_an_order_ends_the_wait(
    orders_app: OrdersApp, change: Callable[[OrdersApp, OrderView], Awaitable[None]]
) -> None:
    order = await placed(orders_app)

    wait = start_wait(orders_app, order)
    async with waits(orders_app, wait):
        await change(orders_app, order)

    assert (await wait).status.status is not OrderStatus.PENDING


async def test_customer_beyond_the_limit_gets_the_status_at_once(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    tasks = [start_wait(orders_app, order) for _ in range(MAX_WAITS_PER_CLIENT)]

    async with waits(orders_app, *tasks):
        beyond = await start_wait(orders_app, order)
        by_staff = start_wait(orders_app, order, ctx=STAFF)
        await until(lambda: waiting(orders_app) == MAX_WAITS_PER_CLIENT + 1)
        await pay(orders_app, order)

    assert beyond.status.status is OrderStatus.PENDING
    assert (await by_staff).status.status is OrderStatus.PROCESSING
    assert waits_of(orders_app)._by_client == {}


async def test_waits_are_limited_in_total(orders_app: OrdersApp) -> None:
    status_waits, order_id = waits_of(orders_app), new_id()
    registrations = [status_waits.register(order_id, new_id(), LONG) for _ in range(MAX_WAITS + 1)]

    found = [registration.__enter__() for registration in registrations]
    for registration in registrations:
        registration.__exit__(None, None, None)

    assert [wait is None for wait in found] == [False] * MAX_WAITS + [True]


async def test_shutdown_ends_all_waits_and_allows_no_other(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    tasks = [start_wait(orders_app, order) for _ in range(2)]

    async with waits(orders_app, *tasks):
        for end in orders_app.container.on_drain():
            end()
    later = await start_wait(orders_app, order)

    found = [await task for task in tasks] + [later]
    assert {each.status.status for each in found} == {OrderStatus.PENDING}


@pytest.mark.parametrize("orders_app", ["sql"], indirect=True)
async def test_poll_finds_a_change_that_the_bus_has_lost(
    orders_app: OrdersApp, postgres: Postgres
) -> None:
    """`other` stands for another process. It does not listen to the invalidation bus."""
    other = build_orders_app("sql", postgres)
    other.buyer = orders_app.buyer
    order = await placed(orders_app)

    wait = start_wait(other, order)
    async with waits(other, wait):
        await pay(orders_app, order)
        assert waiting(other) == 1
        await waits_of(other).poll()

    assert (await wait).status.status is OrderStatus.PROCESSING


@pytest.mark.parametrize("orders_app", ["sql"], indirect=True)
async def test_waiting_takes_one_statement_a_poll_for_all_requests_and_no_connection(
    orders_app: OrdersApp, postgres: Postgres
) -> None:
    orders = [await placed(orders_app) for _ in range(3)]
    before = STATEMENTS._value.get()
    tasks = [start_wait(orders_app, order) for order in orders]

    async with waits(orders_app, *tasks):
        started = STATEMENTS._value.get()
        held = postgres.connections_in_use
        await waits_of(orders_app).poll()
        polled = STATEMENTS._value.get()
        waits_of(orders_app).end()

    assert started - before == len(tasks)  # each request reads the status once
    assert polled - started == 1
    assert held == 0


@pytest.mark.parametrize("orders_app", ["sql"], indirect=True)
async def test_poll_without_waits_runs_no_statement(orders_app: OrdersApp) -> None:
    before = STATEMENTS._value.get()

    await waits_of(orders_app).poll()

    assert STATEMENTS._value.get() == before


class Slots:
    """A fake of the concurrency slots of a request. It records each release and acquisition."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def leave(self) -> None:
        self.calls.append("leave")

    async def enter(self) -> None:
        self.calls.append("enter")

    def leave_shared(self) -> None:
        self.calls.append("leave shared")


async def test_slots_are_returned_while_waiting(orders_app: OrdersApp) -> None:
    order, slots = await placed(orders_app), Slots()

    token = HELD_SLOTS.set(slots)
    wait = start_wait(orders_app, order)
    HELD_SLOTS.reset(token)
    async with waits(orders_app, wait):
        before = list(slots.calls)
        await pay(orders_app, order)

    assert (before, slots.calls) == (["leave"], ["leave", "enter"])


def is_listening(orders_app: OrdersApp) -> bool:
    bus = orders_app.container.bus()
    assert bus is not None
    assert isinstance(bus._channel, PostgresChannel)
    return bus._channel._notifications._listening is not None


@pytest.mark.parametrize("orders_app", ["sql"], indirect=True)
async def test_bus_wakes_requests_of_another_process(
    orders_app: OrdersApp, postgres: Postgres
) -> None:
    """`other` stands for another process: it has its own container, but the same database."""
    other = build_orders_app("sql", postgres)
    other.buyer = orders_app.buyer
    order = await placed(orders_app)
    # only the bus may end the wait, so the poll, which is the first background task, is not started
    listeners = [
        asyncio.create_task(task())
        for app in (orders_app, other)
        for task in app.container.background_tasks()[1:]
    ]
    await until(lambda: is_listening(other))

    wait = start_wait(other, order)
    async with waits(other, wait):
        await pay(orders_app, order)

    for listener in listeners:
        listener.cancel()
    await asyncio.gather(*listeners, return_exceptions=True)
    assert (await wait).status.status is OrderStatus.PROCESSING
