"""The guard: the laws of the split hold in process too.

No neighbour is called from inside a transaction, none by who may not, and none for longer than the
deadline; who gives up does not undo the work; a fault of the neighbour's is no fault of ours.
"""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from markethall.shared.backend import Backend
from markethall.shared.call import Call
from markethall.shared.clock import Clock, utc_now
from markethall.shared.db import Postgres
from markethall.shared.errors import (
    CalledInTransaction,
    DeadlineExceeded,
    Forbidden,
    Internal,
    Malformed,
)
from markethall.shared.guard import AllowList, Errands, Guard, guarded
from markethall.shared.memory import MemoryDatabase
from tests.shared.conftest import ProbeMemoryStore, ProbeTables, Watch


class Neighbour:
    async def greet(self, call: Call, name: str, *, loudly: bool = False) -> str:
        """Says hello."""
        self.asked_in = call.request_id
        return f"hello {name}" + "!" * loudly

    async def refuse(self, call: Call) -> None:
        raise Malformed(f"no to {call.request_id}")

    async def fail(self, call: Call) -> None:  # noqa: ARG002 - a contract's method
        raise KeyError("a secret")

    async def note(self, call: Call) -> None:
        self.called_with = call

    async def work(self, call: Call) -> None:  # noqa: ARG002 - as above
        """Begins, and ends when it may."""
        self.begun.set()
        await self.may_end.wait()
        self.ended.set()

    def __init__(self) -> None:
        self.begun, self.may_end, self.ended = (asyncio.Event() for _ in range(3))


CALL = Call(request_id="test")
METHODS = ("greet", "refuse", "fail", "note", "work")
TABLE = {"greeter": {name: frozenset({"orders"}) for name in METHODS}}


def open_to_orders(
    neighbour: Neighbour,
    caller: str = "orders",
    seconds: float = 5,
    errands: Errands | None = None,
    clock: Clock = utc_now,
) -> Neighbour:
    guard = Guard(caller, "greeter", AllowList(TABLE), errands or Errands(), clock, seconds)
    return guarded(neighbour, guard)


async def test_outside_a_transaction_the_neighbour_answers_as_ever() -> None:
    neighbour = open_to_orders(Neighbour())

    assert await neighbour.greet(CALL, "you", loudly=True) == "hello you!"
    with pytest.raises(Malformed):
        await neighbour.refuse(CALL)


async def test_inside_a_transaction_every_call_fails(backend: Backend[Any]) -> None:
    neighbour = open_to_orders(Neighbour())

    async with backend.database.transaction() as store:
        with pytest.raises(CalledInTransaction, match="greet"):
            await neighbour.greet(CALL, "you")
        await store.add("still usable")

    assert await neighbour.greet(CALL, "you") == "hello you"


async def test_inside_a_reading_too_since_it_holds_a_connection(backend: Backend[Any]) -> None:
    neighbour = open_to_orders(Neighbour())

    async with backend.database.reading():
        with pytest.raises(CalledInTransaction, match="greet"):
            await neighbour.greet(CALL, "you")

    assert await neighbour.greet(CALL, "you") == "hello you"


async def test_another_task_is_free_while_one_is_in_a_transaction(probe: Postgres) -> None:
    neighbour = open_to_orders(Neighbour())
    task = asyncio.Event()

    async def meanwhile() -> str:
        await task.wait()
        return await neighbour.greet(CALL, "you")

    other = asyncio.create_task(meanwhile())
    async with probe.transaction():
        task.set()
        assert await other == "hello you"


# Who may


async def test_who_is_not_in_the_table_is_refused_before_anything_happens() -> None:
    neighbour = Neighbour()

    with pytest.raises(Forbidden) as refusal:
        await open_to_orders(neighbour, caller="payments").note(CALL)

    assert refusal.value.details == {"scope": "greeter.note", "caller": "payments"}
    assert not hasattr(neighbour, "called_with")


async def test_what_is_not_in_the_table_may_nobody() -> None:
    table = AllowList({"greeter": {"greet": frozenset({"orders"})}, "silent": {}})

    table.check("orders", "greeter", "greet")
    for target, method in (("greeter", "note"), ("silent", "greet"), ("nobody", "greet")):
        with pytest.raises(Forbidden):
            table.check("orders", target, method)


