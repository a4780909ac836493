"""Calls without a response: retries, retry budget, deadlines and the circuit breaker."""

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
from tests.rpc.probe_contract import (
    CTX,
    ProbeService,
    client_with_handler,
    error_of,
    greet_command,
    open_client,
    open_client_over_tcp,
)
from tests.rpc.tcp import fixed_response, raw_server
from tests.rpc_loopback import now

Handler = Callable[[httpx2.Request], httpx2.Response]


def failing_handler(requests: list[bytes]) -> Handler:
    def handler(request: httpx2.Request) -> httpx2.Response:
        requests.append(request.content)
        raise httpx2.ConnectError("refused")

    return handler


async def test_three_attempts_with_same_ids() -> None:
    requests: list[bytes] = []

    error = await error_of(
        client_with_handler(failing_handler(requests)).greet(CTX, greet_command("Ada"))
    )

    assert type(error) is Unavailable
    assert error.details == {"dependency": "probe"}
    assert (len(requests), len(set(requests))) == (3, 1)


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("'NoneType' object has no attribute 'getpeername'"),
        OSError(107, "Transport endpoint is not connected"),
    ],
    ids=["no socket", "no peer"],
)
async def test_read_errors_count_as_no_response(error: Exception) -> None:
    """A proxy that resets connections causes these errors of httpx2."""
    requests: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        requests.append(request.content)
        raise error

    error = await error_of(client_with_handler(handler).greet(CTX, greet_command("Ada")))

    assert type(error) is Unavailable
    assert len(requests) == 3


async def test_retry_budget_limits_extra_calls_to_a_tenth() -> None:
    requests: list[bytes] = []
    remote = client_with_handler(failing_handler(requests))

    for _ in range(100):
        await error_of(remote.greet(CTX, greet_command()))

    assert 100 < len(requests) <= 100 + 10 + 100 * 0.1


def test_retry_budget_is_capped_at_ten() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()

    assert sum(budget.spend() for _ in range(100)) == 10


async def test_backoff_is_exponential_with_full_jitter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounds = []

    def no_pause(lowest: float, highest: float) -> float:
        bounds.append((lowest, highest))
        return 0

    monkeypatch.setattr(random, "uniform", no_pause)
    await error_of(
        client_with_handler(failing_handler([]), RetryPolicy(initial_backoff_seconds=0.05)).greet(
            CTX, greet_command()
        )
    )

    assert bounds == [(0, 0.1), (0, 0.2)]


async def test_no_attempt_after_deadline() -> None:
    requests: list[bytes] = []
    expired = CTX.model_copy(update={"deadline": now() - timedelta(seconds=1)})

    error = await error_of(
        client_with_handler(failing_handler(requests)).greet(expired, greet_command())
    )

    assert type(error) is DeadlineExceeded
    assert (error.details, requests) == ({"dependency": "probe"}, [])


async def test_backoff_never_exceeds_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []
    monkeypatch.setattr(random, "uniform", lambda *_: 3600)

    async with asyncio.timeout(30):
        error = await error_of(
            client_with_handler(
                failing_handler(requests), RetryPolicy(total_timeout_seconds=0.2)
            ).greet(CTX, greet_command())
        )

    assert type(error) is DeadlineExceeded
    assert len(requests) == 1


async def test_timed_out_call_is_retried_until_deadline() -> None:
    async def never_respond(_: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    retry_policy = RetryPolicy(
        attempt_timeout_seconds=0.3,
        max_attempts=100,
        total_timeout_seconds=2,
        initial_backoff_seconds=0.001,
    )
    async with (
        raw_server(never_respond) as recorded,
        open_client(recorded.url, retry_policy) as remote,
    ):
        error = await error_of(remote.greet(CTX, greet_command()))

    assert isinstance(error, Unavailable)
    assert 2 <= len(recorded.requests) <= 8


async def test_slow_response_is_cut_at_attempt_timeout() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    retry_policy = RetryPolicy(
        attempt_timeout_seconds=1, max_attempts=2, initial_backoff_seconds=0.001
    )
    async with (
        raw_server(drip) as recorded,
        open_client(recorded.url, retry_policy) as remote,
        asyncio.timeout(30),
    ):
        # at this rate a body of a million bytes takes three hours
        error = await error_of(remote.greet(CTX, greet_command()))

    assert type(error) is Unavailable
    assert len(recorded.requests) == 2


async def test_truncated_response_is_retried_with_same_ids() -> None:
    command = greet_command("Ada")
    content = json.dumps({"greet_id": str(command.greet_id), "text": "hi"}).encode()
    responses = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(content), content),
    ]

    async def send_truncated(writer: asyncio.StreamWriter) -> None:
        writer.write(responses.pop(0))
        await writer.drain()

    async with raw_server(send_truncated) as recorded, open_client(recorded.url) as remote:
        response = await remote.greet(CTX, command)

    bodies = {request.partition(b"\r\n\r\n")[2] for request in recorded.requests}
    assert response.text == "hi"
    assert (len(recorded.requests), len(bodies)) == (3, 1)


async def test_refused_connection_is_unavailable() -> None:
    async with raw_server(fixed_response("200 OK", b"")) as recorded:
        pass
    async with open_client(recorded.url) as remote:
        error = await error_of(remote.greet(CTX, greet_command()))

    assert type(error) is Unavailable


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_circuit_opens_probes_once_and_closes() -> None:
    clock, requests, command = FakeClock(), [0], greet_command()
    probing, released = asyncio.Event(), asyncio.Event()

    async def handler(_: httpx2.Request) -> httpx2.Response:
        requests[0] += 1
        if not clock.now:
            raise httpx2.ConnectError("refused")
        probing.set()
        await released.wait()
        return httpx2.Response(204)

    remote = client_with_handler(handler)
    remote.client._breaker = Breaker(clock, failure_threshold=5, cool_down_seconds=1)
    for _ in range(10):
        await error_of(remote.wave(CTX, command))
    requests_while_open = requests[0]
    clock.now = 1
    probe = asyncio.create_task(remote.wave(CTX, command))
    await probing.wait()
    rejected = await error_of(remote.wave(CTX, command))
    released.set()
    await probe
    await remote.wave(CTX, command)

    assert (requests_while_open, type(rejected)) == (5, Unavailable)
    assert requests[0] == 7


# Cancelled callers


async def test_caller_timeout_does_not_undo_remote_work() -> None:
    service, started, released = ProbeService(), asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        await released.wait()

    service.before_response = wait
    async with open_client_over_tcp(service) as remote:
        caller = asyncio.create_task(remote.greet(CTX, greet_command()))
        await started.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        released.set()
        await asyncio.wait_for(service.finished.wait(), 10)

    assert len(service.calls) == 1
