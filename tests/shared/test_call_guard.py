"""The guard: the laws of the split hold in process too.

No neighbour is called from inside a transaction, none by who may not, and none for longer than the
deadline; who gives up does not undo the work; a fault of the neighbour's is no fault of ours.
"""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock, utc_now
from markethall.shared.kernel.errors import (
    CalledWhileHoldingConnection,
    DeadlineExceeded,
    Forbidden,
    InternalError,
    MalformedRequest,
)
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.rpc.client_interceptor import (
    AllowList,
    CallGuard,
    InFlightCalls,
    with_call_guard,
)
from tests.shared.conftest import FakeClock, ProbeMemoryStore, ProbeTables


class Neighbour:
    async def greet(self, ctx: CallContext, name: str, *, loudly: bool = False) -> str:
        """Says hello."""
        self.asked_in = ctx.request_id
        return f"hello {name}" + "!" * loudly

    async def refuse(self, ctx: CallContext) -> None:
        raise MalformedRequest(f"no to {ctx.request_id}")

    async def fail(self, ctx: CallContext) -> None:
        raise KeyError("a secret")

    async def note(self, ctx: CallContext) -> None:
        self.called_with = ctx

    async def work(self, ctx: CallContext) -> None:
        """Begins, and ends when it may."""
        self.begun.set()
        await self.may_end.wait()
        self.ended.set()

    def __init__(self) -> None:
        self.begun, self.may_end, self.ended = (asyncio.Event() for _ in range(3))


CALL = CallContext(request_id="test")
METHODS = ("greet", "refuse", "fail", "note", "work")
TABLE = {"greeter": {name: frozenset({"orders"}) for name in METHODS}}


def open_to_orders(
    neighbour: Neighbour,
    caller: str = "orders",
    seconds: float = 5,
    errands: InFlightCalls | None = None,
    clock: Clock = utc_now,
) -> Neighbour:
    guard = CallGuard(
        caller, "greeter", AllowList(TABLE), errands or InFlightCalls(), clock, seconds
    )
    return with_call_guard(neighbour, guard)


async def test_call_outside_transaction_succeeds() -> None:
    neighbour = open_to_orders(Neighbour())

    assert await neighbour.greet(CALL, "you", loudly=True) == "hello you!"
    with pytest.raises(MalformedRequest):
        await neighbour.refuse(CALL)


async def test_call_inside_transaction_fails(backend: ContextPersistence[Any]) -> None:
    neighbour = open_to_orders(Neighbour())

    async with backend.database.transaction() as store:
        with pytest.raises(CalledWhileHoldingConnection, match="greet"):
            await neighbour.greet(CALL, "you")
        await store.add("still usable")

    assert await neighbour.greet(CALL, "you") == "hello you"


async def test_call_inside_read_session_fails(backend: ContextPersistence[Any]) -> None:
    neighbour = open_to_orders(Neighbour())

    async with backend.database.read_session():
        with pytest.raises(CalledWhileHoldingConnection, match="greet"):
            await neighbour.greet(CALL, "you")

    assert await neighbour.greet(CALL, "you") == "hello you"


async def test_call_in_other_task_succeeds_during_transaction(probe: Postgres) -> None:
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


async def test_disallowed_caller_is_rejected_before_call() -> None:
    neighbour = Neighbour()

    with pytest.raises(Forbidden) as refusal:
        await open_to_orders(neighbour, caller="payments").note(CALL)

    assert refusal.value.details == {"scope": "greeter.note", "caller": "payments"}
    assert not hasattr(neighbour, "called_with")


async def test_unlisted_method_is_rejected() -> None:
    table = AllowList({"greeter": {"greet": frozenset({"orders"})}, "silent": {}})

    table.check("orders", "greeter", "greet")
    for target, method in (("greeter", "note"), ("silent", "greet"), ("nobody", "greet")):
        with pytest.raises(Forbidden):
            table.check("orders", target, method)


# How long


