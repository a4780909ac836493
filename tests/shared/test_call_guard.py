"""The call guard: allow-list, calls during a transaction, deadlines, exceptions of the callee."""

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
)
from tests.shared.conftest import FakeClock, ProbeMemoryStore, ProbeTables


class ProbeService:
    async def greet(self, ctx: CallContext, name: str, *, loudly: bool = False) -> str:
        self.request_id = ctx.request_id
        return f"hello {name}" + "!" * loudly

    async def reject(self, ctx: CallContext) -> None:
        raise MalformedRequest(f"rejected {ctx.request_id}")

    async def fail(self, ctx: CallContext) -> None:
        raise KeyError("a secret")

    async def record(self, ctx: CallContext) -> None:
        self.called_with = ctx

    async def work(self, ctx: CallContext) -> None:
        """Set `started`, wait for `released`, then set `ended`."""
        self.started.set()
        await self.released.wait()
        self.ended.set()

    def __init__(self) -> None:
        self.started, self.released, self.ended = (asyncio.Event() for _ in range(3))


class GuardedProbe:
    def __init__(self, service: ProbeService, guard: CallGuard) -> None:
        self._service = service
        self._guard = guard

    async def greet(self, ctx: CallContext, name: str, *, loudly: bool = False) -> str:
        return await self._guard.invoke(
            ctx, "greet", lambda ctx: self._service.greet(ctx, name, loudly=loudly)
        )

    async def reject(self, ctx: CallContext) -> None:
        await self._guard.invoke(ctx, "reject", self._service.reject)

    async def fail(self, ctx: CallContext) -> None:
        await self._guard.invoke(ctx, "fail", self._service.fail)

    async def record(self, ctx: CallContext) -> None:
        await self._guard.invoke(ctx, "record", self._service.record)

    async def work(self, ctx: CallContext) -> None:
        await self._guard.invoke(ctx, "work", self._service.work)


CALL = CallContext(request_id="test")
METHODS = ("greet", "reject", "fail", "record", "work")
ALLOWED_CALLS = {"probe": {name: frozenset({"orders"}) for name in METHODS}}


def with_guard(
    service: ProbeService,
    caller: str = "orders",
    seconds: float = 5,
    in_flight: InFlightCalls | None = None,
    clock: Clock = utc_now,
) -> GuardedProbe:
    guard = CallGuard(
        caller, "probe", AllowList(ALLOWED_CALLS), in_flight or InFlightCalls(), clock, seconds
    )
    return GuardedProbe(service, guard)


async def test_call_outside_transaction_succeeds() -> None:
    service = with_guard(ProbeService())

    assert await service.greet(CALL, "you", loudly=True) == "hello you!"
    with pytest.raises(MalformedRequest):
        await service.reject(CALL)


async def test_call_inside_transaction_fails(backend: ContextPersistence[Any]) -> None:
    service = with_guard(ProbeService())

    async with backend.database.transaction() as store:
        with pytest.raises(CalledWhileHoldingConnection, match="greet"):
            await service.greet(CALL, "you")
        await store.add("still usable")

    assert await service.greet(CALL, "you") == "hello you"


async def test_call_inside_read_session_fails(backend: ContextPersistence[Any]) -> None:
    service = with_guard(ProbeService())

    async with backend.database.read_session():
        with pytest.raises(CalledWhileHoldingConnection, match="greet"):
            await service.greet(CALL, "you")

    assert await service.greet(CALL, "you") == "hello you"


async def test_call_in_other_task_succeeds_during_transaction(probe: Postgres) -> None:
    service = with_guard(ProbeService())
    transaction_started = asyncio.Event()

    async def call_later() -> str:
        await transaction_started.wait()
        return await service.greet(CALL, "you")

    other = asyncio.create_task(call_later())
    async with probe.transaction():
        transaction_started.set()
        assert await other == "hello you"


# The allow-list


