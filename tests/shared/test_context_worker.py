"""Test the context worker: one worker leads, events need no poll, and no failure stops the work."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
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
from markethall.shared.messaging.events import Delivery, wrap_event
from markethall.shared.messaging.inbox import InboxConsumer, WorkerConfig
from markethall.shared.messaging.outbox_relay import InProcessTransport, OutboxRelay
from markethall.shared.persistence.postgres import Postgres
from tests.conftest import on_server
from tests.shared.conftest import STATEMENTS, ProbeSqlStore, ThingHappened
from tests.shared.test_events import KILL_LEADER, wait_until_unlocked

HANDLER = "probe.on_thing_happened"
# the poll interval is longer than TEST_TIMEOUT, so that a test fails if it needs a poll
NOTIFIED_ONLY = WorkerConfig(
    idle_job_interval=0.01,
    poll_interval=600,
    heartbeat_interval=600,
    periodic_job_interval=0.01,
    leader_retry_interval=0.01,
)
POLLING = WorkerConfig(
    poll_interval=0.01,
    heartbeat_interval=0.01,
    idle_job_interval=0.01,
    periodic_job_interval=0.01,
    leader_retry_interval=0.01,
)

# seconds; only a failing test waits for the whole time
TEST_TIMEOUT = 20


class RecordingHandler:
    """Records the events that it handled, and lets a test wait for them."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.blocked: dict[int, asyncio.Event] = {}
        self._changed = asyncio.Condition()

    async def handle(self, _: Delivery, event: ThingHappened) -> None:
        if event.number in self.blocked:
            await self.blocked[event.number].wait()
        async with self._changed:
            self.numbers.append(event.number)
            self._changed.notify_all()

    async def wait_for(self, *numbers: int) -> bool:
        async with asyncio.timeout(TEST_TIMEOUT), self._changed:
            await self._changed.wait_for(lambda: set(numbers) <= set(self.numbers))
        return True


