"""The steward: one leads, nothing waits longer than it must, no failure ends its work."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.sql import build_sql_persistence
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.context_worker import ContextWorker, PeriodicJob
from markethall.shared.messaging.events import Delivery
from markethall.shared.messaging.inbox_consumer import InboxConsumer
from markethall.shared.messaging.outbox_relay import OutboxRelay
from markethall.shared.messaging.transports import InProcessTransport
from markethall.shared.messaging.worker_config import WorkerConfig
from markethall.shared.persistence.postgres import Postgres
from tests.conftest import on_server
from tests.shared.conftest import STATEMENTS, ProbeSqlStore, ThingHappened
from tests.shared.test_events import KILL_LEADER, no_locks

HANDLER = "probe.on_thing_happened"
# a poll so rare that a test which needs it fails by its timeout
NOTIFIED_ONLY = WorkerConfig(
    poll_interval=600, periodic_job_interval=0.01, leader_retry_interval=0.01
)
POLLING = WorkerConfig(poll_interval=0.01, periodic_job_interval=0.01, leader_retry_interval=0.01)

# whatever a test waits for has happened long before
LONG = 20


class RecordingHandler:
    """Remembers what it was told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.slow: dict[int, asyncio.Event] = {}
        self._told = asyncio.Condition()

    async def handle(self, _: Delivery, event: ThingHappened) -> None:
        if event.number in self.slow:
            await self.slow[event.number].wait()
        async with self._told:
            self.numbers.append(event.number)
            self._told.notify_all()

    async def has(self, *numbers: int) -> bool:
        async with asyncio.timeout(LONG), self._told:
            await self._told.wait_for(lambda: set(numbers) <= set(self.numbers))
        return True


