"""Postgres: one pool per database, statements compiled once, errors translated to domain errors.

SQLAlchemy Core describes the statements; asyncpg runs them on connections of its own pool.
See docs/decisions/0003-compile-statements-once.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import structlog
from sqlalchemy import ColumnElement, Text, literal_column
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.engine import make_url
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from markethall.shared.kernel.errors import Unavailable
from markethall.shared.observability.metrics import STATEMENTS
from markethall.shared.persistence.held_connection import HOLDS_CONNECTION

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy
    from asyncpg.protocol import Record

    Driver = asyncpg.Connection[Record] | PoolConnectionProxy[Record]
    Pool = asyncpg.Pool[Record]

log = structlog.get_logger("markethall.database")

__all__ = [
    "Connection",
    "Databases",
    "PoolSize",
    "Postgres",
    "Statement",
    "asyncpg_dsn",
    "asyncpg_url",
    "sql_literal",
    "translate_connection_errors",
]

_DIALECT = asyncpg_dialect()  # type: ignore[no-untyped-call]

# the server is away, stopping, full, or we waited for it as long as we may
_UNAVAILABLE_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    # a wrong password, a database that does not exist
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
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
_ERRORS_THAT_KEEP_CONNECTION = (
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.QueryCanceledError,
)


@contextmanager
def translate_connection_errors() -> Iterator[None]:
    """Raises Unavailable for whatever means that the database does not answer now."""
    try:
        yield
    except _UNAVAILABLE_ERRORS as error:
        if _is_driver_misuse(error):
            raise
        raise Unavailable(dependency="postgres") from error


def _is_driver_misuse(error: BaseException) -> bool:
    """True for a fault of this program, such as two statements at once on one connection."""
    if not isinstance(error, asyncpg.InterfaceError):
        return False
    # asyncpg says so of a connection, or of a pool, that has been closed meanwhile
    return not any(word in str(error) for word in ("closed", "closing", "released back"))


class Statement:
    """A Core statement, rendered for asyncpg at first use.

    JSON columns take text, and are read with a cast to text; every other type is asyncpg's own.
    Parameters are passed by name, all of them.
    """

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause
        self._sql = ""
        self._parameter_names: Sequence[str] = ()
        self._default_values: Mapping[str, Any] = {}

    def bind(self, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        if not self._sql:
            self._compile()
        if self._default_values:
            values = {**self._default_values, **values}
        return self._sql, [values[name] for name in self._parameter_names]

    def _compile(self) -> None:
        compiled = cast("SQLCompiler", self._clause.compile(dialect=_DIALECT))
        self._parameter_names = tuple(compiled.positiontup or ())
        self._default_values = {
            name: bind.value for name, bind in compiled.binds.items() if not bind.required
        }
        self._sql = str(compiled)


def sql_literal(text: str) -> ColumnElement[str]:
    """A fixed text inside a statement: with a parameter the planner cannot use a partial index."""
    return literal_column(f"'{text}'", Text)


class Connection:
    """One connection, inside a transaction or reading without one."""

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver

    async def fetch_one(self, statement: Statement, **values: Any) -> "Record | None":
        """The first row, or None."""
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        return await self._driver.fetchrow(sql, *arguments)

    async def fetch_all(self, statement: Statement, **values: Any) -> "list[Record]":
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        return await self._driver.fetch(sql, *arguments)

    async def fetch_value(self, statement: Statement, **values: Any) -> Any:
        """The first column of the first row, or None."""
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        return await self._driver.fetchval(sql, *arguments)

    async def execute(self, statement: Statement, **values: Any) -> int:
        """How many rows it touched."""
        STATEMENTS.inc()
        sql, arguments = statement.bind(values)
        status = await self._driver.execute(sql, *arguments)
        return int(status.rpartition(" ")[2])

    async def execute_many(self, statement: Statement, rows: Iterable[Mapping[str, Any]]) -> None:
        """The same statement for each row, in one round trip."""
        bound = [statement.bind(row) for row in rows]
        if bound:
            STATEMENTS.inc()
            await self._driver.executemany(bound[0][0], [arguments for _, arguments in bound])

    async def copy_rows(
        self, table: str, column_names: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """COPY into a table of this connection's search path: the quickest way for many rows."""
        STATEMENTS.inc()
        await self._driver.copy_records_to_table(table, columns=list(column_names), records=rows)

    async def listen(self, channel: str, on_notification: Callable[[str], None]) -> None:
        """Calls `heard` with what other sessions say there; for a session apart."""
        own_pid = self._driver.get_server_pid()

        def on_message(_: object, pid: int, __: str, text: object) -> None:
            if pid != own_pid:
                on_notification(str(text))

        with translate_connection_errors():
            await self._driver.add_listener(channel, on_message)

    async def notify(self, channel: str, payload: str) -> None:
        """Said at once, outside a transaction. Raises Unavailable."""
        with translate_connection_errors():
            await self._driver.execute("SELECT pg_notify($1, $2)", channel, payload)


