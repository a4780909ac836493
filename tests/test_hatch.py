"""What is ready is written by the server itself: the same answers, on the same connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs

from markethall.inventory.contract import ProductChange
from markethall.local import demo
from markethall.main import Hall, create_app
from markethall.server import HallServer, hall_config, listening
from markethall.shared.call import system_call
from markethall.shared.limits import REQUESTS
from markethall.shared.metrics import REGISTRY
from tests.test_app import memory_settings

PATH = b"/products?limit=3"
HEAD = b"Host: hall\r\n"
AGENT = b'User-Agent: a"b\\c\xe4\r\n'
# the long way, and nothing else that shows
LONG = b"X-Request-ID: a-name-of-my-own\r\n"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class _Server(HallServer):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The signals of this process are those of the tests."""
        yield


@dataclass
class Line:
    """A connection that is kept open."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, *headers: bytes, method: bytes = b"GET", path: bytes = PATH) -> Reply:
        self.writer.write(request(*headers, method=method, path=path))
        return await self.reply(method)

    async def reply(self, method: bytes = b"GET") -> Reply:
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = [line.split(": ", 1) for line in head[1:] if line]
            headers = dict(fields)
            length = 0 if method == b"HEAD" else int(headers.get("content-length", 0))
            return Reply(int(head[0].split()[1]), headers, await self.reader.readexactly(length))

    @property
    async def ended(self) -> bool:
        async with asyncio.timeout(30):
            return await self.reader.read() == b""


def request(*headers: bytes, method: bytes = b"GET", path: bytes = PATH) -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n" + HEAD + b"".join(headers) + b"\r\n"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[Hall, int]]:
    """A hall in memory behind its own server, whose cache does not grow old."""
    given = memory_settings(**settings)
    app = create_app(given)
    hall = app.state.container
    hall.cache()._clock = lambda: 0.0
    with listening("127.0.0.1", 0) as door:
        app.state.server = server = _Server(hall_config(app, given), drain_seconds=0)
        task = asyncio.create_task(server.serve([door]))
        await demo.fill(hall.catalogue(), hall.stockroom(), system_call("test"))
        try:
            yield app, door.getsockname()[1]
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def calling(app: Hall, port: int) -> AsyncIterator[Line]:
    """To a hall that has the page ready."""
    line = Line(*await asyncio.open_connection("127.0.0.1", port))
    try:
        await line.ask()
        path, _, query = PATH.partition(b"?")
        scope = {"path": path.decode(), "query_string": query}
        assert app.state.container.warm().find(scope) is not None
        yield line
    finally:
        line.writer.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with serving() as (app, port), calling(app, port) as line:
        yield line


def seen(reply: Reply) -> Reply:
    """Without what is another's each time."""
    own = {"x-request-id", "date", "ratelimit"}
    return reply._replace(headers={k: v for k, v in reply.headers.items() if k not in own})


@pytest.mark.parametrize("header", [b"", b"If-None-Match: *\r\n", b'If-None-Match: "v1-x"\r\n'])
async def test_it_is_the_answer_of_the_long_way(line: Line, header: bytes) -> None:
    with capture_logs() as lines:
        short, second, again = [await line.ask(header, AGENT) for _ in range(3)]
        long = await line.ask(header, AGENT, LONG)

    assert seen(short) == seen(second) == seen(again) == seen(long)
    assert list(short.headers) == list(again.headers)
    assert [entry.pop("request_id") for entry in lines] == [
        *(reply.headers["x-request-id"] for reply in (short, second, again)),
        "a-name-of-my-own",
    ]
    assert all(entry.pop("duration_ms") >= 0 for entry in lines)
    assert lines[1:] == lines[:-1]
    assert len({tuple(entry) for entry in lines}) == 1


async def test_each_way_is_counted(line: Line) -> None:
    labels = {"method": "GET", "route": "/products", "status": "200"}
    before = REGISTRY.get_sample_value("markethall_http_requests_total", labels) or 0

    for header in (b"", b"", b"", LONG):
        await line.ask(header)

    assert REGISTRY.get_sample_value("markethall_http_requests_total", labels) == before + 4


async def test_bytes_that_came_twice_are_not_read_again() -> None:
    async with serving() as (app, port), calling(app, port) as line:
        for _ in range(2):
            await line.ask()
        server = app.state.server.server_state
        [protocol] = server.connections
        counted, protocol.parser = server.total_requests, None

        statuses = [(await line.ask()).status for _ in range(3)]

        assert statuses == [200] * 3
        assert server.total_requests == counted + 3


