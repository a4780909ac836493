"""A minimal HTTP/1.1 load client. It shares a core with Postgres, so it must use little CPU.

Each connection runs a script: a generator that yields requests and receives their responses. A
connection sends a request only after the response to the previous one. Requests are bytes that are
built before the measurement; of a response only status, length and body are parsed.
"""

import asyncio
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from math import ceil, inf, nan
from time import perf_counter
from typing import NamedTuple, TypeAlias, cast

NOT_MODIFIED = 304  # counts as a success, because conditional requests expect it
GRACE_SECONDS = 30.0  # time for the last responses after the end of a phase


class Request(NamedTuple):
    """A request. The tally groups latencies by `kind`."""

    kind: str
    payload: bytes


class Response(NamedTuple):
    status: int
    body: bytes


Script: TypeAlias = Generator[Request, Response, None]
Scripts: TypeAlias = "Callable[[Tally], Sequence[Script]]"


@dataclass
class Tally:
    """The results of one phase.

    Only responses between the times `opens` and `closes` (perf_counter) are measured. The phase
    ends early after `limit` latencies of one kind. A status in `tolerated` counts as an expected
    rejection.
    """

    opens: float = inf
    closes: float = inf
    limit: int = 200_000
    tolerated: frozenset[int] = frozenset()
    latencies: "dict[str, array[float]]" = field(default_factory=lambda: defaultdict(_seconds))
    answered: Counter[str] = field(default_factory=Counter)  # successes, including the warm-up
    expected: Counter[str] = field(default_factory=Counter)  # expected rejections
    failures: Counter[str] = field(default_factory=Counter)

    def response(self, kind: str, status: int, started: float, now: float) -> None:
        """Count a response by its status."""
        if 200 <= status < 300 or status == NOT_MODIFIED:
            self.add_success(kind, started, now)
        elif status in self.tolerated:
            self.expected[f"{kind}: {status}"] += 1
        else:
            self.failures[f"{kind}: {status}"] += 1

    def add_success(self, kind: str, started: float, now: float) -> None:
        """Count a success, and record its latency if it lies between `opens` and `closes`."""
        self.answered[kind] += 1
        if self.opens <= now <= self.closes:
            latencies = self.latencies[kind]
            latencies.append(now - started)
            if len(latencies) >= self.limit:
                self.closes = now

    def rate(self, kind: str) -> float:
        """Return the successes per second between `opens` and `closes`."""
        return len(self.latencies[kind]) / max(self.closes - self.opens, 1e-9)

    def percentile(self, kind: str, percent: float) -> float:
        """Return the percentile of the latencies in seconds; NaN if there are none."""
        ordered = sorted(self.latencies[kind])
        return ordered[ceil(len(ordered) * percent / 100) - 1] if ordered else nan


def _seconds() -> "array[float]":
    return array("d")


class Connection(asyncio.Protocol):
    """A keep-alive connection that runs one script; `done` is set when the script has ended."""

    def __init__(self, script: Script, tally: Tally) -> None:
        self._script, self._tally = script, tally
        self._received = b""
        self._request = Request("", b"")
        self._started = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def start(self) -> None:
        try:
            self._send(next(self._script))
        except StopIteration:
            self.end()

    def data_received(self, data: bytes) -> None:
        data = self._received + data if self._received else data
        response = parse(data)
        if response is None:
            self._received = data
            return
        self._received = b""
        now = perf_counter()
        self._tally.response(self._request.kind, response.status, self._started, now)
        self._continue(response, now)

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.done.done():
            self._tally.failures[f"{self._request.kind}: connection lost"] += 1
            self.done.set_result(None)

    def end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self._transport.close()

    def _continue(self, response: Response, now: float) -> None:
        try:
            # the script gets the last response too, because a measurement may span several requests
            request = self._script.send(response)
        except StopIteration:
            return self.end()
        return self.end() if now >= self._tally.closes else self._send(request)

    def _send(self, request: Request) -> None:
        self._request = request
        self._started = perf_counter()
        self._transport.write(request.payload)