# How long


@pytest.mark.parametrize(("seconds", "most"), [(None, 5), (2, 2), (60, 5)])
async def test_the_neighbour_has_until_the_sooner_of_two_deadlines(
    seconds: float | None, most: float
) -> None:
    neighbour, now = Neighbour(), utc_now()
    deadline = now + timedelta(seconds=seconds) if seconds else None

    standing = open_to_orders(neighbour, clock=lambda: now)
    await standing.note(CALL.model_copy(update={"deadline": deadline}))

    assert neighbour.called_with.deadline == now + timedelta(seconds=most)
    assert neighbour.called_with.model_copy(update={"deadline": None}) == CALL


async def test_after_the_deadline_nothing_begins() -> None:
    neighbour = Neighbour()
    late = CALL.model_copy(update={"deadline": utc_now() - timedelta(microseconds=1)})

    with pytest.raises(DeadlineExceeded) as refusal:
        await open_to_orders(neighbour).note(late)

    assert refusal.value.details == {"dependency": "greeter"}
    assert not hasattr(neighbour, "called_with")


async def test_at_the_deadline_the_caller_gives_up_and_the_work_goes_on() -> None:
    neighbour, errands = Neighbour(), Errands()
    hurried = open_to_orders(neighbour, seconds=0.05, errands=errands)

    async with asyncio.timeout(30):
        with pytest.raises(DeadlineExceeded) as refusal:
            await hurried.work(CALL)
    ended_before = neighbour.ended.is_set()
    neighbour.may_end.set()
    await errands.finish(10)

    assert (refusal.value.details, refusal.value.retry_after) == ({"dependency": "greeter"}, 1)
    assert (ended_before, neighbour.ended.is_set()) == (False, True)


async def test_a_caller_who_is_cancelled_does_not_cancel_the_work() -> None:
    neighbour, errands = Neighbour(), Errands()
    asking = asyncio.create_task(open_to_orders(neighbour, errands=errands).work(CALL))
    await neighbour.begun.wait()

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    neighbour.may_end.set()
    await errands.finish(10)

    assert neighbour.ended.is_set()


async def test_the_end_of_the_process_waits_for_what_is_under_way_and_not_for_ever() -> None:
    quick, endless, errands = Neighbour(), Neighbour(), Errands()
    for neighbour in (quick, endless):
        with pytest.raises(DeadlineExceeded):
            await open_to_orders(neighbour, seconds=0.01, errands=errands).work(CALL)
    quick.may_end.set()

    async with asyncio.timeout(30):
        await errands.finish(0.5)
        await errands.finish(0.5)

    assert (quick.ended.is_set(), endless.ended.is_set()) == (True, False)
    assert not errands._going


# What goes wrong there


async def test_a_fault_of_the_neighbour_has_the_id_of_the_request_as_over_the_wire() -> None:
    with capture_logs() as lines, pytest.raises(Internal) as refusal:
        await open_to_orders(Neighbour()).fail(CALL)

    assert refusal.value.details == {"error_id": CALL.request_id}
    assert refusal.value.detail == "Internal error."
    assert [(line["event"], line["request_id"]) for line in lines] == [
        ("neighbour.failed", CALL.request_id)
    ]


async def test_a_fault_that_nobody_waits_for_is_told_all_the_same() -> None:
    class Failing(Neighbour):
        async def work(self, call: Call) -> None:
            await super().work(call)
            raise KeyError("a secret")

    neighbour, errands = Failing(), Errands()
    with pytest.raises(DeadlineExceeded):
        await open_to_orders(neighbour, seconds=0.01, errands=errands).work(CALL)
    with capture_logs() as lines:
        neighbour.may_end.set()
        await errands.finish(10)

    assert [(line["event"], line["request_id"]) for line in lines] == [
        ("neighbour.failed", CALL.request_id)
    ]


async def test_a_memory_database_says_so_when_a_task_would_wait_for_itself(watch: Watch) -> None:
    database = MemoryDatabase(ProbeTables(), ProbeMemoryStore, watch)

    async with database.transaction():
        with pytest.raises(RuntimeError, match="already"):
            async with database.reading():
                pass

    async with database.reading() as store:
        assert await store.count() == 0