@dataclass(frozen=True)
class PoolSize:
    """Connections kept, connections at most, and seconds to wait for the database."""

    min_size: int = 5
    max_size: int = 20
    timeout: float = 1.8


class Postgres:
    """One database as one role, with its own pool. Connects at the first use."""

    def __init__(
        self, url: str, pool_size: PoolSize, *, application_name: str = "markethall"
    ) -> None:
        self._pool_size = pool_size
        self._timeout = pool_size.timeout
        self._connect_arguments = {
            "dsn": asyncpg_dsn(url),
            **_connect_arguments(pool_size, application_name),
        }
        self._pool: Pool | None = None
        self._open_lock = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Commits when the block ends, rolls back when it raises. Raises Unavailable."""
        async with self._acquire() as driver:
            token = HOLDS_CONNECTION.set("postgres")
            try:
                await driver.execute("BEGIN")
                yield Connection(driver)
                await _commit(driver)
            finally:
                HOLDS_CONNECTION.reset(token)

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[Connection]:
        """Each statement is its own snapshot; nothing is locked. Raises Unavailable."""
        async with self._acquire() as driver:
            token = HOLDS_CONNECTION.set("reading")
            try:
                yield Connection(driver)
            finally:
                HOLDS_CONNECTION.reset(token)

    @asynccontextmanager
    async def dedicated_connection(self) -> AsyncIterator[Connection]:
        """A connection outside the pool, for a lock that is held for long: the leader's.

        It ends with the block, and its locks with it. Raises Unavailable.
        """
        with translate_connection_errors():
            driver = await asyncpg.connect(**self._connect_arguments)
            try:
                yield Connection(driver)
            finally:
                with suppress(*_UNAVAILABLE_ERRORS):
                    await driver.close(timeout=self._timeout)

    async def ping(self) -> None:
        """Raises Unavailable."""
        async with self._acquire() as driver:
            await driver.fetchval("SELECT 1")

    async def close(self) -> None:
        """Close the connections. A later use opens the pool again, on the event loop of its own."""
        pool, self._pool = self._pool, None
        self._open_lock = asyncio.Lock()
        if pool is None:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    @asynccontextmanager
    async def _acquire(self) -> "AsyncIterator[Driver]":
        """A connection of the pool for the length of a block; released clean, or terminated."""
        with translate_connection_errors():
            async with asyncio.timeout(self._timeout):
                pool = self._pool or await self._open()
                driver = await pool.acquire()
        try:
            yield driver
        except BaseException as error:
            await self._release_or_terminate(error, pool, driver)
            if isinstance(error, asyncpg.DeadlockDetectedError):
                # all code locks rows in one order: a deadlock is a fault of this program
                log.exception("database.deadlock", detail=error.detail)
            if isinstance(error, _UNAVAILABLE_ERRORS) and not _is_driver_misuse(error):
                raise Unavailable(dependency="postgres") from error
            raise
        await pool.release(driver, timeout=self._timeout)

    async def _open(self) -> "Pool":
        async with self._open_lock:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    min_size=self._pool_size.min_size,
                    max_size=self._pool_size.max_size,
                    reset=_keep_session,
                    **self._connect_arguments,
                )
            return self._pool

    async def _release_or_terminate(
        self, error: BaseException, pool: "Pool", driver: "PoolConnectionProxy[Record]"
    ) -> None:
        """Roll back when the connection can still be trusted, else terminate it."""
        clean = False
        try:
            clean = not _invalidates_connection(error) and await self._roll_back(driver)
        finally:  # also when cancelled meanwhile: a connection that is not released is lost
            if not clean:
                # the pool has taken back by itself a connection that the server has closed
                with suppress(asyncpg.InterfaceError):
                    driver.terminate()
            await pool.release(driver, timeout=self._timeout)

    async def _roll_back(self, driver: "Driver") -> bool:
        try:
            if driver.is_in_transaction():
                await driver.execute("ROLLBACK", timeout=self._timeout)
        except Exception:  # noqa: BLE001 - the first error is the one to report
            return False
        return True


class Databases:
    """One pool per database and role: contexts with the same address share it."""

    def __init__(self, pool_size: PoolSize) -> None:
        self._pool_size = pool_size
        self._databases: dict[str, Postgres] = {}

    def get(self, url: str) -> Postgres:
        if url not in self._databases:
            self._databases[url] = Postgres(url, self._pool_size)
        return self._databases[url]

    async def close(self) -> None:
        for postgres in self._databases.values():
            await postgres.close()


def _invalidates_connection(error: BaseException) -> bool:
    """True when nobody knows what the connection is doing after this error."""
    if isinstance(error, _ERRORS_THAT_KEEP_CONNECTION):
        return False
    return isinstance(error, _UNAVAILABLE_ERRORS) or not isinstance(error, Exception)


async def _commit(driver: "Driver") -> None:
    """Postgres answers the COMMIT of a failed transaction with ROLLBACK, and no error."""
    status = await driver.execute("COMMIT")
    if status != "COMMIT":
        raise RuntimeError("an error was caught inside this transaction: it was rolled back")


async def _keep_session(_: object) -> None:
    """Instead of the pool's reset, a round trip: nothing here changes the settings of a session."""


