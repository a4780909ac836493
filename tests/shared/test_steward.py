"""The steward: one leads, nothing waits longer than it must, no failure ends its work."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from markethall.shared.backend import Backend
from markethall.shared.call import Call
from markethall.shared.clock import utc_now
from markethall.shared.db import Postgres
from markethall.shared.errors import Unavailable
from markethall.shared.events import Delivery, DirectPipe
from markethall.shared.ids import new_id
from markethall.shared.sql import sql_backend
from markethall.shared.steward import Pace, Processor, Relay, Steward, Sweep
from tests.conftest import on_server
from tests.shared.conftest import STATEMENTS, ProbeSqlStore, ThingHappened
from tests.shared.test_events import KILL_LEADER, no_locks

HANDLER = "probe.remember"
# a poll so rare that a test which needs it fails by its timeout
WOKEN = Pace(poll=600, sweep=0.01, retry_lead=0.01)
POLLED = Pace(poll=0.01, sweep=0.01, retry_lead=0.01)

# whatever a test waits for has happened long before
LONG = 20


class Memory:
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


class Sweeping:
    """Counts its rounds; begins with the errors that it is given."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.rounds = 0
        self._swept = asyncio.Condition()

    async def sweep(self) -> None:
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


def steward_of(
    backend: Backend[Any], handle: Handle, *sweeps: Sweep, pace: Pace = WOKEN
) -> Steward:
    pipe = DirectPipe(backend.inbox, {ThingHappened.type: [HANDLER]})
    relay = Relay("probe", [pipe], utc_now)

    async def ticking(delivery: Delivery, event: Any) -> None:
        await handle(delivery, event)
        async with backend.database.transaction() as store:
            await store.handled(delivery)

    processor = Processor(backend.inbox, {HANDLER: ticking}, utc_now, pace)
    steward = Steward("probe", backend.outbox, relay, processor, sweeps, pace)
    pipe.wake = steward.wake_processor
    backend.database.on_publish = steward.wake
    return steward


@asynccontextmanager
async def running(*stewards: Steward) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(steward.run()) for steward in stewards]
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


async def publish(backend: Backend[Any], call: Call, *numbers: int) -> None:
    async with backend.database.transaction() as store:
        for number in numbers:
            await store.publish(ThingHappened(thing=new_id(), number=number), call)


async def test_what_is_published_here_is_handled_at_once_without_waiting_for_a_poll(
    backend: Backend[Any], call: Call
) -> None:
    memory, sweeping = Memory(), Sweeping()
    async with running(steward_of(backend, memory.handle, sweeping.sweep)):
        await sweeping.reaches(2)

        await publish(backend, call, 1, 2, 3)

        assert await memory.has(1, 2, 3)


async def test_what_another_process_published_is_found_by_the_poll(
    probe: Postgres, call: Call
) -> None:
    here = sql_backend(probe, STATEMENTS, ProbeSqlStore, utc_now)
    elsewhere = sql_backend(probe, STATEMENTS, ProbeSqlStore, utc_now)
    memory = Memory()
    async with running(steward_of(here, memory.handle, pace=POLLED)):
        await publish(elsewhere, call, 1)

        assert await memory.has(1)


async def test_a_slow_handler_holds_up_nobody_else(backend: Backend[Any], call: Call) -> None:
    memory = Memory()
    memory.slow[0] = asyncio.Event()
    async with running(steward_of(backend, memory.handle)):
        await publish(backend, call, 0)
        for number in range(1, 40):
            await publish(backend, call, number)

        assert await memory.has(*range(1, 40))
        assert 0 not in memory.numbers
        memory.slow[0].set()
        assert await memory.has(0)


async def test_no_more_handlers_run_side_by_side_than_the_pace_allows(
    backend: Backend[Any], call: Call
) -> None:
    now, most = 0, 0

    async def count(delivery: Delivery, event: ThingHappened) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        await memory.handle(delivery, event)

    memory = Memory()
    async with running(steward_of(backend, count)):
        await publish(backend, call, *range(50))

        assert await memory.has(*range(50))
    assert most == WOKEN.side_by_side


@pytest.mark.parametrize(
    "error",
    [
        ValueError("one bad row"),
        Unavailable(dependency="neighbour"),
        asyncio.CancelledError("something it waited for"),
    ],
)
async def test_a_sweep_that_fails_ends_neither_itself_nor_the_others(
    backend: Backend[Any], call: Call, error: BaseException
) -> None:
    memory, failing, other = Memory(), Sweeping(error, error), Sweeping()
    steward = steward_of(backend, memory.handle, failing.sweep, other.sweep, pace=POLLED)
    async with running(steward):
        assert await failing.reaches(4)
        assert await other.reaches(2)

        await publish(backend, call, 1)
        assert await memory.has(1)


async def test_of_two_stewards_one_works_and_the_other_takes_over_when_it_ends(
    backend: Backend[Any], call: Call
) -> None:
    first_sweeps, second_sweeps, memory = Sweeping(), Sweeping(), Memory()
    first = steward_of(backend, memory.handle, first_sweeps.sweep, pace=POLLED)
    second = steward_of(backend, memory.handle, second_sweeps.sweep, pace=POLLED)

    async with running(second):
        async with running(first):
            await either(first_sweeps.reaches(5), second_sweeps.reaches(5))
            at_work = [sweeps.rounds for sweeps in (first_sweeps, second_sweeps)]
        assert await second_sweeps.reaches(second_sweeps.rounds + 2)
        await publish(backend, call, 1)
        assert await memory.has(1)

    assert 0 in at_work


async def test_a_leader_whose_connection_is_killed_leads_again_and_loses_nothing(
    probe: Postgres, probe_url: str, call: Call
) -> None:
    backend = sql_backend(probe, STATEMENTS, ProbeSqlStore, utc_now)
    memory, sweeping = Memory(), Sweeping()
    with capture_logs() as lines:
        async with running(steward_of(backend, memory.handle, sweeping.sweep, pace=POLLED)):
            for number in range(3):
                await sweeping.reaches(sweeping.rounds + 2)
                await on_server(probe_url, KILL_LEADER)
                await publish(backend, call, number)

                assert await memory.has(number)

    # a database that is away is no fault of ours, and no traceback
    told = {line["event"] for line in lines}
    assert "steward.waiting" in told
    assert "steward.failed" not in told


async def test_a_steward_that_is_ended_lets_the_lead_go_and_hands_its_events_back(
    probe: Postgres, call: Call
) -> None:
    backend = sql_backend(probe, STATEMENTS, ProbeSqlStore, utc_now)
    begun = asyncio.Event()

    async def never_ends(_: Delivery, __: ThingHappened) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with running(steward_of(backend, never_ends)):
        await publish(backend, call, 1)
        await begun.wait()

    assert await no_locks(probe)
    memory = Memory()
    async with running(steward_of(backend, memory.handle)):
        assert await memory.has(1)
