"""Postgres: one pool per database, statements compiled once, errors turned into refusals.

SQLAlchemy builds the statements, owns the pool and opens the connections; the statements then
run straight on the asyncpg connection. See docs/decisions/0003.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import ColumnElement, Text, literal_column
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql import ClauseElement

from markethall.shared.errors import Unavailable
from markethall.shared.metrics import STATEMENTS

if TYPE_CHECKING:
    from asyncpg.protocol import Record

    Driver = asyncpg.Connection[Record]

# set while this task is inside a transaction; the guard of contract calls reads it
IN_TRANSACTION: ContextVar[str] = ContextVar("in_transaction", default="")

_DIALECT = asyncpg_dialect()

# the server is away, stopping, full, or we waited for it as long as we may
_AWAY = (
    OSError,
    TimeoutError,
    PoolTimeout,
    DBAPIError,
    InterfaceError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,
    asyncpg.InvalidCachedStatementError,
)
# after these the connection itself is as good as before
_CONNECTION_IS_FINE = (
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.QueryCanceledError,
)


class Statement:
    """A Core statement, rendered for asyncpg at first use.

    JSON columns take and give text; every other type is asyncpg's own. Parameters are passed by
    name, all of them.
    """

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause
        self._sql = ""
        self._names: Sequence[str] = ()
        self._constants: Mapping[str, Any] = {}

    def bind(self, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        if not self._sql:
            self._compile()
        if self._constants:
            values = {**self._constants, **values}
        return self._sql, [values[name] for name in self._names]

    def _compile(self) -> None:
        compiled = self._clause.compile(dialect=_DIALECT)
        self._names = tuple(compiled.positiontup or ())
        self._constants = {
            name: bind.value for name, bind in compiled.binds.items() if not bind.required
        }
        self._sql = str(compiled)


def constant(text: str) -> ColumnElement[str]:
    """A fixed text inside a statement: with a parameter the planner cannot use a partial index."""
    return literal_column(f"'{text}'", Text)


class Session:
    """One connection, inside a transaction or reading without one."""

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver

    async def one(self, statement: Statement, **values: Any) -> "Record | None":
        """The first row, or None."""
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        return await self._driver.fetchrow(sql, *arguments)

    async def all(self, statement: Statement, **values: Any) -> "list[Record]":
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        return await self._driver.fetch(sql, *arguments)

    async def value(self, statement: Statement, **values: Any) -> Any:
        """The first column of the first row, or None."""
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        return await self._driver.fetchval(sql, *arguments)

    async def run(self, statement: Statement, **values: Any) -> int:
        """How many rows it touched."""
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        status = await self._driver.execute(sql, *arguments)
        return int(status.rpartition(" ")[2])

    async def many(self, statement: Statement, rows: Iterable[Mapping[str, Any]]) -> None:
        """The same statement for each row, in one round trip."""
        bound = [statement.bind(row) for row in rows]
        if bound:
            STATEMENTS.inc()
            await self._driver.executemany(bound[0][0], [arguments for _, arguments in bound])


@dataclass(frozen=True)
class PoolSize:
    """Connections kept, connections at most, and seconds to wait for the database."""

    least: int = 5
    most: int = 20
    timeout: float = 1.8


class Postgres:
    """One database as one role, with its own pool. Nothing connects before the first use."""

    def __init__(self, url: str, pool: PoolSize, *, application: str = "markethall") -> None:
        self._timeout = pool.timeout
        self.engine = open_engine(url, pool, application)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Commits when the block ends, rolls back when it raises. Raises Unavailable."""
        async with self._driver() as driver:
            token = IN_TRANSACTION.set("postgres")
            try:
                await driver.execute("BEGIN")
                yield Session(driver)
                await driver.execute("COMMIT")
            finally:
                IN_TRANSACTION.reset(token)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Session]:
        """Each statement is its own snapshot; nothing is locked. Raises Unavailable."""
        async with self._driver() as driver:
            yield Session(driver)

    async def ping(self) -> None:
        """Raises Unavailable."""
        async with self._driver() as driver:
            await driver.fetchval("SELECT 1")

    async def close(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def _driver(self) -> AsyncIterator["Driver"]:
        try:
            connection = await self._checkout()
            try:
                yield await _driver_of(connection)
            except BaseException as error:
                await self._give_back(connection, error)
                raise
            else:
                await connection.close()
        except _AWAY as error:
            raise Unavailable(dependency="postgres") from error

    async def _checkout(self) -> AsyncConnection:
        """A connection that the server has not closed in the meantime."""
        while True:
            connection = await self.engine.connect()
            if not (await _driver_of(connection)).is_closed():
                return connection
            await connection.invalidate()
            await connection.close()

    async def _give_back(self, connection: AsyncConnection, error: BaseException) -> None:
        """Rolled back when the connection can still be trusted, else thrown away."""
        driver = await _driver_of(connection)
        broken = not isinstance(error, Exception) or (
            isinstance(error, _AWAY) and not isinstance(error, _CONNECTION_IS_FINE)
        )
        try:
            if not broken and driver.is_in_transaction():
                await driver.execute("ROLLBACK", timeout=self._timeout)
        except Exception:
            # whatever it was, the first error is the one to tell
            broken = True
        if broken:
            driver.terminate()
            await connection.invalidate()
        await connection.close()


class Pools:
    """One pool per database and role: contexts with the same address share it."""

    def __init__(self, size: PoolSize) -> None:
        self._size = size
        self._opened: dict[str, Postgres] = {}

    def of(self, url: str) -> Postgres:
        if url not in self._opened:
            self._opened[url] = Postgres(url, self._size)
        return self._opened[url]

    async def close(self) -> None:
        for postgres in self._opened.values():
            await postgres.close()


def open_engine(url: str, pool: PoolSize, application: str) -> AsyncEngine:
    milliseconds = str(int(pool.timeout * 1000))
    return create_async_engine(
        asyncpg_url(url),
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
        pool_size=pool.least,
        max_overflow=pool.most - pool.least,
        pool_timeout=pool.timeout,
        connect_args={
            "timeout": pool.timeout,
            "command_timeout": pool.timeout,
            "statement_cache_size": 256,
            "server_settings": {
                "application_name": application,
                "lock_timeout": milliseconds,
                "idle_in_transaction_session_timeout": "10000",
                "jit": "off",
            },
        },
    )


def asyncpg_url(url: str) -> str:
    """Accept the URL that everybody has, postgresql://… or postgres://…."""
    if url.startswith("postgres://"):
        url = "postgresql://" + url.removeprefix("postgres://")
    parsed = make_url(url).set(drivername="postgresql+asyncpg")
    return parsed.render_as_string(hide_password=False)


async def _driver_of(connection: AsyncConnection) -> "Driver":
    raw = await connection.get_raw_connection()
    driver: Driver = raw.driver_connection
    return driver
