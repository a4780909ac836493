"""A connection on which statements are executed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from markethall.shared.observability.metrics import STATEMENTS
from markethall.shared.persistence.postgres.statement import Statement

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy
    from asyncpg.protocol import Record

    Driver = asyncpg.Connection[Record] | PoolConnectionProxy[Record]


class Connection:
    """A connection in a transaction or a read session.

    `fetch_timeout` is the maximum time of each fetch in seconds; None means the timeout of the
    pool. After this time, asyncpg asks Postgres to cancel the statement. Unlike a server setting,
    this works behind a pooler too.
    """

    def __init__(self, driver: "Driver", fetch_timeout: float | None = None) -> None:
        self._driver = driver
        self._fetch_timeout = fetch_timeout

    async def fetch_one(self, statement: Statement, **values: Any) -> "Record | None":
        """Return the first row, or None."""
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        return await self._driver.fetchrow(sql, *arguments, timeout=self._fetch_timeout)

    async def fetch_all(self, statement: Statement, **values: Any) -> "list[Record]":
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        return await self._driver.fetch(sql, *arguments, timeout=self._fetch_timeout)

    async def fetch_value(self, statement: Statement, **values: Any) -> Any:
        """Return the first column of the first row, or None."""
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        return await self._driver.fetchval(sql, *arguments, timeout=self._fetch_timeout)

    async def execute(self, statement: Statement, **values: Any) -> int:
        """Execute the statement and return the number of affected rows."""
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        status = await self._driver.execute(sql, *arguments)
        return int(status.rpartition(" ")[2])

    async def execute_many(self, statement: Statement, rows: Iterable[Mapping[str, Any]]) -> None:
        """Execute the statement for each row, in one round trip."""
        bound = [statement.bind(row) for row in rows]
        if bound:
            STATEMENTS.inc()
            await self._driver.executemany(bound[0][0], [arguments for _, arguments in bound])

    async def copy_rows(
        self, table: str, column_names: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """Insert many rows with COPY. The table must be on the search path."""
        STATEMENTS.inc()
        await self._driver.copy_records_to_table(table, columns=list(column_names), records=rows)

    def on_termination(self, callback: Callable[[], None]) -> None:
        """Call the function when the connection ends. Use this only on a dedicated connection."""
        self._driver.add_termination_listener(lambda _: callback())

    async def listen(self, channel: str, on_notification: Callable[[str], None]) -> None:
        """Subscribe to a channel. Use this only on a dedicated connection.

        `on_notification` must not raise, because asyncpg would only log the error.
        """
        await self._driver.add_listener(
            channel, lambda _connection, _pid, _channel, payload: on_notification(str(payload))
        )
