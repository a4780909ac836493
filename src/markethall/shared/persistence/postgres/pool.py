"""Connection pools: one for each database and role."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import asyncpg

from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.wait_budget import wait_within_budget
from markethall.shared.persistence.database_clock import DatabaseClock
from markethall.shared.persistence.postgres.connection import Connection
from markethall.shared.persistence.postgres.kept_connections import KeptConnections
from markethall.shared.persistence.postgres.session import BEGIN, BEGIN_SNAPSHOT, PooledSession
from markethall.shared.persistence.postgres_errors import (
    UNAVAILABLE_ERRORS,
    translate_connection_errors,
    translate_login_errors,
)
from markethall.shared.persistence.postgres_url import asyncpg_dsn

if TYPE_CHECKING:
    from markethall.shared.persistence.postgres.connection import Driver
    from markethall.shared.persistence.postgres.kept_connections import PooledDriver


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
        """`direct_url` bypasses the pooler; it is needed if `url` leads to a pooler.

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
        self._pool: KeptConnections | None = None
        self._open_lock = asyncio.Lock()

    @property
    def connections_in_use(self) -> int:
        return self._pool.in_use if self._pool else 0

    def transaction(self) -> "PooledSession":
        """Commit when the block ends; roll back when it raises. Raises Unavailable."""
        return PooledSession(self._acquire, self._timeout, BEGIN)

    def snapshot(self) -> "PooledSession":
        """Run statements that all see the same commits and cannot write. Raises Unavailable."""
        return PooledSession(self._acquire, self._timeout, BEGIN_SNAPSHOT)

    def read_session(self) -> "PooledSession":
        """Run statements without a transaction: each sees the latest commits.

        A statement may also write, and then commits by itself. Raises Unavailable.
        """
        return PooledSession(self._acquire, self._timeout, None)

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

    async def _acquire(self) -> "tuple[KeptConnections, PooledDriver]":
        pool = self._pool
        if pool and (driver := pool.take()):
            return pool, driver
        try:
            return await wait_within_budget(self._acquire_now(), self._timeout)
        except Exception:
            # entered only after an error, because this method runs before each statement
            with translate_login_errors():
                raise

    async def _acquire_now(self) -> "tuple[KeptConnections, PooledDriver]":
        pool = self._pool or await self._open_and_check_clock()
        return pool, await pool.acquire()

    async def _open_and_check_clock(self) -> KeptConnections:
        """Open the pool, which compares the clock of this process with that of the database.

        Raises Unavailable if the clock was wrong and is corrected now: the caller may have read the
        wrong time before, and would store it.
        """
        corrections = self.clock.corrections
        pool = await self._open()
        if self.clock.corrections > corrections:
            raise Unavailable(dependency="postgres")
        return pool

    async def _open(self) -> KeptConnections:
        async with self._open_lock:
            if self._pool is None:
                pool = await asyncpg.create_pool(
                    min_size=self._pool_size.min_size,
                    max_size=self._pool_size.max_size,
                    init=self._compare_clock,
                    reset=_keep_session,
                    **self._connect_arguments,
                )
                self._pool = KeptConnections(pool, self._pool_size.min_size)
            return self._pool

    async def _compare_clock(self, driver: "Driver") -> None:
        asked_at = self.clock()
        self.clock.compare(asked_at, await driver.fetchval("SELECT clock_timestamp()"))


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
            # Postgres then ends a statement even if its client has disconnected
            "statement_timeout": str(max(2, int(milliseconds * 0.95))),
            "idle_in_transaction_session_timeout": "10000",
            # With these keepalive settings, the server ends a connection 25 s after the client
            # machine has become unreachable. If the client is a leader, this releases its advisory
            # lock.
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
            "jit": "off",
            # Counting facets groups all products by sets of labels. With the default of 2, Postgres
            # would sort the products on disk, which takes three times as long.
            "hash_mem_multiplier": "8",
        },
    }
