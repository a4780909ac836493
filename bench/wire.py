"""A proxy before Postgres that records the round trips of its clients, on the wire.

A client waits for Postgres after each Sync and each simple Query (message formats:
https://www.postgresql.org/docs/current/protocol-message-formats.html). The proxy records these two
messages, each with the SQL text that it sends.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_CHUNK: Final = 65536
_SSL_REQUEST: Final = (80877103).to_bytes(4)
_GSSENC_REQUEST: Final = (80877104).to_bytes(4)
_PARSE, _BIND, _SYNC, _QUERY = b"P", b"B", b"S", b"Q"


@dataclass
class _Session:
    """The prepared statements of one connection, and the statement since its last Sync."""

    prepared: dict[bytes, str] = field(default_factory=dict)
    is_executed: bool = False
    sql: str = ""


class RecordingProxy:
    """Forwards connections to Postgres. `statements` has the SQL of each round trip, in order.

    A round trip that only prepares a statement is not recorded, because it happens once per
    connection.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._tasks: set[asyncio.Task[None]] = set()
        self.statements: list[str] = []
        self.port = 0

    @property
    def round_trips(self) -> int:
        return len(self.statements)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        database_reader, database_writer = await asyncio.open_connection(*self._target)
        try:
            await asyncio.gather(
                self._forward_messages(reader, database_writer), _forward(database_reader, writer)
            )
        finally:
            writer.close()
            database_writer.close()

    async def _forward_messages(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward the messages of the client one by one, and record them."""
        session = _Session()
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await _forward_start(reader, writer)
            while True:
                kind = await reader.readexactly(1)
                length = await reader.readexactly(4)
                body = await _read_rest(reader, length)
                self._record(session, kind, body)
                writer.write(kind + length + body)
        writer.close()

    def _record(self, session: _Session, kind: bytes, body: bytes) -> None:
        if kind == _PARSE:
            name, sql, _ = body.split(b"\0", 2)
            session.prepared[name] = sql.decode()
        elif kind == _BIND:
            _, name, _ = body.split(b"\0", 2)
            session.is_executed, session.sql = True, session.prepared[name]
        elif kind == _QUERY:
            self.statements.append(body[:-1].decode())
        elif kind == _SYNC and session.is_executed:
            self.statements.append(session.sql)
            session.is_executed = False


@asynccontextmanager
async def recording_proxy(database_url: str) -> AsyncIterator[tuple[RecordingProxy, str]]:
    """Open a proxy before this database. Yields the proxy and the URL that leads through it."""
    parts = urlsplit(database_url)
    proxy = RecordingProxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    await proxy.open()
    address = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
    try:
        yield proxy, urlunsplit(parts._replace(netloc=address))
    finally:
        await proxy.close()


async def _forward_start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward the messages without a type: requests for encryption, then the startup message."""
    body = _SSL_REQUEST
    while body in {_SSL_REQUEST, _GSSENC_REQUEST}:
        length = await reader.readexactly(4)
        body = await _read_rest(reader, length)
        writer.write(length + body)


async def _read_rest(reader: asyncio.StreamReader, length: bytes) -> bytes:
    """Read the rest of a message; its length includes the four bytes of the length itself."""
    return await reader.readexactly(int.from_bytes(length) - 4)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
    writer.close()
