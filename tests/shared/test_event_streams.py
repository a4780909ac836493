"""Streamed responses of a real server: clients that do not read, and clients that disconnect."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import Receive, Scope, Send

from markethall.http_protocol import HttpProtocol, ServerConfig
from markethall.shared.http.event_streams import EventStreamResponse

EVENT = b"data: " + b"x" * 65_536 + b"\n\n"


class EndlessStream:
    """An application that streams events as fast as the client reads them."""

    def __init__(self) -> None:
        self.sent = 0
        self.closed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = EventStreamResponse(self._events(), lambda event: event)
        response.send_timeout_seconds = 0.3
        await response(scope, receive, send)

    async def _events(self) -> AsyncGenerator[bytes | None, None]:
        try:
            while True:
                self.sent += 1
                yield EVENT
                await asyncio.sleep(0)
        finally:
            self.closed.set()


@asynccontextmanager
async def connection_to(app: EndlessStream) -> AsyncIterator[socket.socket]:
    """Serve the application, and yield a connection that has requested the stream."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = ServerConfig(app, http=HttpProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, listener.getsockname())
    await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    try:
        yield client
    finally:
        client.close()
        server.should_exit = True
        async with asyncio.timeout(20):
            await serving


async def test_client_that_does_not_read_is_disconnected_and_uses_little_memory() -> None:
    app = EndlessStream()

    async with connection_to(app) as client:
        async with asyncio.timeout(20):
            await app.closed.wait()
        sent = app.sent
        async with asyncio.timeout(20):
            received = await read_to_end(client)

    # the server has discarded the unsent data and the end of the response
    assert len(received) < sent * len(EVENT)
    assert not received.endswith(b"0\r\n\r\n")
    # an upper bound of the buffers of the kernel, plus one event in the buffer of the server
    assert sent * len(EVENT) < 32 * 1024 * 1024


async def read_to_end(client: socket.socket) -> bytes:
    received = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(client, 65_536):
        received += data
    return bytes(received)


async def test_disconnect_closes_the_stream() -> None:
    app = EndlessStream()

    async with connection_to(app) as client:
        assert await asyncio.get_running_loop().sock_recv(client, 10)
        client.close()
        async with asyncio.timeout(20):
            await app.closed.wait()