def _connect_arguments(pool: PoolSize, application_name: str) -> dict[str, Any]:
    milliseconds = pool.timeout * 1000
    return {
        "timeout": pool.timeout,
        "command_timeout": pool.timeout,
        "statement_cache_size": 256,
        "server_settings": {
            "application_name": application_name,
            # before our own timeout, which costs the connection; 0 would mean no limit
            "lock_timeout": str(max(1, int(milliseconds * 0.9))),
            "idle_in_transaction_session_timeout": "10000",
            # a leader whose machine is gone keeps its lock no longer than this
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
            "jit": "off",
        },
    }


def asyncpg_dsn(url: str) -> str:
    """A Postgres URL as asyncpg takes it: postgresql://…, with libpq's sslmode."""
    parsed = make_url(_postgresql(url)).set(drivername="postgresql")
    if "ssl" in parsed.query:
        mode = parsed.query["ssl"]
        parsed = parsed.difference_update_query(["ssl"]).update_query_dict({"sslmode": mode})
    return parsed.render_as_string(hide_password=False)


def asyncpg_url(url: str) -> str:
    """A Postgres URL as SQLAlchemy takes it: postgresql+asyncpg://…, with asyncpg's ssl."""
    parsed = make_url(_postgresql(url)).set(drivername="postgresql+asyncpg")
    if "sslmode" in parsed.query:
        mode = parsed.query["sslmode"]
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed.render_as_string(hide_password=False)


def _postgresql(url: str) -> str:
    if url.startswith("postgres://"):
        return "postgresql://" + url.removeprefix("postgres://")
    return url
