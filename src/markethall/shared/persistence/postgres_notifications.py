"""Messages between processes through Postgres, with LISTEN and NOTIFY."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from sqlalchemy import String, bindparam, func, literal_column, select

from markethall.shared.persistence.postgres import Connection, Postgres, Statement
from markethall.shared.persistence.postgres_errors import translate_connection_errors

# a message of NOTIFY must be shorter than 8000 bytes
MAX_MESSAGE_BYTES: Final = 7999
# A commit with NOTIFY holds a lock of the whole server, so the commit must be short. With
# synchronous_commit off, it does not wait for the disk.
_NOTIFY: Final = Statement(
    select(
        func.set_config("synchronous_commit", "off", True),
        func.pg_notify(bindparam("channel", type_=String), bindparam("payload", type_=String)),
    )
)
_PING: Final = Statement(select(literal_column("1")))


class PostgresNotifications:
    """One channel. It uses a connection outside the pool, so that a busy pool delays no message.

    Each statement may take at most `timeout` seconds. The connection is pinged after
    `ping_interval` seconds without a message. Messages are UTF-8 text.
    """

    def __init__(
        self, postgres: Postgres, channel: str, timeout: float, ping_interval: float
    ) -> None:
        self._postgres = postgres
        self._channel = channel
        self._timeout = timeout
        self._ping_interval = ping_interval
        self._listening: Connection | None = None
        self._lock = asyncio.Lock()

    async def send(self, message: bytes) -> None:
        """Send the message to all subscribed processes, including this one. Raises Unavailable."""
        if self._listening is not None:
            await self._notify(self._listening, message)
            return
        async with self._postgres.dedicated_connection() as connection:
            await self._notify(connection, message)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
        """Yield a function that waits for the next message.

        The function raises Unavailable at once if the server closes the connection, and after a
        ping without an answer. This method raises Unavailable too.
        """
        messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        async with self._postgres.dedicated_connection() as connection:

            async def next_message() -> bytes:
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._ping_interval):
                            if (message := await messages.get()) is not None:
                                return message
                    await self._run(lambda: connection.fetch_value(_PING))

            await self._run(
                lambda: connection.listen(
                    self._channel, lambda payload: messages.put_nowait(payload.encode())
                )
            )
            # None makes the next call ping the connection, which raises Unavailable
            connection.on_termination(lambda: messages.put_nowait(None))
            self._listening = connection
            try:
                yield next_message
            finally:
                self._listening = None

    async def _notify(self, connection: Connection, message: bytes) -> None:
        values = {"channel": self._channel, "payload": message.decode()}
        await self._run(lambda: connection.fetch_one(_NOTIFY, **values))

    async def _run(self, statement: Callable[[], Awaitable[Any]]) -> None:
        # a connection can run only one statement at a time
        with translate_connection_errors():
            async with asyncio.timeout(self._timeout), self._lock:
                await statement()