def parse(data: bytes) -> Response | None:
    """Return the response, or None while it is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    status, head, body = int(data[9:12]), data[:end].lower(), data[end + 4 :]
    position = head.find(b"\r\ncontent-length:")
    if position >= 0:
        line_end = head.find(b"\r\n", position + 17)
        length = int(head[position + 17 : line_end if line_end >= 0 else end])
        return Response(status, body) if len(body) >= length else None
    if b"\r\ntransfer-encoding: chunked" in head:
        return Response(status, _join_chunks(body)) if body.endswith(b"0\r\n\r\n") else None
    return Response(status, b"")  # 204 and 304 have no body


def _join_chunks(chunked: bytes) -> bytes:
    body, rest = b"", chunked
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


def request_bytes(method: str, path: str, body: object = None, **headers: str) -> bytes:
    """Return the bytes of a request. `body` is None, the bytes of a form, or a JSON value."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "accept: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    content = body if isinstance(body, bytes) else b"" if body is None else _json(body)
    if body is not None:
        kind = "x-www-form-urlencoded" if isinstance(body, bytes) else "json"
        lines += [f"content-type: application/{kind}", f"content-length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def repeat(requests: Sequence[Request], connections: int) -> Scripts:
    """Return scripts that repeat the requests. All connections take them from one sequence."""
    requests_in_turn = cycle(requests)
    return lambda _tally: [_repeat(requests_in_turn) for _ in range(connections)]


def _repeat(requests: Iterator[Request]) -> Script:
    while True:
        yield next(requests)


def pay_all(requests: Sequence[Sequence[Request]]) -> Scripts:
    """Return one script per customer, which sends the requests of the customer in order."""
    return lambda _: [_in_order(own_requests) for own_requests in requests]


def _in_order(requests: Sequence[Request]) -> Script:
    for request in requests:  # noqa: UP028 - the script receives responses by send()
        yield request


async def load(port: int, scripts: Scripts, tally: Tally, warmup: float, seconds: float) -> None:
    """Run the scripts concurrently: `warmup` seconds unmeasured, then `seconds` measured."""
    connections = await _connect(port, scripts(tally), tally)
    tally.opens = perf_counter() + warmup
    tally.closes = tally.opens + seconds
    await _run(connections, tally, warmup + seconds + GRACE_SECONDS)


async def call_all(port: int, requests: Iterable[Request], concurrency: int = 8) -> list[Response]:
    """Send each request once and return the responses in the same order."""
    all_requests = list(requests)
    numbered, responses, tally = enumerate(all_requests), dict[int, Response](), Tally()
    scripts = [_send_all(numbered, responses) for _ in range(concurrency)]
    await _run(await _connect(port, scripts, tally), tally, 600)
    if len(responses) < len(all_requests):
        message = f"{len(all_requests) - len(responses)} requests got no response"
        raise ConnectionError(f"{message}: {dict(tally.failures)}")
    return [responses[index] for index in sorted(responses)]


def _send_all(numbered: Iterator[tuple[int, Request]], responses: dict[int, Response]) -> Script:
    for index, request in numbered:
        responses[index] = yield request


async def _connect(port: int, scripts: Sequence[Script], tally: Tally) -> list[Connection]:
    return [await _open(port, Connection(script, tally)) for script in scripts]


async def _open(port: int, connection: Connection) -> Connection:
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, "127.0.0.1", port)
    return connection


async def _run(connections: Sequence[Connection], tally: Tally, limit_seconds: float) -> None:
    for connection in connections:
        connection.start()
    _, pending = await asyncio.wait(
        [connection.done for connection in connections], timeout=limit_seconds
    )
    if pending:
        tally.failures["no response"] += len(pending)
    for connection in connections:
        connection.end()