class CountingJob:
    """Counts its runs. The first runs raise the given errors."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.runs = 0
        self._changed = asyncio.Condition()

    async def run_once(self) -> None:
        async with self._changed:
            self.runs += 1
            self._changed.notify_all()
        if self._errors:
            raise self._errors.pop(0)

    async def wait_for_runs(self, runs: int) -> bool:
        async with asyncio.timeout(TEST_TIMEOUT), self._changed:
            await self._changed.wait_for(lambda: self.runs >= runs)
        return True


Handle = Callable[[Delivery, Any], Awaitable[None]]


def build_worker(
    backend: ContextPersistence[Any],
    handle: Handle,
    *periodic_jobs: PeriodicJob,
    config: WorkerConfig = NOTIFIED_ONLY,
    count_writes: Callable[[], int] = lambda: 0,
) -> ContextWorker:
    transport = InProcessTransport(
        backend.inbox, {ThingHappened.type: [HANDLER]}, backend.inbox_signal.set
    )
    relay = OutboxRelay("probe", [transport], utc_now, outbox=backend.outbox)

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
        count_writes=count_writes,
    )


@asynccontextmanager
async def running(*workers: ContextWorker) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def wait_for_first(*works: Coroutine[Any, Any, bool]) -> None:
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
    recorder, job = RecordingHandler(), CountingJob()
    async with running(build_worker(backend, recorder.handle, job.run_once)):
        await job.wait_for_runs(2)

        await publish(backend, ctx, 1, 2, 3)

        assert await recorder.wait_for(1, 2, 3)


async def test_events_of_one_key_and_retries_need_no_polling(
    backend: ContextPersistence[Any], ctx: CallContext
) -> None:
    recorder, thing = RecordingHandler(), new_id()
    errors = [ValueError("fails once")]

    async def fail_once(delivery: Delivery, event: ThingHappened) -> None:
        if event.number == 2 and errors:
            raise errors.pop()
        await recorder.handle(delivery, event)

    async with running(build_worker(backend, fail_once)):
        async with backend.database.transaction() as store:
            for number in (1, 2, 3):
                await store.publish(ThingHappened(thing=thing, number=number), ctx)

        assert await recorder.wait_for(1, 2, 3)
    assert recorder.numbers == [1, 2, 3]


async def test_event_of_other_process_wakes_the_leader(probe: Postgres, ctx: CallContext) -> None:
    leading = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, utc_now)
    standby = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, utc_now)
    recorder, job = RecordingHandler(), CountingJob()
    # no election during the test, so only a notification can wake the leader
    config = replace(NOTIFIED_ONLY, leader_retry_interval=600)
    async with running(build_worker(leading, recorder.handle, job.run_once, config=config)):
        await job.wait_for_runs(2)
        async with running(build_worker(standby, recorder.handle, config=config)):
            await publish(standby, ctx, 1)
            assert await recorder.wait_for(1)

            envelope = wrap_event(ThingHappened(thing=new_id(), number=2), ctx, utc_now())
            await standby.inbox.enqueue([HANDLER], [envelope])
            standby.inbox_signal.set()
            assert await recorder.wait_for(2)


async def test_event_of_other_process_is_found_by_polling(
    probe: Postgres, ctx: CallContext
) -> None:
    here = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, utc_now)
    elsewhere = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, utc_now)
    recorder = RecordingHandler()
    async with running(build_worker(here, recorder.handle, config=POLLING)):
        await publish(elsewhere, ctx, 1)

        assert await recorder.wait_for(1)


async def test_slow_handler_does_not_block_others(
    backend: ContextPersistence[Any], ctx: CallContext
) -> None:
    recorder = RecordingHandler()
    recorder.blocked[0] = asyncio.Event()
    async with running(build_worker(backend, recorder.handle)):
        await publish(backend, ctx, 0)
        for number in range(1, 40):
            await publish(backend, ctx, number)

        assert await recorder.wait_for(*range(1, 40))
        assert 0 not in recorder.numbers
        recorder.blocked[0].set()
        assert await recorder.wait_for(0)


async def test_handler_concurrency_is_limited(
    backend: ContextPersistence[Any], ctx: CallContext
) -> None:
    running_count, max_running = 0, 0

    async def count(delivery: Delivery, event: ThingHappened) -> None:
        nonlocal running_count, max_running
        running_count += 1
        max_running = max(max_running, running_count)
        await asyncio.sleep(0.001)
        running_count -= 1
        await recorder.handle(delivery, event)

    recorder = RecordingHandler()
    async with running(build_worker(backend, count)):
        await publish(backend, ctx, *range(50))

        assert await recorder.wait_for(*range(50))
    assert max_running == NOTIFIED_ONLY.concurrency


@pytest.mark.parametrize(
    "error",
    [
        ValueError("one bad row"),
        Unavailable(dependency="users"),
        asyncio.CancelledError("an awaited task was cancelled"),
    ],
)
async def test_failing_periodic_job_keeps_running(
    backend: ContextPersistence[Any], ctx: CallContext, error: BaseException
) -> None:
    recorder, failing, other = RecordingHandler(), CountingJob(error, error), CountingJob()
    worker = build_worker(
        backend, recorder.handle, failing.run_once, other.run_once, config=POLLING
    )
    async with running(worker):
        assert await failing.wait_for_runs(4)
        assert await other.wait_for_runs(2)

        await publish(backend, ctx, 1)
        assert await recorder.wait_for(1)


@pytest.mark.parametrize(
    ("error", "event"),
    [(Unavailable(dependency="x"), "periodic_job.unavailable"), (OSError(), "periodic_job.failed")],
)
async def test_log_names_the_periodic_job(
    backend: ContextPersistence[Any], error: BaseException, event: str
) -> None:
    failing = CountingJob(error)

    with capture_logs() as logs:
        worker = build_worker(backend, RecordingHandler().handle, failing.run_once, config=POLLING)
        async with running(worker):
            await failing.wait_for_runs(2)

    (line,) = (line for line in logs if line["event"] == event)
    assert (line["context"], line["job"]) == (worker.context, "CountingJob.run_once")


async def test_periodic_jobs_run_less_often_without_writes(
    backend: ContextPersistence[Any], ctx: CallContext
) -> None:
    config = replace(NOTIFIED_ONLY, idle_job_interval=600, idle_after=0)
    recorder, job, writes = RecordingHandler(), CountingJob(), count()
    worker = build_worker(backend, recorder.handle, job.run_once, config=config)
    async with running(worker):
        for number in range(20):
            await publish(backend, ctx, number)
            assert await recorder.wait_for(number)
    assert job.runs == 1

    config = replace(config, idle_after=600)
    worker = build_worker(
        backend, recorder.handle, job.run_once, config=config, count_writes=lambda: next(writes)
    )
    async with running(worker):
        assert await job.wait_for_runs(10)


async def test_standby_worker_takes_over(
    backend: ContextPersistence[Any], ctx: CallContext
) -> None:
    first_job, second_job, recorder = CountingJob(), CountingJob(), RecordingHandler()
    first = build_worker(backend, recorder.handle, first_job.run_once, config=POLLING)
    second = build_worker(backend, recorder.handle, second_job.run_once, config=POLLING)

    async with running(second):
        async with running(first):
            await wait_for_first(first_job.wait_for_runs(5), second_job.wait_for_runs(5))
            run_counts = [job.runs for job in (first_job, second_job)]
        assert await second_job.wait_for_runs(second_job.runs + 2)
        await publish(backend, ctx, 1)
        assert await recorder.wait_for(1)

    assert 0 in run_counts


async def test_leader_recovers_after_killed_connection(
    probe: Postgres, probe_url: str, ctx: CallContext
) -> None:
    backend = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, utc_now)
    recorder, job = RecordingHandler(), CountingJob()
    with capture_logs() as lines:
        async with running(build_worker(backend, recorder.handle, job.run_once, config=POLLING)):
            for number in range(3):
                await job.wait_for_runs(job.runs + 2)
                await on_server(probe_url, KILL_LEADER)
                await publish(backend, ctx, number)

                assert await recorder.wait_for(number)

    # an unavailable database is a warning, without a traceback
    logged = {line["event"] for line in lines}
    assert "worker.unavailable" in logged
    assert "worker.failed" not in logged


async def test_stopped_worker_releases_leadership_and_claims(
    probe: Postgres, ctx: CallContext
) -> None:
    backend = build_sql_persistence(probe, STATEMENTS, ProbeSqlStore, utc_now)
    started = asyncio.Event()

    async def never_finish(_: Delivery, __: ThingHappened) -> None:
        started.set()
        await asyncio.Event().wait()

    async with running(build_worker(backend, never_finish)):
        await publish(backend, ctx, 1)
        await started.wait()

    assert await wait_until_unlocked(probe)
    recorder = RecordingHandler()
    async with running(build_worker(backend, recorder.handle)):
        assert await recorder.wait_for(1)
