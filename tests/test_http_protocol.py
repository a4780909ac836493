"""Connections to the real server: slow and endless request heads, kept and pipelined ones."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from markethall.app import create_app
from markethall.http_protocol import MAX_HEADER_BYTES
from markethall.server import GracefulServer, listen_socket, server_config
from tests.test_app import memory_settings

HEADER_TIMEOUT_SECONDS = 0.2


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class _Server(GracefulServer):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signal handlers of the test run alone."""
        yield


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(self, *headers: bytes, method: bytes = b"GET", path: bytes = b"/health") -> Reply:
        self.send(request(*headers, method=method, path=path))
        return await self.reply(method)

    async def reply(self, method: bytes = b"GET") -> Reply:
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            length = 0 if method == b"HEAD" else int(headers.get("content-length", 0))
            return Reply(int(head[0].split()[1]), headers, await self.reader.readexactly(length))

    async def is_closed(self) -> bool:
        async with asyncio.timeout(30):
            return await self.reader.read() == b""


def request(*headers: bytes, method: bytes = b"GET", path: bytes = b"/health") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nHost: shop\r\n" + b"".join(headers) + b"\r\n"


@asynccontextmanager
async def connected(body_timeout: float) -> AsyncIterator[Connection]:
    settings = memory_settings(body_timeout=body_timeout)
    with listen_socket("127.0.0.1", 0) as listener:
        server = _Server(server_config(create_app(settings), settings))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            port = listener.getsockname()[1]
            connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
            yield connection
            connection.writer.close()
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
async def impatient() -> AsyncIterator[Connection]:
    """A connection that has little time for the head of a request."""
    async with connected(HEADER_TIMEOUT_SECONDS) as connection:
        yield connection


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    async with connected(body_timeout=30) as connection:
        yield connection


@pytest.mark.parametrize("start", [b"", b"G", b"GET /health HTTP/1.1\r\nHo"])
async def test_a_head_that_does_not_arrive_closes_the_connection(
    impatient: Connection, start: bytes
) -> None:
    impatient.send(start)

    assert await impatient.is_closed()


async def test_more_bytes_of_a_head_do_not_extend_its_time(impatient: Connection) -> None:
    impatient.send(b"GET /health HTTP/1.1\r\nX: ")

    async with asyncio.timeout(30):
        while not impatient.reader.at_eof():
            impatient.send(b"x")
            await asyncio.wait([asyncio.ensure_future(impatient.reader.read(1))], timeout=0.02)


async def test_half_a_head_behind_a_response_closes_the_connection(impatient: Connection) -> None:
    impatient.send(request() + b"GET / HTTP/1.1\r\nHo")

    assert (await impatient.reply()).status == 200
    assert await impatient.is_closed()


async def test_a_connection_in_use_outlives_the_time_for_a_head(impatient: Connection) -> None:
    statuses = []
    for _ in range(40):
        statuses.append((await impatient.ask()).status)
        await asyncio.sleep(0.01)  # longer in all than a head may take

    assert statuses == [200] * 40


@pytest.mark.parametrize("part", [b"x" * 1000, b"x: y\r\n" * 200])
async def test_a_head_without_end_is_refused(connection: Connection, part: bytes) -> None:
    connection.send(b"GET /health HTTP/1.1\r\nHost: shop\r\nx: ")
    for _ in range(MAX_HEADER_BYTES // len(part) + 1):
        connection.send(part)

    assert (await connection.reply()).status == 431


async def test_large_headers_of_several_requests_are_not_added_up(connection: Connection) -> None:
    header = b"X-Much: " + b"x" * 30_000 + b"\r\n"

    statuses = [(await connection.ask(header)).status for _ in range(5)]

    assert statuses == [200] * 5


async def test_pipelined_requests_are_answered_in_order(connection: Connection) -> None:
    paths = [b"/products?limit=3", b"/health", b"/products?limit=3", b"/nothing"] * 100

    connection.send(b"".join([request(path=path) for path in paths]))
    replies = [await connection.reply() for _ in paths]

    assert [reply.status for reply in replies] == [200, 200, 200, 404] * 100
    assert {reply.body for reply in replies[0::4]} == {replies[2].body}
    assert replies[1].body != replies[0].body


async def test_a_body_that_no_route_reads_is_not_the_next_request(connection: Connection) -> None:
    connection.send(request(b"Content-Length: 5\r\n") + b"hello")
    first = await connection.reply()
    second = await connection.ask()

    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body


async def test_the_connection_closes_when_the_client_asks_for_it(connection: Connection) -> None:
    reply = await connection.ask(b"Connection: close\r\n")

    assert reply.status == 200
    assert reply.headers["connection"] == "close"
    assert await connection.is_closed()
