"""Silence: how often a neighbour is asked who does not answer, how long, and when not any more."""

import asyncio
import json
import random
from collections.abc import Callable
from datetime import timedelta

import httpx2
import pytest

from markethall.shared.breaker import Breaker
from markethall.shared.errors import DeadlineExceeded, Unavailable
from markethall.shared.wire import Patience, RetryBudget
from tests.remote import now
from tests.wire.greeter import CALL, Greeter, calling, hello, over, over_tcp, refusal_of
from tests.wire.tcp import bare, saying

Handler = Callable[[httpx2.Request], httpx2.Response]


def dead(asked: list[bytes]) -> Handler:
    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.content)
        raise httpx2.ConnectError("nobody")

    return handler


async def test_three_attempts_with_the_same_ids_and_no_more() -> None:
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
async def test_a_connection_that_ends_while_it_is_looked_at_is_silence(error: Exception) -> None:
    """The client lets such errors through as they are, seen with a proxy that resets."""
    asked: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.content)
        raise error

    refusal = await refusal_of(over(handler).greet(CALL, hello("Ada")))

    assert type(refusal) is Unavailable
    assert len(asked) == 3


async def test_a_hundred_calls_of_a_dead_neighbour_cost_a_tenth_more() -> None:
    asked: list[bytes] = []
    remote = over(dead(asked))

    for _ in range(100):
        await refusal_of(remote.greet(CALL, hello()))

    assert 100 < len(asked) <= 100 + 10 + 100 * 0.1


def test_retries_are_saved_up_and_no_more_than_ten() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()

    assert sum(budget.spend() for _ in range(100)) == 10


async def test_pauses_are_anywhere_below_a_limit_that_doubles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = []

    def none(least: float, most: float) -> float:
        limits.append((least, most))
        return 0

    monkeypatch.setattr(random, "uniform", none)
    await refusal_of(over(dead([]), Patience(first_pause=0.05)).greet(CALL, hello()))

    assert limits == [(0, 0.1), (0, 0.2)]


async def test_nothing_is_asked_after_the_deadline() -> None:
    asked: list[bytes] = []
    late = CALL.model_copy(update={"deadline": now() - timedelta(seconds=1)})

    refusal = await refusal_of(over(dead(asked)).greet(late, hello()))

    assert type(refusal) is DeadlineExceeded
    assert (refusal.details, asked) == ({"dependency": "greeter"}, [])


async def test_no_pause_reaches_beyond_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    monkeypatch.setattr(random, "uniform", lambda *_: 3600)

    async with asyncio.timeout(30):
        refusal = await refusal_of(over(dead(asked), Patience(total=0.2)).greet(CALL, hello()))

    assert type(refusal) is DeadlineExceeded
    assert len(asked) == 1


async def test_who_does_not_answer_in_time_is_asked_until_the_deadline() -> None:
    async def never(_: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    patience = Patience(attempt=0.3, attempts=100, total=2, first_pause=0.001)
    async with bare(never) as told, calling(told.url, patience) as remote:
        refusal = await refusal_of(remote.greet(CALL, hello()))

    assert isinstance(refusal, Unavailable)
    assert 2 <= len(told.asked) <= 8


async def test_a_neighbour_that_drips_is_cut_at_the_limit_of_an_attempt() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    patience = Patience(attempt=1, attempts=2, first_pause=0.001)
    async with bare(drip) as told, calling(told.url, patience) as remote, asyncio.timeout(30):
        # a million bytes would take three hours
        refusal = await refusal_of(remote.greet(CALL, hello()))

    assert type(refusal) is Unavailable
    assert len(told.asked) == 2


async def test_an_answer_that_is_cut_off_is_asked_for_again_with_the_same_ids() -> None:
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


async def test_nobody_at_that_port_is_unavailable() -> None:
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


async def test_who_never_answers_is_left_alone_then_probed_once_then_asked_again() -> None:
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
    remote.wire._breaker = Breaker(hands, failures=5, cool_down=1)
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


async def test_giving_up_does_not_undo_the_work_of_the_neighbour() -> None:
    greeter, started, go_on = Greeter(), asyncio.Event(), asyncio.Event()

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

    assert len(greeter.heard) == 1
