"""Servers on loopback: uvicorn around an application, and a raw server with given responses."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import uvicorn
from starlette.types import ASGIApp

Responder = Callable[[asyncio.StreamWriter], Awaitable[None]]

NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing, so that the server does not replace the signal handlers of the test run."""
        yield


@asynccontextmanager
async def serve_app(app: ASGIApp) -> AsyncIterator[str]:
    """Serve the application with uvicorn and yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@dataclass
class RecordedRequests:
    """The URL of a raw server, and the bytes of the requests that it has received."""

    url: str = ""
    requests: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def raw_server(respond: Responder) -> AsyncIterator[RecordedRequests]:
    """Read one request from each connection and let `respond` write the response."""
    recorded = RecordedRequests()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                recorded.requests.append(await _request(reader))
                await respond(writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    recorded.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield recorded
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = (line.partition(b": ") for line in head.lower().split(b"\r\n"))
    length = next((value for name, _, value in lines if name == b"content-length"), b"0")
    return head + await reader.readexactly(int(length))


def fixed_response(status: str, body: bytes, *headers: str) -> Responder:
    """Return a responder that always sends this response."""
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    content = "\r\n".join([*head, "", ""]).encode() + body

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()

    return respond
