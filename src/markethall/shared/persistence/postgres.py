"""Postgres: connection pools, transactions and statements.

SQLAlchemy Core compiles each statement once, and asyncpg executes it; see
docs/decisions/0003-compile-statements-once.md. Connection errors are raised as Unavailable.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg
import structlog
from sqlalchemy import ColumnElement, Text, literal_column
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.statement_timeout import STATEMENT_TIMEOUT
from markethall.shared.kernel.wait_budget import wait_within_budget
from markethall.shared.observability.metrics import STATEMENTS
from markethall.shared.persistence.database_clock import DatabaseClock
from markethall.shared.persistence.held_connection import HOLDS_CONNECTION
from markethall.shared.persistence.postgres_errors import (
    SCHEMA_MISMATCH_ERRORS,
    UNAVAILABLE_ERRORS,
    invalidates_connection,
    means_unavailable,
    translate_connection_errors,
    translate_login_errors,
)
from markethall.shared.persistence.postgres_url import asyncpg_dsn

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy
    from asyncpg.protocol import Record

    Pool = asyncpg.Pool[Record]
    PooledDriver = PoolConnectionProxy[Record]
    Driver = asyncpg.Connection[Record] | PooledDriver

log = structlog.get_logger("markethall.database")

_DIALECT = asyncpg_dialect()  # type: ignore[no-untyped-call]
# Postgres must confirm within this time that it has cancelled a statement. Otherwise the connection
# is closed instead of being used again.
_CANCEL_TIMEOUT_SECONDS: Final = 0.15


class Statement:
    """A Core statement, compiled for asyncpg at first use.

    Every parameter is passed by name. JSON columns are written as text and read with a cast to
    text; for all other types asyncpg converts the values.
    """

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause
        self._sql = ""
        self._parameter_names: Sequence[str] = ()
        self._default_values: Mapping[str, Any] = {}

    def bind(self, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """Return the SQL and its positional arguments. Raises KeyError for a missing value."""
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
    """Return the text as an SQL literal.

    The planner can use a partial index only if it knows the value, so a parameter is not enough.
    `text` is not escaped, so it must be a constant of this program.
    """
    return literal_column(f"'{text}'", Text)


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

    async def listen(self, channel: str, on_notification: Callable[[str], None]) -> None:
        """Subscribe to a channel. Use this only on a dedicated connection.

        `on_notification` must not raise, because asyncpg would only log the error.
        """
        await self._driver.add_listener(
            channel, lambda _connection, _pid, _channel, payload: on_notification(str(payload))
        )


@dataclass(frozen=True)
class PoolSize:
    """The minimum and maximum number of connections, and a timeout in seconds.

    The timeout applies to the wait for a connection and to each statement.
    """

    min_size: int = 5
    max_size: int = 20
    timeout: float = 1.8


class Postgres:
    """A pool for one database and one role; it is opened at the first use."""

    def __init__(
        self,
        url: str,
        pool_size: PoolSize,
        *,
        direct_url: str | None = None,
        application_name: str = "markethall",
    ) -> None:
        """`direct_url`: a URL that bypasses the pooler, if `url` is that of a pooler.

        The pooler runs in transaction mode, so LISTEN and session locks need the direct URL.
        """
        self.clock = DatabaseClock()
        self._pool_size = pool_size
        self._timeout = pool_size.timeout
        self._connect_arguments = _connect_arguments(url, pool_size, application_name)
        self._direct_arguments = self._connect_arguments
        if direct_url is not None:
            self._direct_arguments = _connect_arguments(direct_url, pool_size, application_name)
            self._connect_arguments = _pooler_arguments(self._connect_arguments)
        self._pool: Pool | None = None
        self._open_lock = asyncio.Lock()

    def transaction(self) -> "_PooledSession":
        """Commit when the block ends; roll back when it raises. Raises Unavailable."""
        return _PooledSession(self._acquire, self._timeout, in_transaction=True)

    def read_session(self) -> "_PooledSession":
        """Run statements without a transaction: each sees the latest commits.

        A statement may also write, and then commits by itself. Raises Unavailable.
        """
        return _PooledSession(self._acquire, self._timeout, in_transaction=False)

    @asynccontextmanager
    async def dedicated_connection(self) -> AsyncIterator[Connection]:
        """Open a connection outside the pool, for LISTEN or for a lock that is held long.

        The end of the block closes the connection, which releases its locks. Raises Unavailable.
        """
        with translate_login_errors():
            driver = await asyncpg.connect(**self._direct_arguments)
        with translate_connection_errors():
            try:
                yield Connection(driver)
            finally:
                with suppress(*UNAVAILABLE_ERRORS):
                    await driver.close(timeout=self._timeout)

    async def open(self) -> None:
        """Open the pool and set the clock. Raises Unavailable."""
        with translate_login_errors():
            await wait_within_budget(self._open(), self._timeout)

    async def close(self) -> None:
        """Close all connections. Connections in use are terminated after the timeout.

        The next use opens a new pool, possibly on another event loop.
        """
        pool, self._pool = self._pool, None
        self._open_lock = asyncio.Lock()
        if pool is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await (
                        pool.close()
                    )  # if the timeout cancels this, asyncpg terminates all connections

    async def _acquire(self) -> "tuple[Pool, PooledDriver]":
        with translate_login_errors():
            return await wait_within_budget(self._acquire_now(), self._timeout)

    async def _acquire_now(self) -> "tuple[Pool, PooledDriver]":
        pool = self._pool or await self._open_and_check_clock()
        return pool, await pool.acquire()

    async def _open_and_check_clock(self) -> "Pool":
        """Open the pool. Raises Unavailable if this has corrected the clock.

        Opening the pool compares the clock of this process with that of the database. The caller
        may have read the wrong time before the correction, and would store it.
        """
        corrections = self.clock.corrections
        pool = await self._open()
        if self.clock.corrections > corrections:
            raise Unavailable(dependency="postgres")
        return pool

    async def _open(self) -> "Pool":
        async with self._open_lock:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    min_size=self._pool_size.min_size,
                    max_size=self._pool_size.max_size,
                    init=self._compare_clock,
                    reset=_keep_session,
                    **self._connect_arguments,
                )
            return self._pool

    async def _compare_clock(self, driver: "Driver") -> None:
        asked_at = self.clock()
        self.clock.compare(asked_at, await driver.fetchval("SELECT clock_timestamp()"))


class _PooledSession:
    """A context manager that holds a pooled connection.

    It is a class because two nested @asynccontextmanager would take a fifth of the time of a select
    by primary key.
    """

    __slots__ = ("_acquire", "_driver", "_in_transaction", "_pool", "_timeout", "_token")

    def __init__(
        self,
        acquire: "Callable[[], Awaitable[tuple[Pool, PooledDriver]]]",
        timeout: float,
        *,
        in_transaction: bool,
    ) -> None:
        self._acquire = acquire
        self._timeout = timeout
        self._in_transaction = in_transaction

    async def __aenter__(self) -> Connection:
        self._pool, self._driver = await self._acquire()
        if self._in_transaction:
            try:
                await self._driver.execute("BEGIN")
            except BaseException as error:
                await self._abort(error)
                raise
        self._token = HOLDS_CONNECTION.set("postgres" if self._in_transaction else "reading")
        return Connection(self._driver, None if self._in_transaction else STATEMENT_TIMEOUT.get())

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        HOLDS_CONNECTION.reset(self._token)
        if error is not None:
            await self._abort(error)
            return
        if self._in_transaction:
            try:
                await _commit(self._driver)
            except BaseException as commit_error:
                await self._abort(commit_error)
                raise
        await self._release(self._timeout)

    async def _abort(self, error: BaseException) -> None:
        """Release the connection after an error.

        Raises Unavailable if the error means that Postgres is unavailable.
        """
        await self._roll_back_or_terminate(error)
        if isinstance(error, asyncpg.DeadlockDetectedError):
            # an error, because a deadlock is a bug: all code should lock rows in the same order
            log.error("database.deadlock", detail=error.detail, exc_info=error)
        if isinstance(error, SCHEMA_MISMATCH_ERRORS):
            log.error("database.schema_mismatch", detail=str(error))
        if means_unavailable(error):
            raise Unavailable(dependency="postgres") from error

    async def _roll_back_or_terminate(self, error: BaseException) -> None:
        is_clean = False
        # after a timeout, asyncpg has asked Postgres to cancel the statement; this must be quick
        seconds = _CANCEL_TIMEOUT_SECONDS if isinstance(error, TimeoutError) else self._timeout
        try:
            is_clean = not invalidates_connection(error) and await self._roll_back(seconds)
        finally:  # also after a cancellation, because the pool would lose the connection otherwise
            if not is_clean:
                # InterfaceError: the server has closed the connection, so the pool has released it
                with suppress(asyncpg.InterfaceError):
                    self._driver.terminate()
            await self._release(seconds)

    async def _roll_back(self, seconds: float) -> bool:
        try:
            if self._driver.is_in_transaction():
                await self._driver.execute("ROLLBACK", timeout=seconds)
        except Exception:  # noqa: BLE001 - the caller reports the first error
            return False
        return True

    async def _release(self, seconds: float) -> None:
        try:
            await self._pool.release(self._driver, timeout=seconds)
        except TimeoutError:
            pass  # the pool closed the connection: Postgres did not confirm the cancellation
        except asyncpg.InterfaceError:  # the pool was closed meanwhile
            self._driver.terminate()


class Databases:
    """One pool per database and role, shared by the contexts with the same URL."""

    def __init__(
        self,
        pool_size: PoolSize,
        direct_urls: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`direct_urls` maps each URL that leads to a pooler to the URL without the pooler."""
        self._pool_size = pool_size
        self._direct_urls = direct_urls
        self._databases: dict[str, Postgres] = {}

    def get(self, url: str) -> Postgres:
        if url not in self._databases:
            self._databases[url] = Postgres(
                url,
                self._pool_size,
                direct_url=self._direct_urls.get(url),
            )
        return self._databases[url]

    async def open(self) -> None:
        """Open all pools. A pool that cannot be opened now is opened at its first use."""
        for postgres in self._databases.values():
            with suppress(Unavailable):
                await postgres.open()

    async def close(self) -> None:
        for postgres in self._databases.values():
            await postgres.close()


