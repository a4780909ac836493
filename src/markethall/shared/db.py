"""Postgres: one pool per database, statements compiled once, errors turned into refusals.

SQLAlchemy builds the statements, owns the pool and opens the connections; the statements then
run straight on the asyncpg connection. See docs/decisions/0003.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import structlog
from sqlalchemy import ColumnElement, Text, literal_column
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.util import greenlet_spawn

from markethall.shared.errors import Unavailable
from markethall.shared.metrics import STATEMENTS
from markethall.shared.pool import HallPool, PoolSize, asyncpg_url, open_engine, open_lone_engine

if TYPE_CHECKING:
    from asyncpg.protocol import Record

    Driver = asyncpg.Connection[Record]

log = structlog.get_logger("markethall.database")

__all__ = [
    "IN_TRANSACTION",
    "PoolSize",
    "Pools",
    "Postgres",
    "Session",
    "Statement",
    "asyncpg_url",
    "constant",
    "unavailable_when_away",
]

# set while this task holds a connection, in a transaction or reading; the guard of contract calls
# reads it
IN_TRANSACTION: ContextVar[str] = ContextVar("in_transaction", default="")

_DIALECT = asyncpg_dialect()  # type: ignore[no-untyped-call]

# the server is away, stopping, full, or we waited for it as long as we may
_AWAY = (
    OSError,
    TimeoutError,
    PoolTimeout,
    # while connecting, SQLAlchemy gives asyncpg's errors other names
    AsyncAdapt_asyncpg_dbapi.Error,
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


@contextmanager
def unavailable_when_away() -> Iterator[None]:
    """Raises Unavailable for whatever means that the database does not answer now."""
    try:
        yield
    except _AWAY as error:
        if _is_misuse(error):
            raise
        raise Unavailable(dependency="postgres") from error


def _is_misuse(error: BaseException) -> bool:
    """A fault of ours, such as two statements at once on one connection."""
    return isinstance(error, asyncpg.InterfaceError) and "closed" not in str(error)


class Statement:
    """A Core statement, rendered for asyncpg at first use.

    JSON columns take text, and are read with a cast to text; every other type is asyncpg's own.
    Parameters are passed by name, all of them.
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
        compiled = cast("SQLCompiler", self._clause.compile(dialect=_DIALECT))
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

    async def copy(self, table: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """COPY into a table of this connection's search path: the quickest way for many rows."""
        STATEMENTS.inc()
        await self._driver.copy_records_to_table(table, columns=list(names), records=rows)

    async def listen(self, channel: str, heard: Callable[[str], None]) -> None:
        """Calls `heard` with what other sessions say there; for a session apart."""
        own = self._driver.get_server_pid()

        def take(_: object, pid: int, __: str, text: object) -> None:
            if pid != own:
                heard(str(text))

        with unavailable_when_away():
            await self._driver.add_listener(channel, take)

    async def notify(self, channel: str, text: str) -> None:
        """Said at once, outside a transaction. Raises Unavailable."""
        with unavailable_when_away():
            await self._driver.execute("SELECT pg_notify($1, $2)", channel, text)


class Postgres:
    """One database as one role, with its own pool. Nothing connects before the first use."""

    def __init__(self, url: str, pool: PoolSize, *, application: str = "markethall") -> None:
        self._timeout = pool.timeout
        self.engine = open_engine(url, pool, application)
        self._lone = open_lone_engine(url, pool, application)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Commits when the block ends, rolls back when it raises. Raises Unavailable."""
        async with self._lend() as driver:
            token = IN_TRANSACTION.set("postgres")
            try:
                await driver.execute("BEGIN")
                yield Session(driver)
                await _commit(driver)
            finally:
                IN_TRANSACTION.reset(token)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Session]:
        """Each statement is its own snapshot; nothing is locked. Raises Unavailable."""
        async with self._lend() as driver:
            token = IN_TRANSACTION.set("reading")
            try:
                yield Session(driver)
            finally:
                IN_TRANSACTION.reset(token)

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Session]:
        """A connection outside the pool, for what takes long: a lock that says who leads.

        It ends with the block, and its locks with it. Raises Unavailable.
        """
        with unavailable_when_away():
            connection = await self._lone.connect()
            driver = await _driver_of(connection)
            try:
                yield Session(driver)
            finally:
                with suppress(*_AWAY):
                    await driver.close(timeout=self._timeout)
                await connection.close()

    async def ping(self) -> None:
        """Raises Unavailable."""
        async with self._lend() as driver:
            await driver.fetchval("SELECT 1")

    async def close(self) -> None:
        await self.engine.dispose()
        await self._lone.dispose()

    def _lend(self) -> "_Loan":
        return _Loan(cast("HallPool", self.engine.pool), self._timeout)


class _Loan:
    """A connection of the pool for the length of a block; given back clean, or thrown away.

    Asks the pool itself and not an AsyncConnection: that switches greenlets four times for a
    connection that lies ready, which costs more than the statement it is wanted for.
    """

    def __init__(self, pool: HallPool, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout

    async def __aenter__(self) -> "Driver":
        with unavailable_when_away():
            while True:
                self._lent = await self._take()
                driver = cast("Driver", self._lent.driver_connection)
                if not driver.is_closed():
                    return driver
                # the server has closed it in the meantime
                self._throw_away()

    async def _take(self) -> PoolProxiedConnection:
        if self._pool.at_hand:
            return self._pool.connect()
        return cast("PoolProxiedConnection", await greenlet_spawn(self._pool.connect))

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is None:
            self._lent.close()
            return
        await self._give_back(error)
        if isinstance(error, asyncpg.DeadlockDetectedError):
            # rows are locked in one order everywhere: two that meet are a fault of ours
            log.error("database.deadlock", detail=error.detail, exc_info=error)
        if isinstance(error, _AWAY) and not _is_misuse(error):
            raise Unavailable(dependency="postgres") from error

    async def _give_back(self, error: BaseException) -> None:
        """Rolled back when the connection can still be trusted, else thrown away."""
        driver = cast("Driver", self._lent.driver_connection)
        clean = False
        try:
            clean = not _breaks_connection(error) and await self._is_rolled_back(driver)
        finally:  # cancelled while we waited, too: a connection that is kept is lost to the pool
            if clean:
                self._lent.close()
            else:
                driver.terminate()
                self._throw_away()

    async def _is_rolled_back(self, driver: "Driver") -> bool:
        try:
            if driver.is_in_transaction():
                await driver.execute("ROLLBACK", timeout=self._timeout)
        except Exception:  # noqa: BLE001 - whatever it was, the first error is the one to tell
            return False
        return True

    def _throw_away(self) -> None:
        self._lent.invalidate()
        self._lent.close()


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


def _breaks_connection(error: BaseException) -> bool:
    """True when nobody knows what the connection is doing after this error."""
    if isinstance(error, _CONNECTION_IS_FINE):
        return False
    return isinstance(error, _AWAY) or not isinstance(error, Exception)


async def _commit(driver: "Driver") -> None:
    """Postgres answers the COMMIT of a failed transaction with ROLLBACK, and no error."""
    done = await driver.execute("COMMIT")
    if done != "COMMIT":
        raise RuntimeError("an error was caught inside this transaction: it was rolled back")


async def _driver_of(connection: AsyncConnection) -> "Driver":
    raw = await connection.get_raw_connection()
    return cast("Driver", raw.driver_connection)