async def test_disallowed_caller_is_rejected_before_call() -> None:
    service = ProbeService()

    with pytest.raises(Forbidden) as raised:
        await with_guard(service, caller="payments").record(CALL)

    assert raised.value.details == {"scope": "probe.record", "caller": "payments"}
    assert not hasattr(service, "called_with")


async def test_unlisted_method_is_rejected() -> None:
    allow_list = AllowList({"probe": {"greet": frozenset({"orders"})}, "other": {}})

    allow_list.check("orders", "probe", "greet")
    for target, method in (("probe", "record"), ("other", "greet"), ("unknown", "greet")):
        with pytest.raises(Forbidden):
            allow_list.check("orders", target, method)


# Deadlines


@pytest.mark.parametrize(("seconds", "expected"), [(None, 5), (2, 2), (60, 5)])
async def test_earlier_deadline_applies(seconds: float | None, expected: float) -> None:
    service, now = ProbeService(), utc_now()
    deadline = now + timedelta(seconds=seconds) if seconds else None

    guarded = with_guard(service, clock=lambda: now)
    await guarded.record(CALL.model_copy(update={"deadline": deadline}))

    assert service.called_with.deadline == now + timedelta(seconds=expected)
    assert service.called_with.model_copy(update={"deadline": None}) == CALL


async def test_no_call_starts_after_deadline() -> None:
    service = ProbeService()
    expired = CALL.model_copy(update={"deadline": utc_now() - timedelta(microseconds=1)})

    with pytest.raises(DeadlineExceeded) as raised:
        await with_guard(service).record(expired)

    assert raised.value.details == {"dependency": "probe"}
    assert not hasattr(service, "called_with")


async def test_timeout_does_not_stop_work() -> None:
    service, in_flight = ProbeService(), InFlightCalls()
    guarded = with_guard(service, seconds=0.05, in_flight=in_flight)

    async with asyncio.timeout(30):
        with pytest.raises(DeadlineExceeded) as raised:
            await guarded.work(CALL)
    ended_before = service.ended.is_set()
    service.released.set()
    await in_flight.drain(10)

    assert (raised.value.details, raised.value.retry_after) == ({"dependency": "probe"}, 1)
    assert (ended_before, service.ended.is_set()) == (False, True)


async def test_cancelled_caller_does_not_cancel_work() -> None:
    service, in_flight = ProbeService(), InFlightCalls()
    caller = asyncio.create_task(with_guard(service, in_flight=in_flight).work(CALL))
    await service.started.wait()

    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    service.released.set()
    await in_flight.drain(10)

    assert service.ended.is_set()


async def test_shutdown_waits_for_calls_with_a_limit() -> None:
    finishing, endless, in_flight = ProbeService(), ProbeService(), InFlightCalls()
    for service in (finishing, endless):
        with pytest.raises(DeadlineExceeded):
            await with_guard(service, seconds=0.01, in_flight=in_flight).work(CALL)
    finishing.released.set()

    async with asyncio.timeout(30):
        await in_flight.drain(0.5)
        await in_flight.drain(0.5)

    assert (finishing.ended.is_set(), endless.ended.is_set()) == (True, False)
    assert not in_flight._tasks


# Bugs of the callee


async def test_internal_error_has_request_id_as_over_http() -> None:
    with capture_logs() as lines, pytest.raises(InternalError) as raised:
        await with_guard(ProbeService()).fail(CALL)

    assert raised.value.details == {"error_id": CALL.request_id}
    assert raised.value.detail == "Internal error."
    assert [(line["event"], line["request_id"]) for line in lines] == [
        ("rpc.handler_failed", CALL.request_id)
    ]


async def test_unawaited_error_is_logged() -> None:
    class Failing(ProbeService):
        async def work(self, ctx: CallContext) -> None:
            await super().work(ctx)
            raise KeyError("a secret")

    service, in_flight = Failing(), InFlightCalls()
    with pytest.raises(DeadlineExceeded):
        await with_guard(service, seconds=0.01, in_flight=in_flight).work(CALL)
    with capture_logs() as lines:
        service.released.set()
        await in_flight.drain(10)

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