async def test_a_change_of_what_it_shows_reaches_who_asks_with_the_same_bytes() -> None:
    async with serving() as (app, port), calling(app, port) as line:
        hall = app.state.container
        cup = await hall.catalogue().product_by_sku(system_call("test"), "CUP-STONE-BLUE")
        path = f"/products/{cup.product_id}".encode()
        etag = (await line.ask(path=path)).headers["etag"].encode()
        known = [await line.ask(b"If-None-Match: " + etag + b"\r\n", path=path) for _ in range(3)]

        change = ProductChange.model_validate({"name": "Cup of another name"})
        await hall.catalogue().change(system_call("test"), cup.product_id, change, {cup.version})
        changed = [await line.ask(b"If-None-Match: " + etag + b"\r\n", path=path) for _ in range(3)]

    assert [reply.status for reply in known] == [304] * 3
    assert [reply.status for reply in changed] == [200] * 3
    assert {json.loads(reply.body)["name"] for reply in changed} == {"Cup of another name"}


async def test_a_connection_has_many_answers_in_the_order_of_its_questions(line: Line) -> None:
    paths = [PATH, b"/products?limit=2", b"/health", PATH, b"/nothing"] * 200

    line.writer.write(b"".join([request(path=path) for path in paths]))
    replies = [await line.reply() for _ in paths]

    assert [reply.status for reply in replies] == [200, 200, 200, 200, 404] * 200
    assert {reply.body for reply in replies[0::5]} == {replies[3].body}
    assert replies[1].body != replies[0].body


async def test_many_that_wait_behind_a_slow_one_are_not_answered_inside_each_other(
    line: Line,
) -> None:
    paths = [b"/nothing", *[PATH] * 1500]

    line.writer.write(b"".join([request(path=path) for path in paths]))
    replies = [await line.reply() for _ in paths]

    assert [reply.status for reply in replies] == [404, *[200] * 1500]


async def test_who_asks_for_the_end_has_it(line: Line) -> None:
    reply = await line.ask(b"Connection: close\r\n")

    assert reply.status == 200
    assert reply.headers["connection"] == "close"
    assert await line.ended


async def test_head_has_no_body(line: Line) -> None:
    whole = await line.ask()
    head = await line.ask(method=b"HEAD")
    after = await line.ask()

    assert head.headers["content-length"] == str(len(whole.body))
    assert after.body == whole.body


async def test_a_body_that_nobody_asked_for_does_no_harm(line: Line) -> None:
    line.writer.write(request(b"Content-Length: 5\r\n") + b"hello")
    first = await line.reply()
    second = await line.ask()

    assert first.body == second.body


async def test_a_line_in_use_outlives_the_patience_for_heads() -> None:
    async with serving(body_timeout="0.2") as (app, port), calling(app, port) as line:
        statuses = []
        for _ in range(40):
            statuses.append((await line.ask()).status)
            # longer in all than a head may take
            await asyncio.sleep(0.01)

        assert statuses == [200] * 40


async def test_half_a_head_behind_an_answer_is_not_waited_for_for_ever() -> None:
    async with serving(body_timeout="0.2") as (app, port), calling(app, port) as line:
        line.writer.write(request() + b"GET / HTTP/1.1\r\nHo")

        assert (await line.reply()).status == 200
        assert await line.ended


async def test_the_limit_counts_what_is_handed_out() -> None:
    async with serving(rate_limits="on") as (app, port), calling(app, port) as line:
        short = await line.ask()
        long = await line.ask(LONG)
        spent = [(await line.ask()).status for _ in range(REQUESTS.amount - 3)]
        before = _refusals()
        refused = await line.ask()

    policy, left = f'"{REQUESTS.name}"', REQUESTS.amount
    assert short.headers["ratelimit"].startswith(f"{policy};r={left - 2};")
    assert long.headers["ratelimit"].startswith(f"{policy};r={left - 3};")
    assert seen(short) == seen(long)
    assert set(spent) == {200}
    assert refused.status == 429
    assert _refusals() == before + 1


def _refusals() -> float:
    labels = {"policy": REQUESTS.name}
    return REGISTRY.get_sample_value("markethall_rate_limited_total", labels) or 0


async def test_behind_a_proxy_of_ours_each_client_has_a_limit_of_its_own() -> None:
    proxied = {"rate_limits": "on", "trusted_proxies": "127.0.0.1/32"}
    async with serving(**proxied) as (app, port), calling(app, port) as line:
        with capture_logs() as lines:
            one = await line.ask(b"X-Forwarded-For: 192.0.2.1\r\n")
            other = await line.ask(b"X-Forwarded-For: 192.0.2.2\r\n")
            for _ in range(3):
                again = await line.ask(b"X-Forwarded-For: 192.0.2.1\r\n")

    assert [entry["client_ip"] for entry in lines[:2]] == ["192.0.2.1", "192.0.2.2"]
    assert {entry["client_ip"] for entry in lines[2:]} == {"192.0.2.1"}
    assert one.headers["ratelimit"] == other.headers["ratelimit"]
    assert f";r={REQUESTS.amount - 4};" in again.headers["ratelimit"]