async def _commit(driver: "Driver") -> None:
    """Commit. Raises RuntimeError if a statement of the transaction has failed.

    In this case, Postgres rolls back at COMMIT, but does not return an error.
    """
    status = await driver.execute("COMMIT")
    if status != "COMMIT":
        raise RuntimeError("an error was caught inside this transaction: it was rolled back")


async def _keep_session(_: object) -> None:
    """Do nothing when a connection returns to the pool.

    asyncpg's own reset takes a round trip, and no code here changes the settings of a session.
    """


def _pooler_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for a pooler in transaction mode.

    Each transaction may get another connection to the server, so prepared statements and settings
    of a session cannot be used. PgBouncer refuses unknown settings at the start of a session.
    """
    name = arguments["server_settings"]["application_name"]
    return {**arguments, "statement_cache_size": 0, "server_settings": {"application_name": name}}


def _connect_arguments(url: str, pool_size: PoolSize, application_name: str) -> dict[str, Any]:
    milliseconds = pool_size.timeout * 1000
    return {
        "dsn": asyncpg_dsn(url),
        "timeout": pool_size.timeout,
        "command_timeout": pool_size.timeout,
        "statement_cache_size": 256,
        "server_settings": {
            "application_name": application_name,
            # shorter than the client's timeout, after which the connection is closed; at least
            # 1 ms, because 0 means no limit
            "lock_timeout": str(max(1, int(milliseconds * 0.9))),
            # so that Postgres ends a statement even if its client does not exist any more
            "statement_timeout": str(max(2, int(milliseconds * 0.95))),
            "idle_in_transaction_session_timeout": "10000",
            # With these, the server ends a connection 25 s after the client machine has become
            # unreachable. If the client is a leader, this releases its advisory lock.
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
            "jit": "off",
        },
    }
