"""A lean HTTP/1.1 load client: it shares its core with Postgres, so every microsecond counts.

Each connection plays a script, a generator that yields requests and is sent their answers: a
closed loop, one request in flight per connection. Requests are bytes built beforehand; of an
answer only the status, the length and the body are looked at.
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

NOT_MODIFIED = 304  # what was asked for, where it was asked for
GRACE = 30.0  # seconds an answer may take after its phase has closed


class Request(NamedTuple):
    """`kind` is the name its latencies are kept under."""

    kind: str
    payload: bytes


class Answer(NamedTuple):
    status: int
    body: bytes


Script: TypeAlias = Generator[Request, Answer, None]
Scripts: TypeAlias = "Callable[[Tally], Sequence[Script]]"


@dataclass
class Tally:
    """What one phase saw. Times are perf_counter seconds; only [opens, closes] is measured."""

    opens: float = inf
    closes: float = inf
    limit: int = 200_000
    tolerated: frozenset[int] = frozenset()
    latencies: "dict[str, array[float]]" = field(default_factory=lambda: defaultdict(_seconds))
    answered: Counter[str] = field(default_factory=Counter)  # good ones, warm-up included
    expected: Counter[str] = field(default_factory=Counter)  # refusals that were to be expected
    failures: Counter[str] = field(default_factory=Counter)

    def answer(self, kind: str, status: int, began: float, now: float) -> None:
        """Count an answer by its status."""
        if 200 <= status < 300 or status == NOT_MODIFIED:
            self.keep(kind, began, now)
        elif status in self.tolerated:
            self.expected[f"{kind}: {status}"] += 1
        else:
            self.failures[f"{kind}: {status}"] += 1

    def keep(self, kind: str, began: float, now: float) -> None:
        """Count one good thing, and its latency when it ended inside the measured window."""
        self.answered[kind] += 1
        if self.opens <= now <= self.closes:
            kept = self.latencies[kind]
            kept.append(now - began)
            if len(kept) >= self.limit:
                self.closes = now

    def rate(self, kind: str) -> float:
        """Good answers per second of the measured window."""
        return len(self.latencies[kind]) / max(self.closes - self.opens, 1e-9)

    def percentile(self, kind: str, percent: float) -> float:
        """Nearest rank, in seconds; NaN when nothing was measured."""
        ordered = sorted(self.latencies[kind])
        return ordered[ceil(len(ordered) * percent / 100) - 1] if ordered else nan


def _seconds() -> "array[float]":
    return array("d")


class Connection(asyncio.Protocol):
    """One keep-alive connection playing one script; `done` is set when it has ended."""

    def __init__(self, script: Script, tally: Tally) -> None:
        self._script, self._tally = script, tally
        self._received = b""
        self._request = Request("", b"")
        self._began = 0.0
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
        answer = parse(data)
        if answer is None:
            self._received = data
            return
        self._received = b""
        now = perf_counter()
        self._tally.answer(self._request.kind, answer.status, self._began, now)
        self._go_on(answer, now)

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.done.done():
            self._tally.failures[f"{self._request.kind}: connection lost"] += 1
            self.done.set_result(None)

    def end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self._transport.close()

    def _go_on(self, answer: Answer, now: float) -> None:
        try:
            # The script hears of the last answer too: it may be the end of a longer measure.
            request = self._script.send(answer)
        except StopIteration:
            return self.end()
        return self.end() if now >= self._tally.closes else self._send(request)

    def _send(self, request: Request) -> None:
        self._request = request
        self._began = perf_counter()
        self._transport.write(request.payload)


def parse(data: bytes) -> Answer | None:
    """The answer, or None while it is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    status, head, body = int(data[9:12]), data[:end].lower(), data[end + 4 :]
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        stop = head.find(b"\r\n", at + 17)
        length = int(head[at + 17 : stop if stop >= 0 else end])
        return Answer(status, body) if len(body) >= length else None
    if b"\r\ntransfer-encoding: chunked" in head:
        return Answer(status, _joined(body)) if body.endswith(b"0\r\n\r\n") else None
    return Answer(status, b"")  # 204 and 304


def _joined(chunked: bytes) -> bytes:
    body, rest = b"", chunked
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


def request_bytes(method: str, path: str, body: object = None, **headers: str) -> bytes:
    """A request ready to send. `body`: None, form bytes, or anything JSON can say."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "accept: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    content = body if isinstance(body, bytes) else b"" if body is None else _json(body)
    if body is not None:
        kind = "x-www-form-urlencoded" if isinstance(body, bytes) else "json"
        lines += [f"content-type: application/{kind}", f"content-length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def endless(requests: Sequence[Request], connections: int) -> Scripts:
    """The same requests over and over, shared out between the connections in turn."""
    shared = cycle(requests)
    return lambda _tally: [_endless(shared) for _ in range(connections)]


def _endless(requests: Iterator[Request]) -> Script:
    while True:
        yield next(requests)


async def load(port: int, scripts: Scripts, tally: Tally, warmup: float, seconds: float) -> None:
    """Play the scripts side by side for `warmup` unmeasured and `seconds` measured seconds."""
    connections = await _connect(port, scripts(tally), tally)
    tally.opens = perf_counter() + warmup
    tally.closes = tally.opens + seconds
    await _play(connections, tally, warmup + seconds + GRACE)


async def call_all(port: int, requests: Iterable[Request], at_once: int = 8) -> list[Answer]:
    """Send each request once and return the answers in the same order."""
    wanted = list(requests)
    jobs, answers, tally = enumerate(wanted), dict[int, Answer](), Tally()
    scripts = [_drain(jobs, answers) for _ in range(at_once)]
    await _play(await _connect(port, scripts, tally), tally, 600)
    if len(answers) < len(wanted):
        unanswered = f"{len(wanted) - len(answers)} requests were not answered"
        raise ConnectionError(f"{unanswered}: {dict(tally.failures)}")
    return [answers[index] for index in sorted(answers)]


def _drain(jobs: Iterator[tuple[int, Request]], answers: dict[int, Answer]) -> Script:
    for index, request in jobs:
        answers[index] = yield request


async def _connect(port: int, scripts: Sequence[Script], tally: Tally) -> list[Connection]:
    return [await _connected(port, Connection(script, tally)) for script in scripts]


async def _connected(port: int, connection: Connection) -> Connection:
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, "127.0.0.1", port)
    return connection


async def _play(connections: Sequence[Connection], tally: Tally, patience: float) -> None:
    for connection in connections:
        connection.start()
    _, silent = await asyncio.wait([each.done for each in connections], timeout=patience)
    if silent:
        tally.failures["no answer"] += len(silent)
    for connection in connections:
        connection.end()
