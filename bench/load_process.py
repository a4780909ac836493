"""A load generator in a process of its own, so that it cannot slow down other measurements.

In an open loop a request is sent when it is due, whatever happens to the requests before it. A
closed loop sends a request only after the response to the previous one, so it slows down with the
server and hides the latencies that customers would have.
"""

import asyncio
import multiprocessing
import resource
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from math import ceil, nan
from time import perf_counter
from typing import Final, NamedTuple, cast

from .client import Request, Tally, load, parse, repeat
from .loop import Loop

GRACE_SECONDS: Final = 10.0  # time for the last responses
REFUSED: Final = frozenset({429, 503})


class DueRequest(NamedTuple):
    """A request that is due `seconds` after the start of the phase."""

    seconds: float
    payload: bytes


class Response(NamedTuple):
    """A response. `seconds` is its time since the start of the phase."""

    seconds: float
    latency: float


@dataclass
class Outcome:
    """The responses of one phase. Latencies are seconds from the moment a request was due."""

    accepted: list[Response] = field(default_factory=list)
    refused: list[Response] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    max_delay: float = 0.0  # seconds by which the generator itself sent a request late
    cpu_seconds: float = 0.0  # CPU seconds of the generator

    @property
    def sent(self) -> int:
        return len(self.accepted) + len(self.refused) + sum(self.failures.values())


def percentile(seconds: Sequence[float], percent: float) -> float:
    """Return the percentile, or NaN if there are no values."""
    ordered = sorted(seconds)
    return ordered[ceil(len(ordered) * percent / 100) - 1] if ordered else nan


class LoadProcess:
    """Runs phases in another process, which stays on the cores of the thread that starts it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(1, mp_context=context)

    def close(self) -> None:
        self._executor.shutdown()

    def start_open_loop(self, port: int, requests: Sequence[DueRequest]) -> Future[Outcome]:
        """Send each request when it is due."""
        return self._executor.submit(_run_open_loop, port, requests)

    def start_closed_loop(
        self, port: int, requests: Sequence[Request], connections: int, seconds: float
    ) -> Future[Tally]:
        """Repeat the requests. A connection sends the next one at once, also after a rejection."""
        return self._executor.submit(_run_closed_loop, port, requests, connections, seconds)


def _run_closed_loop(
    port: int, requests: Sequence[Request], connections: int, seconds: float
) -> Tally:
    tally = Tally(tolerated=REFUSED)
    with closing(Loop()) as loop:
        loop.do(load(port, repeat(requests, connections), tally, 0, seconds))
    return tally


def _run_open_loop(port: int, requests: Sequence[DueRequest]) -> Outcome:
    before = _cpu_seconds()
    with closing(Loop()) as loop:
        outcome = loop.do(_OpenLoop(port).run(requests))
    outcome.cpu_seconds = _cpu_seconds() - before
    return outcome


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class _OpenLoop:
    """Sends each request on an idle connection, or on a new one if none is idle."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.idle: list[_Connection] = []
        self.outcome = Outcome()

    async def run(self, requests: Sequence[DueRequest]) -> Outcome:
        started = perf_counter()
        sending = []
        for request in sorted(requests):
            ahead = started + request.seconds - perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            self.outcome.max_delay = max(self.outcome.max_delay, -ahead)
            sending.append(asyncio.create_task(self._send(request, started)))
        _, late = await asyncio.wait(sending, timeout=GRACE_SECONDS)
        if late:
            self.outcome.failures["no response"] += len(late)
        for connection in self.idle:
            connection.transport.close()
        return self.outcome

    async def _send(self, request: DueRequest, started: float) -> None:
        due = started + request.seconds
        try:
            connection = self.idle.pop() if self.idle else await self._connect()
            status, has_retry_after = await connection.send(request.payload)
        except OSError as error:
            self.outcome.failures[type(error).__name__] += 1
            return
        self.idle.append(connection)
        now = perf_counter()
        response = Response(now - started, now - due)
        if 200 <= status < 300:
            self.outcome.accepted.append(response)
        elif status in REFUSED and has_retry_after:
            self.outcome.refused.append(response)
        else:
            self.outcome.failures[f"status {status}, Retry-After: {has_retry_after}"] += 1

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        return connection


class _Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request in progress."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._received = b""
        self._response: asyncio.Future[tuple[int, bool]] | None = None

    async def send(self, payload: bytes) -> tuple[int, bool]:
        """Return the status, and whether the response has Retry-After. Raises ConnectionError."""
        self._received = b""
        self._response = asyncio.get_running_loop().create_future()
        self.transport.write(payload)
        return await self._response

    def data_received(self, data: bytes) -> None:
        self._received += data
        response = parse(self._received)
        if response is not None and self._response and not self._response.done():
            head = self._received.partition(b"\r\n\r\n")[0].lower()
            self._response.set_result((response.status, b"\r\nretry-after:" in head))

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._response and not self._response.done():
            self._response.set_exception(ConnectionResetError("connection lost"))