class CountingJob:
    """Counts its rounds; begins with the errors that it is given."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.rounds = 0
        self._swept = asyncio.Condition()

    async def run_once(self) -> None:
        async with self._swept:
            self.rounds += 1
            self._swept.notify_all()
        if self._errors:
            raise self._errors.pop(0)

    async def reaches(self, rounds: int) -> bool:
        async with asyncio.timeout(LONG), self._swept:
            await self._swept.wait_for(lambda: self.rounds >= rounds)
        return True


Handle = Callable[[Delivery, Any], Awaitable[None]]


def build_worker(
    backend: ContextPersistence[Any],
    handle: Handle,
    *periodic_jobs: PeriodicJob,
    config: WorkerConfig = NOTIFIED_ONLY,
) -> ContextWorker:
    transport = InProcessTransport(
        backend.inbox, {ThingHappened.type: [HANDLER]}, backend.inbox_signal.set
    )
    relay = OutboxRelay("probe", [transport], utc_now)

    async def handle_and_mark(delivery: Delivery, event: Any) -> None:
        await handle(delivery, event)
        async with backend.database.transaction() as store:
            await store.mark_processed(delivery)

    consumer = InboxConsumer(backend.inbox, {HANDLER: handle_and_mark}, utc_now, config)
    return ContextWorker(
        "probe",
        backend.outbox,
        relay,
        consumer,
        periodic_jobs,
        config,
        outbox_signal=backend.outbox_signal,
        inbox_signal=backend.inbox_signal,
    )


@asynccontextmanager
async def running(*workers: ContextWorker) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(steward.run()) for steward in workers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def either(*works: Coroutine[Any, Any, bool]) -> None:
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def publish(backend: ContextPersistence[Any], ctx: CallContext, *numbers: int) -> None:
    async with backend.database.transaction() as store:
        for number in numbers:
            await store.publish(ThingHappened(thing=new_id(), number=number), ctx)


async def test_local_event_is_handled_without_polling(
    backend: ContextPersistence[Any], ctx: CallContext
) -> None:
    memory, sweeping = RecordingHandler(), CountingJob()
    async with running(build_worker(backend, memory.handle, sweeping.run_once)):
        await sweeping.reaches(2)

        await publish(backend, ctx, 1, 2, 3)

        assert await memory.has(1, 2, 3)


async def test_event_of_other_process_is_found_by_polling(
    probe: Postgres, ctx: CallContext
) -> None:
    here = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, utc_now)
    elsewhere = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, utc_now)
    memory = RecordingHandler()
    async with running(build_worker(here, memory.handle, config=POLLING)):
        await publish(elsewhere, ctx, 1)

        assert await memory.has(1)


async def test_slow_handler_does_not_block_others(
    backend: ContextPersistence[Any], ctx: CallContext
) -> None:
    memory = RecordingHandler()
    memory.slow[0] = asyncio.Event()
    async with running(build_worker(backend, memory.handle)):
        await publish(backend, ctx, 0)
        for number in range(1, 40):
            await publish(backend, ctx, number)

        assert await memory.has(*range(1, 40))
        assert 0 not in memory.numbers
        memory.slow[0].set()
        assert await memory.has(0)


async def test_handler_concurrency_is_limited(
    backend: ContextPersistence[Any], ctx: CallContext
) -> None:
    now, most = 0, 0

    async def count(delivery: Delivery, event: ThingHappened) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        await memory.handle(delivery, event)

    memory = RecordingHandler()
    async with running(build_worker(backend, count)):
        await publish(backend, ctx, *range(50))

        assert await memory.has(*range(50))
    assert most == NOTIFIED_ONLY.concurrency


@pytest.mark.parametrize(
    "error",
    [
        ValueError("one bad row"),
        Unavailable(dependency="neighbour"),
        asyncio.CancelledError("something it waited for"),
    ],
)
async def test_failing_periodic_job_keeps_running(
    backend: ContextPersistence[Any], ctx: CallContext, error: BaseException
) -> None:
    memory, failing, other = RecordingHandler(), CountingJob(error, error), CountingJob()
    steward = build_worker(backend, memory.handle, failing.run_once, other.run_once, config=POLLING)
    async with running(steward):
        assert await failing.reaches(4)
        assert await other.reaches(2)

        await publish(backend, ctx, 1)
        assert await memory.has(1)


async def test_standby_worker_takes_over(
    backend: ContextPersistence[Any], ctx: CallContext
) -> None:
    first_sweeps, second_sweeps, memory = CountingJob(), CountingJob(), RecordingHandler()
    first = build_worker(backend, memory.handle, first_sweeps.run_once, config=POLLING)
    second = build_worker(backend, memory.handle, second_sweeps.run_once, config=POLLING)

    async with running(second):
        async with running(first):
            await either(first_sweeps.reaches(5), second_sweeps.reaches(5))
            at_work = [sweeps.rounds for sweeps in (first_sweeps, second_sweeps)]
        assert await second_sweeps.reaches(second_sweeps.rounds + 2)
        await publish(backend, ctx, 1)
        assert await memory.has(1)

    assert 0 in at_work


async def test_leader_recovers_after_killed_connection(
    probe: Postgres, probe_url: str, ctx: CallContext
) -> None:
    backend = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, utc_now)
    memory, sweeping = RecordingHandler(), CountingJob()
    with capture_logs() as lines:
        async with running(build_worker(backend, memory.handle, sweeping.run_once, config=POLLING)):
            for number in range(3):
                await sweeping.reaches(sweeping.rounds + 2)
                await on_server(probe_url, KILL_LEADER)
                await publish(backend, ctx, number)

                assert await memory.has(number)

    # a database that is away is no fault of ours, and no traceback
    told = {line["event"] for line in lines}
    assert "worker.unavailable" in told
    assert "worker.failed" not in told


async def test_stopped_worker_releases_leadership_and_claims(
    probe: Postgres, ctx: CallContext
) -> None:
    backend = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, utc_now)
    begun = asyncio.Event()

    async def never_ends(_: Delivery, __: ThingHappened) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with running(build_worker(backend, never_ends)):
        await publish(backend, ctx, 1)
        await begun.wait()

    assert await no_locks(probe)
    memory = RecordingHandler()
    async with running(build_worker(backend, memory.handle)):
        assert await memory.has(1)
