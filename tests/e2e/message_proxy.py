"""A TCP proxy in front of Postgres that counts messages and kills a process at a planned message.

It reads the stream from the client by the rules of the Postgres protocol: a message has a type of
one byte and a length of four bytes. The first messages of a connection have no type.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

_LENGTH_BYTES: Final = 4
# these requests come before the startup message, and Postgres answers each with one byte
_PROLOGUE_CODES: Final = frozenset({80877103, 80877104})  # SSLRequest, GSSENCRequest
_CHUNK: Final = 65536


class MessageProxy:
    """Counts the messages of all connections. A message is counted before it is forwarded."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.port = 0
        self.count = 0
        self._kill_at: tuple[int, int] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def kill_at_message(self, number: int, pid: int) -> None:
        """Start a new count, and kill the process when it sends the message with this number.

        Postgres gets this message, and none of the process after it.
        """
        self.count = 0
        self._kill_at = (number, pid)

    def clear_kill_plan(self) -> None:
        self._kill_at = None

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        writers = {writer, server_writer}
        self._writers |= writers
        answers = asyncio.create_task(_forward(server_reader, writer))
        try:
            # the end of the stream, also within a message, ends the connection to Postgres
            with suppress(asyncio.IncompleteReadError, OSError):
                await self._forward_messages(reader, server_writer)
        finally:
            answers.cancel()
            self._writers -= writers
            for each in writers:
                each.close()

    async def _forward_messages(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        is_started = False
        while True:
            kind = await reader.readexactly(1) if is_started else b""
            head = await reader.readexactly(_LENGTH_BYTES)
            body = await reader.readexactly(int.from_bytes(head) - _LENGTH_BYTES)
            is_started = is_started or int.from_bytes(body[:4]) not in _PROLOGUE_CODES
            is_last = self._count_message()
            writer.write(kind + head + body)
            if is_last:
                self._end_other_connections(writer)
                await writer.drain()
                return
            await writer.drain()

    def _count_message(self) -> bool:
        """Count a message. At the planned message, kill the process and return True."""
        self.count += 1
        if self._kill_at is None or self.count < self._kill_at[0]:
            return False
        _, pid = self._kill_at
        self._kill_at = None
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def _end_other_connections(self, last: asyncio.StreamWriter) -> None:
        """Discard the data that the killed process has sent on its other connections."""
        for writer in self._writers - {last}:
            writer.transport.abort()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def message_proxy(database_url: str) -> AsyncIterator[tuple[MessageProxy, str]]:
    """Run a proxy during the block. Yield it, and the URL of the database through it."""
    parts = urlsplit(database_url)
    proxy = MessageProxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    await proxy.listen()
    location = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}".removeprefix("@")
    try:
        yield proxy, parts._replace(netloc=location).geturl()
    finally:
        await proxy.close()
