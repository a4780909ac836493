"""Streams of the status changes of an order: their events, their ends and their limits."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from markethall.orders.contract import (
    ActorCheck,
    OrderNotFound,
    OrderStatus,
    OrderStatusEvent,
    OrderView,
)
from markethall.orders.domain import AuditInfo
from markethall.orders.service.status_streams import StatusStreams, StreamLimits
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import Overloaded, TooManyRequests
from markethall.shared.kernel.held_slots import HELD_SLOTS
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres
from tests.orders.conftest import STAFF, OrdersApp, build_orders_app, user_context
from tests.orders.test_status_waits import Slots, cancel, pay, placed, waits_of

# seconds; longer than any test, so that only a change or the end of the test ends a wait
LONG = 600.0
LIMITS = StreamLimits(
    heartbeat_seconds=LONG, max_seconds=LONG, max_streams=100, max_streams_per_client=3
)
Stream = AsyncGenerator[OrderStatusEvent | None, None]


def streams_of(orders_app: OrdersApp, limits: StreamLimits = LIMITS) -> StatusStreams:
    container = orders_app.container
    return StatusStreams(container.stored_database(), waits_of(orders_app), limits)


def actor_check(ctx: CallContext) -> ActorCheck:
    async def check() -> Actor:
        return ctx.actor

    return check


async def opened(
    streams: StatusStreams,
    ctx: CallContext,
    order: OrderView,
    last_version: int | None = None,
    check: ActorCheck | None = None,
) -> Stream:
    return await streams.open(ctx, order.order_id, last_version, check or actor_check(ctx))


@asynccontextmanager
async def stream_of(
    orders_app: OrdersApp,
    order: OrderView,
    last_version: int | None = None,
    limits: StreamLimits = LIMITS,
) -> AsyncIterator[Stream]:
    stream = await opened(streams_of(orders_app, limits), orders_app.buyer, order, last_version)
    async with aclosing(stream):
        yield stream


async def next_event(stream: Stream) -> OrderStatusEvent | None:
    async with asyncio.timeout(20):
        return await anext(stream)


async def next_version(stream: Stream) -> int:
    event = await next_event(stream)
    assert event is not None
    return event.version


async def change_often(orders_app: OrdersApp, order: OrderView, times: int) -> None:
    """Change the order, one version in each transaction."""
    database = orders_app.container.database()
    for _ in range(times):
        async with database.transaction() as store:
            stored = await store.get_order(order.order_id)
            assert stored is not None
            stored.record_dispute(AuditInfo("test", orders_app.clock()))
            await store.save_order(stored)


async def test_first_event_is_the_current_status(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.stock_up())

    async with stream_of(orders_app, order) as stream:
        event = await next_event(stream)

    assert event is not None
    status = await orders_app.orders.get_order_status(STAFF, order.order_id)
    assert event.model_dump(exclude={"version", "change"}) == status.status.model_dump()
    assert (event.version, event.change) == (status.version, "paid")


async def test_each_change_is_sent_once_and_in_order(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    async with stream_of(orders_app, order) as stream:
        first = await next_version(stream)
        await pay(orders_app, order)
        await cancel(orders_app, order)
        events = [await next_event(stream), await next_event(stream)]

    assert [event and event.version for event in events] == [first + 1, first + 2]
    assert [event and event.status for event in events] == [
        OrderStatus.PROCESSING,
        OrderStatus.CANCELLED,
    ]


async def test_stream_continues_after_the_last_version_of_the_client(
    orders_app: OrdersApp,
) -> None:
    order = await placed(orders_app)
    await change_often(orders_app, order, 5)

    async with stream_of(orders_app, order, last_version=order.version + 2) as stream:
        versions = [await next_version(stream) for _ in range(3)]

    assert versions == [order.version + 3, order.version + 4, order.version + 5]


async def test_client_that_knows_the_current_version_gets_only_later_ones(
    orders_app: OrdersApp,
) -> None:
    order = await placed(orders_app)

    async with stream_of(orders_app, order, last_version=order.version) as stream:
        waiting = asyncio.create_task(next_version(stream))
        await change_often(orders_app, order, 1)

        assert await waiting == order.version + 1


async def test_version_that_the_order_has_not_reached_counts_as_none(
    orders_app: OrdersApp,
) -> None:
    order = await placed(orders_app)

    async with stream_of(orders_app, order, last_version=order.version + 1) as stream:
        assert await next_version(stream) == order.version


async def test_thousand_concurrent_changes_are_all_sent_once(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    async with stream_of(orders_app, order) as stream:
        changes = asyncio.create_task(change_often(orders_app, order, 1000))
        versions = [await next_version(stream) for _ in range(1001)]
        await changes

    assert versions == list(range(order.version, order.version + 1001))


async def test_heartbeat_is_sent_while_nothing_changes(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    limits = replace(LIMITS, heartbeat_seconds=0.01)
    async with stream_of(orders_app, order, limits=limits) as stream:
        events = [await next_event(stream) for _ in range(3)]

    assert [event and event.version for event in events] == [order.version, None, None]


async def test_stream_ends_after_its_maximum_time(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    async with stream_of(orders_app, order, limits=replace(LIMITS, max_seconds=0.05)) as stream:
        async with asyncio.timeout(20):
            events = [event async for event in stream]

    assert [event and event.version for event in events] == [order.version, None]


async def test_stream_ends_when_the_token_is_not_valid_any_more(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    actors = [orders_app.buyer.actor, None]

    async def check() -> Actor | None:
        return actors.pop(0)

    stream = await opened(streams_of(orders_app), orders_app.buyer, order, check=check)
    assert await next_version(stream) == order.version
    await change_often(orders_app, order, 1)

    with pytest.raises(StopAsyncIteration):
        await next_event(stream)


async def test_stream_of_staff_ends_with_their_scope(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    actors = [STAFF.actor, STAFF.actor.model_copy(update={"scopes": frozenset({"orders"})})]

    async def check() -> Actor | None:
        return actors.pop(0)

    stream = await opened(streams_of(orders_app), STAFF, order, check=check)
    assert await next_version(stream) == order.version
    await change_often(orders_app, order, 1)

    with pytest.raises(StopAsyncIteration):
        await next_event(stream)


async def test_shutdown_ends_the_streams_and_allows_no_other(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    streams = streams_of(orders_app)
    stream = await opened(streams, orders_app.buyer, order)
    assert await next_version(stream) == order.version
    waiting = asyncio.create_task(next_event(stream))
    await asyncio.sleep(0)

    for end in orders_app.container.on_drain():
        end()

    with pytest.raises(StopAsyncIteration):
        await waiting
    with pytest.raises(Overloaded):
        await opened(streams, orders_app.buyer, order)
    assert streams.open_streams == 0


async def test_order_of_another_customer_is_not_found(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    streams = streams_of(orders_app)

    with pytest.raises(OrderNotFound):
        await opened(streams, user_context(new_id(), "customer"), order)

    assert streams.open_streams == 0
    assert waits_of(orders_app)._by_order == {}


async def test_streams_are_limited_per_client(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    streams = streams_of(orders_app)
    held = [await opened(streams, orders_app.buyer, order) for _ in range(3)]

    with pytest.raises(TooManyRequests) as refused:
        await opened(streams, orders_app.buyer, order)
    by_staff = await opened(streams, STAFF, order)
    await held.pop().aclose()
    again = await opened(streams, orders_app.buyer, order)

    assert refused.value.details["retry_after"] == 10
    for stream in (*held, by_staff, again):
        await stream.aclose()
    assert streams.open_streams == 0
    assert waits_of(orders_app)._by_order == {}


async def test_guests_of_one_network_share_a_limit(orders_app: OrdersApp) -> None:
    streams = streams_of(orders_app, replace(LIMITS, max_streams_per_client=1))
    orders, guests = [], []
    for client_ip in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"):
        actor = orders_app.buyer.actor.model_copy(update={"user_id": new_id(), "is_guest": True})
        orders_app.buyer = CallContext(actor=actor, client_ip=client_ip, request_id="test")
        guests.append(orders_app.buyer)
        product_id = orders_app.stock_up()
        orders.append(await orders_app.place(product_id, email="guest@example.com"))

    first = await opened(streams, guests[0], orders[0])
    with pytest.raises(TooManyRequests):
        await opened(streams, guests[1], orders[1])
    other = await opened(streams, guests[2], orders[2])

    assert streams.open_streams == 2
    await first.aclose()
    await other.aclose()


async def test_streams_are_limited_in_total(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    streams = streams_of(orders_app, replace(LIMITS, max_streams=1))
    stream = await opened(streams, STAFF, order)

    with pytest.raises(Overloaded):
        await opened(streams, orders_app.buyer, order)

    await stream.aclose()
    assert streams.open_streams == 0


async def test_stream_holds_no_slot(orders_app: OrdersApp) -> None:
    order, slots = await placed(orders_app), Slots()

    token = HELD_SLOTS.set(slots)
    stream = await opened(streams_of(orders_app), orders_app.buyer, order)
    HELD_SLOTS.reset(token)
    await next_event(stream)
    await stream.aclose()

    assert slots.calls == ["leave"]


@pytest.mark.parametrize("orders_app", ["sql"], indirect=True)
async def test_stream_gets_changes_of_another_process_by_the_poll(
    orders_app: OrdersApp, postgres: Postgres
) -> None:
    """`other` stands for another process. It does not listen to the invalidation bus."""
    other = build_orders_app("sql", postgres)
    other.buyer = orders_app.buyer
    order = await placed(orders_app)

    async with stream_of(other, order) as stream:
        first = await next_version(stream)
        waiting = asyncio.create_task(next_version(stream))
        await change_often(orders_app, order, 3)
        await waits_of(other).poll()
        versions = [await waiting, await next_version(stream), await next_version(stream)]

    assert versions == [first + 1, first + 2, first + 3]
