"""Test connections to the real server: slow and oversized headers, keep-alive, pipelining."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from markethall.app import create_app
from markethall.http_protocol import MAX_HEADER_BYTES, HttpProtocol, JoiningTransport
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
        """Do nothing, so that the server does not replace the signal handlers of the test run."""
        yield


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def send_and_receive(
        self, *headers: bytes, method: bytes = b"GET", path: bytes = b"/health"
    ) -> Reply:
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
async def open_connection(
    body_timeout: float, app: ASGIApp | None = None
) -> AsyncIterator[Connection]:
    settings = memory_settings(body_timeout=body_timeout)
    with listen_socket("127.0.0.1", 0) as listener:
        server = _Server(server_config(app or create_app(settings), settings))
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
async def short_timeout() -> AsyncIterator[Connection]:
    """A connection with a short timeout for request headers."""
    async with open_connection(HEADER_TIMEOUT_SECONDS) as connection:
        yield connection


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    async with open_connection(body_timeout=30) as connection:
        yield connection


@pytest.mark.parametrize("start", [b"", b"G", b"GET /health HTTP/1.1\r\nHo"])
async def test_missing_header_end_closes_connection_after_timeout(
    short_timeout: Connection, start: bytes
) -> None:
    short_timeout.send(start)

    assert await short_timeout.is_closed()


async def test_more_header_bytes_do_not_extend_the_timeout(short_timeout: Connection) -> None:
    short_timeout.send(b"GET /health HTTP/1.1\r\nX: ")
    closing = asyncio.ensure_future(short_timeout.is_closed())

    while not closing.done():
        short_timeout.send(b"x")
        await asyncio.wait([closing], timeout=0.02)

    # bytes that arrive after the server has closed the connection cause a reset
    assert isinstance(closing.exception(), ConnectionError) or closing.result()


async def test_partial_header_after_a_response_closes_connection(short_timeout: Connection) -> None:
    short_timeout.send(request() + b"GET / HTTP/1.1\r\nHo")

    assert (await short_timeout.reply()).status == 200
    assert await short_timeout.is_closed()


async def test_active_connection_outlives_header_timeout(short_timeout: Connection) -> None:
    statuses = []
    for _ in range(40):
        statuses.append((await short_timeout.send_and_receive()).status)
        await asyncio.sleep(0.01)  # 0.4 s in all, longer than the header timeout

    assert statuses == [200] * 40


@pytest.mark.parametrize("part", [b"x" * 1000, b"x: y\r\n" * 200])
async def test_oversized_header_is_rejected(connection: Connection, part: bytes) -> None:
    connection.send(b"GET /health HTTP/1.1\r\nHost: shop\r\nx: ")
    for _ in range(MAX_HEADER_BYTES // len(part) + 1):
        connection.send(part)

    assert (await connection.reply()).status == 431


async def test_header_limit_applies_per_request(connection: Connection) -> None:
    header = b"X-Much: " + b"x" * 30_000 + b"\r\n"

    statuses = [(await connection.send_and_receive(header)).status for _ in range(5)]

    assert statuses == [200] * 5


async def test_pipelined_requests_are_answered_in_order(connection: Connection) -> None:
    paths = [b"/products?limit=3", b"/health", b"/products?limit=3", b"/nothing"] * 100

    connection.send(b"".join([request(path=path) for path in paths]))
    replies = [await connection.reply() for _ in paths]

    assert [reply.status for reply in replies] == [200, 200, 200, 404] * 100
    assert {reply.body for reply in replies[0::4]} == {replies[2].body}
    assert replies[1].body != replies[0].body


async def test_unread_body_is_not_parsed_as_next_request(connection: Connection) -> None:
    connection.send(request(b"Content-Length: 5\r\n") + b"hello")
    first = await connection.reply()
    second = await connection.send_and_receive()

    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body


async def test_connection_close_header_closes_connection(connection: Connection) -> None:
    reply = await connection.send_and_receive(b"Connection: close\r\n")

    assert reply.status == 200
    assert reply.headers["connection"] == "close"
    assert await connection.is_closed()


async def one_round_trip(connection: Connection) -> None:
    """Wait until the server has read all data that was sent earlier on any connection.

    The server runs on this event loop, so it has read the data when it answers a later request.
    """
    address = connection.writer.get_extra_info("peername")
    other = Connection(*await asyncio.open_connection(*address))
    other.send(request())
    await other.reader.readuntil(b"\r\n")
    other.writer.close()


class ProbeApp:
    """An application that responds with the names of the request headers.

    It reads the whole request, sends two bytes of the response, and sends the rest after `go_on`.
    """

    def __init__(self) -> None:
        self.has_started = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        names = b",".join(sorted(name for name, _ in scope["headers"]))
        length = str(len(names)).encode()
        headers = [(b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": names[:2], "more_body": True})
        self.has_started.set()
        await self.go_on.wait()
        await send({"type": "http.response.body", "body": names[2:]})


@pytest.fixture
def probe() -> ProbeApp:
    return ProbeApp()


@pytest.fixture
async def probed(probe: ProbeApp) -> AsyncIterator[Connection]:
    async with open_connection(30, probe) as connection:
        yield connection
        probe.go_on.set()  # otherwise the server waits for the response until its shutdown timeout


async def test_trailer_fields_are_ignored(probe: ProbeApp, probed: Connection) -> None:
    probe.go_on.set()
    probed.send(request(b"Transfer-Encoding: chunked\r\n", method=b"POST"))
    probed.send(b"2\r\n{}\r\n0\r\n")
    probed.send(b"Authorization: Bearer x\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
    first = await probed.reply()
    second = await probed.send_and_receive(b"X-Real: 1\r\n")

    assert first.body == b"host,transfer-encoding"
    assert second.body == b"host,x-real"


@pytest.mark.parametrize("part", [b"x" * 1000, b"x: y\r\n" * 200])
async def test_oversized_trailers_are_rejected(
    probe: ProbeApp, probed: Connection, part: bytes
) -> None:
    probe.go_on.set()
    probed.send(request(b"Transfer-Encoding: chunked\r\n", method=b"POST"))
    probed.send(b"2\r\n{}\r\n0\r\nx: ")
    await probed.writer.drain()
    await one_round_trip(probed)
    for _ in range(MAX_HEADER_BYTES // len(part) + 1):
        probed.send(part)

    assert (await probed.reply()).status == 431
    assert await probed.is_closed()


async def test_body_in_small_chunks_is_no_large_header(probe: ProbeApp, probed: Connection) -> None:
    probe.go_on.set()
    probed.send(request(b"Transfer-Encoding: chunked\r\n", method=b"POST"))
    for _ in range(MAX_HEADER_BYTES // 1000):
        probed.send(b"1\r\nx\r\n" * 1000)
        await probed.writer.drain()
    probed.send(b"0\r\n\r\n")

    assert (await probed.reply()).status == 200


@pytest.mark.parametrize(
    ("next_request", "status"),
    [(b"GET / HTTP/1.1\r\nx: " + b"y" * (MAX_HEADER_BYTES + 1), 431), (b"\x00\x01\r\n\r\n", 400)],
    ids=["too large", "invalid"],
)
async def test_error_of_next_request_follows_running_response(
    probe: ProbeApp, probed: Connection, next_request: bytes, status: int
) -> None:
    probed.send(request())
    await probe.has_started.wait()
    probed.send(next_request)
    await probed.writer.drain()
    await one_round_trip(probed)
    probe.go_on.set()
    first, second = await probed.reply(), await probed.reply()

    assert (first.status, first.body) == (200, b"host")
    assert second.status == status
    assert await probed.is_closed()


async def test_invalid_chunk_is_rejected_at_once(probed: Connection) -> None:
    probed.send(request(b"Transfer-Encoding: chunked\r\n", method=b"POST") + b"zz\r\n")

    assert (await probed.reply()).status == 400
    assert await probed.is_closed()


class RecordingTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 80)})
        self.calls: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.calls.append(bytes(data))

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.calls


async def test_headers_and_body_are_sent_in_one_write() -> None:
    transport, app = RecordingTransport(), ProbeApp()
    app.go_on.set()
    config = server_config(app, memory_settings())
    config.load()
    protocol = HttpProtocol(config, ServerState(), {})

    protocol.connection_made(transport)
    protocol.data_received(request())
    while not transport.calls:
        await asyncio.sleep(0)
    protocol.connection_lost(None)

    (response,) = transport.calls[:-1]
    assert isinstance(response, bytes)
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b"\r\n\r\nhost")


async def test_writes_of_an_unfinished_response_wait_for_one_iteration_only() -> None:
    recorded = RecordingTransport()
    transport = JoiningTransport(recorded, asyncio.get_running_loop())

    transport.write(b"1")
    transport.write(b"2")
    assert recorded.calls == []
    await asyncio.sleep(0)
    assert recorded.calls == [b"12"]
    transport.write(b"3")
    await asyncio.sleep(0)

    assert recorded.calls == [b"12", b"3"]


async def test_large_write_does_not_wait() -> None:
    recorded = RecordingTransport()
    transport = JoiningTransport(recorded, asyncio.get_running_loop())

    transport.write(b"1")
    transport.write(b"2" * 100_000)

    assert recorded.calls == [b"1" + b"2" * 100_000]


async def test_close_sends_the_waiting_writes_and_abort_drops_them() -> None:
    closed, aborted = RecordingTransport(), RecordingTransport()
    for recorded in (closed, aborted):
        transport = JoiningTransport(recorded, asyncio.get_running_loop())
        transport.write(b"1")
        transport.close() if recorded is closed else transport.abort()
    await asyncio.sleep(0)

    assert (closed.calls, aborted.calls) == ([b"1", "close"], ["abort"])
