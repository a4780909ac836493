"""Servers on loopback: a real one around an application, and one that says what a test says."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import uvicorn
from starlette.types import ASGIApp

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]

NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The signals of this process are those of the tests."""
        yield


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[str]:
    """The address of the application behind the server that the hall has."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([door]))
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@dataclass
class Told:
    """What a bare server was asked: the head and the body of each request."""

    url: str = ""
    asked: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def bare(answer: Answer) -> AsyncIterator[Told]:
    """Reads one request from each connection, and leaves what comes back to `answer`."""
    told = Told()
    going: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                told.asked.append(await _request(reader))
                await answer(writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(talk(reader, writer))
        going.add(task)
        task.add_done_callback(going.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield told
    finally:
        server.close()
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = (line.partition(b": ") for line in head.lower().split(b"\r\n"))
    length = next((value for name, _, value in lines if name == b"content-length"), b"0")
    return head + await reader.readexactly(int(length))


def saying(status: str, body: bytes, *headers: str) -> Answer:
    """The same answer to everybody."""
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    whole = "\r\n".join([*head, "", ""]).encode() + body

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(whole)
        await writer.drain()

    return answer
