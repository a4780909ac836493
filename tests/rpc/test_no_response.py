"""Silence: how often a neighbour is asked who does not answer, how long, and when not any more."""

import asyncio
import json
import random
from collections.abc import Callable
from datetime import timedelta

import httpx2
import pytest

from markethall.shared.kernel.circuit_breaker import Breaker
from markethall.shared.kernel.errors import DeadlineExceeded, Unavailable
from markethall.shared.rpc.client import RetryBudget, RetryPolicy
from tests.rpc.probe_contract import CALL, ProbeService, calling, hello, over, over_tcp, refusal_of
from tests.rpc.tcp import bare, saying
from tests.rpc_loopback import now

Handler = Callable[[httpx2.Request], httpx2.Response]


def dead(asked: list[bytes]) -> Handler:
    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.content)
        raise httpx2.ConnectError("nobody")

    return handler


async def test_three_attempts_with_same_ids() -> None:
    asked: list[bytes] = []

    refusal = await refusal_of(over(dead(asked)).greet(CALL, hello("Ada")))

    assert type(refusal) is Unavailable
    assert refusal.details == {"dependency": "greeter"}
    assert (len(asked), len(set(asked))) == (3, 1)


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("'NoneType' object has no attribute 'getpeername'"),
        OSError(107, "Transport endpoint is not connected"),
    ],
    ids=["no socket", "no peer"],
)
async def test_read_errors_count_as_no_response(error: Exception) -> None:
    """The client lets such errors through as they are, seen with a proxy that resets."""
    asked: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.content)
        raise error

    refusal = await refusal_of(over(handler).greet(CALL, hello("Ada")))

    assert type(refusal) is Unavailable
    assert len(asked) == 3


async def test_retry_budget_limits_extra_calls_to_a_tenth() -> None:
    asked: list[bytes] = []
    remote = over(dead(asked))

    for _ in range(100):
        await refusal_of(remote.greet(CALL, hello()))

    assert 100 < len(asked) <= 100 + 10 + 100 * 0.1


def test_retry_budget_is_capped_at_ten() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()

    assert sum(budget.spend() for _ in range(100)) == 10


async def test_backoff_is_exponential_with_full_jitter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = []

    def none(least: float, most: float) -> float:
        limits.append((least, most))
        return 0

    monkeypatch.setattr(random, "uniform", none)
    await refusal_of(over(dead([]), RetryPolicy(initial_backoff_seconds=0.05)).greet(CALL, hello()))

    assert limits == [(0, 0.1), (0, 0.2)]


async def test_no_attempt_after_deadline() -> None:
    asked: list[bytes] = []
    late = CALL.model_copy(update={"deadline": now() - timedelta(seconds=1)})

    refusal = await refusal_of(over(dead(asked)).greet(late, hello()))

    assert type(refusal) is DeadlineExceeded
    assert (refusal.details, asked) == ({"dependency": "greeter"}, [])


async def test_backoff_never_exceeds_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    monkeypatch.setattr(random, "uniform", lambda *_: 3600)

    async with asyncio.timeout(30):
        refusal = await refusal_of(
            over(dead(asked), RetryPolicy(total_timeout_seconds=0.2)).greet(CALL, hello())
        )

    assert type(refusal) is DeadlineExceeded
    assert len(asked) == 1


async def test_timed_out_call_is_retried_until_deadline() -> None:
    async def never(_: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    patience = RetryPolicy(
        attempt_timeout_seconds=0.3,
        max_attempts=100,
        total_timeout_seconds=2,
        initial_backoff_seconds=0.001,
    )
    async with bare(never) as told, calling(told.url, patience) as remote:
        refusal = await refusal_of(remote.greet(CALL, hello()))

    assert isinstance(refusal, Unavailable)
    assert 2 <= len(told.asked) <= 8


async def test_slow_response_is_cut_at_attempt_timeout() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    patience = RetryPolicy(attempt_timeout_seconds=1, max_attempts=2, initial_backoff_seconds=0.001)
    async with bare(drip) as told, calling(told.url, patience) as remote, asyncio.timeout(30):
        # a million bytes would take three hours
        refusal = await refusal_of(remote.greet(CALL, hello()))

    assert type(refusal) is Unavailable
    assert len(told.asked) == 2


async def test_truncated_response_is_retried_with_same_ids() -> None:
    command = hello("Ada")
    whole = json.dumps({"greet_id": str(command.greet_id), "words": "hi"}).encode()
    answers = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(whole), whole),
    ]

    async def cut(writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))
        await writer.drain()

    async with bare(cut) as told, calling(told.url) as remote:
        answer = await remote.greet(CALL, command)

    bodies = {asked.partition(b"\r\n\r\n")[2] for asked in told.asked}
    assert answer.words == "hi"
    assert (len(told.asked), len(bodies)) == (3, 1)


async def test_refused_connection_is_unavailable() -> None:
    async with bare(saying("200 OK", b"")) as told:
        pass
    async with calling(told.url) as remote:
        refusal = await refusal_of(remote.greet(CALL, hello()))

    assert type(refusal) is Unavailable


class Hands:
    """A clock that goes only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_circuit_opens_probes_once_and_closes() -> None:
    hands, asked, wave = Hands(), [0], hello()
    probing, answered = asyncio.Event(), asyncio.Event()

    async def handler(_: httpx2.Request) -> httpx2.Response:
        asked[0] += 1
        if not hands.now:
            raise httpx2.ConnectError("nobody")
        probing.set()
        await answered.wait()
        return httpx2.Response(204)

    remote = over(handler)
    remote.wire._breaker = Breaker(hands, failure_threshold=5, cool_down_seconds=1)
    for _ in range(10):
        await refusal_of(remote.wave(CALL, wave))
    while_open = asked[0]
    hands.now = 1
    probe = asyncio.create_task(remote.wave(CALL, wave))
    await probing.wait()
    meanwhile = await refusal_of(remote.wave(CALL, wave))
    answered.set()
    await probe
    await remote.wave(CALL, wave)

    assert (while_open, type(meanwhile)) == (5, Unavailable)
    assert asked[0] == 7


# Giving up


async def test_caller_timeout_does_not_undo_remote_work() -> None:
    greeter, started, go_on = ProbeService(), asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        await go_on.wait()

    greeter.meanwhile = wait
    async with over_tcp(greeter) as remote:
        asking = asyncio.create_task(remote.greet(CALL, hello()))
        await started.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        go_on.set()
        await asyncio.wait_for(greeter.done.wait(), 10)

    assert len(greeter.calls) == 1