@pytest.mark.parametrize(("seconds", "most"), [(None, 5), (2, 2), (60, 5)])
async def test_earlier_deadline_applies(seconds: float | None, most: float) -> None:
    neighbour, now = Neighbour(), utc_now()
    deadline = now + timedelta(seconds=seconds) if seconds else None

    standing = open_to_orders(neighbour, clock=lambda: now)
    await standing.note(CALL.model_copy(update={"deadline": deadline}))

    assert neighbour.called_with.deadline == now + timedelta(seconds=most)
    assert neighbour.called_with.model_copy(update={"deadline": None}) == CALL


async def test_no_call_starts_after_deadline() -> None:
    neighbour = Neighbour()
    late = CALL.model_copy(update={"deadline": utc_now() - timedelta(microseconds=1)})

    with pytest.raises(DeadlineExceeded) as refusal:
        await open_to_orders(neighbour).note(late)

    assert refusal.value.details == {"dependency": "greeter"}
    assert not hasattr(neighbour, "called_with")


async def test_timeout_does_not_stop_work() -> None:
    neighbour, errands = Neighbour(), InFlightCalls()
    hurried = open_to_orders(neighbour, seconds=0.05, errands=errands)

    async with asyncio.timeout(30):
        with pytest.raises(DeadlineExceeded) as refusal:
            await hurried.work(CALL)
    ended_before = neighbour.ended.is_set()
    neighbour.may_end.set()
    await errands.drain(10)

    assert (refusal.value.details, refusal.value.retry_after) == ({"dependency": "greeter"}, 1)
    assert (ended_before, neighbour.ended.is_set()) == (False, True)


async def test_cancelled_caller_does_not_cancel_work() -> None:
    neighbour, errands = Neighbour(), InFlightCalls()
    asking = asyncio.create_task(open_to_orders(neighbour, errands=errands).work(CALL))
    await neighbour.begun.wait()

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    neighbour.may_end.set()
    await errands.drain(10)

    assert neighbour.ended.is_set()


async def test_shutdown_waits_for_calls_with_a_limit() -> None:
    quick, endless, errands = Neighbour(), Neighbour(), InFlightCalls()
    for neighbour in (quick, endless):
        with pytest.raises(DeadlineExceeded):
            await open_to_orders(neighbour, seconds=0.01, errands=errands).work(CALL)
    quick.may_end.set()

    async with asyncio.timeout(30):
        await errands.drain(0.5)
        await errands.drain(0.5)

    assert (quick.ended.is_set(), endless.ended.is_set()) == (True, False)
    assert not errands._tasks


# What goes wrong there


async def test_internal_error_has_request_id_as_over_http() -> None:
    with capture_logs() as lines, pytest.raises(InternalError) as refusal:
        await open_to_orders(Neighbour()).fail(CALL)

    assert refusal.value.details == {"error_id": CALL.request_id}
    assert refusal.value.detail == "Internal error."
    assert [(line["event"], line["request_id"]) for line in lines] == [
        ("rpc.handler_failed", CALL.request_id)
    ]


async def test_unawaited_error_is_logged() -> None:
    class Failing(Neighbour):
        async def work(self, ctx: CallContext) -> None:
            await super().work(ctx)
            raise KeyError("a secret")

    neighbour, errands = Failing(), InFlightCalls()
    with pytest.raises(DeadlineExceeded):
        await open_to_orders(neighbour, seconds=0.01, errands=errands).work(CALL)
    with capture_logs() as lines:
        neighbour.may_end.set()
        await errands.drain(10)

    assert [(line["event"], line["request_id"]) for line in lines] == [
        ("rpc.handler_failed", CALL.request_id)
    ]


async def test_nested_memory_transaction_is_rejected(clock: FakeClock) -> None:
    database = MemoryDatabase(ProbeTables(), ProbeMemoryStore, clock)

    async with database.transaction():
        with pytest.raises(RuntimeError, match="already"):
            async with database.read_session():
                pass

    async with database.read_session() as store:
        assert await store.count() == 0
