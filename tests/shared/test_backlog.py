"""Test the measurement of backlogs, and their metrics, on each storage."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.backlog import Backlog, BacklogMonitor
from markethall.shared.messaging.events import Delivery, RetryLater, wrap_event
from markethall.shared.messaging.outbox_relay import OutboxRelay
from tests.metric_values import metric_value
from tests.shared.conftest import FakeClock, ThingHappened

HANDLER = "probe.on_thing_happened"


async def publish(backend: ContextPersistence[Any], ctx: CallContext) -> None:
    async with backend.database.transaction() as store:
        await store.publish(ThingHappened(thing=new_id(), number=1), ctx)


async def receive(
    backend: ContextPersistence[Any], ctx: CallContext, clock: FakeClock, key: UUID | None = None
) -> None:
    envelope = wrap_event(ThingHappened(thing=key or new_id(), number=1), ctx, clock())
    await backend.inbox.enqueue([HANDLER], [envelope])


async def claim(backend: ContextPersistence[Any], clock: FakeClock) -> Delivery:
    (delivery,) = await backend.inbox.claim(clock(), timedelta(seconds=30), limit=1)
    return delivery


async def test_outbox_backlog_has_events_that_are_not_relayed(
    backend: ContextPersistence[Any], ctx: CallContext, clock: FakeClock
) -> None:
    before = await backend.outbox.measure_backlog()
    published_at = clock()
    await publish(backend, ctx)
    clock.forward(seconds=5)
    await publish(backend, ctx)
    waiting = await backend.outbox.measure_backlog()
    async with backend.outbox.acquire_leadership() as leader:
        assert leader
        await OutboxRelay("probe", [], clock).relay_batch(leader, 100)

    assert before == Backlog(0, None)
    assert waiting == Backlog(2, published_at)
    assert await backend.outbox.measure_backlog() == Backlog(0, None)


async def test_inbox_backlog_has_deliveries_that_are_not_processed(
    backend: ContextPersistence[Any], ctx: CallContext, clock: FakeClock
) -> None:
    received_at = clock()
    await receive(backend, ctx, clock)
    clock.forward(seconds=5)
    await receive(backend, ctx, clock)
    waiting = await backend.inbox.measure_backlog()
    delivery = await claim(backend, clock)
    async with backend.database.transaction() as store:
        await store.mark_processed(delivery)

    assert waiting == Backlog(2, received_at)
    assert await backend.inbox.measure_backlog() == Backlog(1, clock())


async def test_delivery_that_fails_is_late(
    backend: ContextPersistence[Any], ctx: CallContext, clock: FakeClock
) -> None:
    received_at = clock()
    await receive(backend, ctx, clock)
    delivery = await claim(backend, clock)
    await backend.inbox.retry_later(delivery, "ValueError()", clock() + timedelta(hours=1))

    assert await backend.inbox.measure_backlog() == Backlog(1, received_at)


async def test_delivery_that_waits_on_purpose_is_not_late(
    backend: ContextPersistence[Any], ctx: CallContext, clock: FakeClock
) -> None:
    key = new_id()
    await receive(backend, ctx, clock, key)
    await receive(backend, ctx, clock, key)
    delivery = await claim(backend, clock)
    await backend.inbox.retry_later(delivery, repr(RetryLater("wait")), clock())

    assert await backend.inbox.measure_backlog() == Backlog(2, None)


async def test_dead_letter_is_not_in_the_backlog(
    backend: ContextPersistence[Any], ctx: CallContext, clock: FakeClock
) -> None:
    await receive(backend, ctx, clock)
    await backend.inbox.dead_letter(await claim(backend, clock), "ValueError()")

    assert await backend.inbox.measure_backlog() == Backlog(0, None)


# Metrics

GAUGES = (
    "markethall_outbox_unpublished",
    "markethall_outbox_lag_seconds",
    "markethall_inbox_waiting",
    "markethall_inbox_lag_seconds",
)


class Source:
    """An outbox or inbox with a given backlog. A test can make it fail."""

    def __init__(self, backlog: Backlog) -> None:
        self.backlog = backlog
        self.error: Exception | None = None
        self.measured = asyncio.Event()

    async def measure_backlog(self) -> Backlog:
        self.measured.set()
        if self.error:
            raise self.error
        return self.backlog

    async def wait(self) -> None:
        self.measured.clear()
        async with asyncio.timeout(10):
            await self.measured.wait()


def gauge_values() -> list[float | None]:
    return [metric_value(name, context="probe") for name in GAUGES]


@pytest.fixture
def outbox(clock: FakeClock) -> Source:
    return Source(Backlog(3, clock() - timedelta(seconds=40)))


@pytest.fixture
def inbox() -> Source:
    return Source(Backlog(0, None))


@pytest.fixture
async def monitor(outbox: Source, inbox: Source, clock: FakeClock) -> "asyncio.Task[None]":
    monitor = BacklogMonitor("probe", outbox, inbox, clock, interval=0.001)
    return asyncio.create_task(monitor.run())


@pytest.fixture(autouse=True)
def no_values_remain() -> Iterator[None]:
    yield
    assert gauge_values() == [None] * 4


async def test_only_the_leader_reports_backlogs(
    monitor: "asyncio.Task[None]", inbox: Source
) -> None:
    await inbox.wait()
    await inbox.wait()
    while_leader = gauge_values()

    monitor.cancel()
    await asyncio.wait([monitor])

    assert while_leader == [3, 40, 0, 0]
    assert gauge_values() == [None] * 4


async def test_backlog_that_cannot_be_measured_has_no_value(
    monitor: "asyncio.Task[None]", outbox: Source, inbox: Source
) -> None:
    await inbox.wait()
    outbox.error = Unavailable(dependency="postgres")
    await outbox.wait()
    await outbox.wait()
    while_unavailable = gauge_values()
    outbox.error = None
    await inbox.wait()
    await inbox.wait()
    recovered = gauge_values()

    monitor.cancel()
    await asyncio.wait([monitor])

    assert while_unavailable == [None] * 4
    assert recovered == [3, 40, 0, 0]
