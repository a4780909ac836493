"""Transactions and read sessions on connections of a pool."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.wait_budget import STATEMENT_TIMEOUT
from markethall.shared.observability.opentelemetry import tracing
from markethall.shared.persistence.database import HOLDS_CONNECTION
from markethall.shared.persistence.postgres.connection import Connection
from markethall.shared.persistence.postgres.traced_connection import TracedConnection
from markethall.shared.persistence.postgres_errors import (
    SCHEMA_MISMATCH_ERRORS,
    invalidates_connection,
    means_unavailable,
)

if TYPE_CHECKING:
    from markethall.shared.persistence.postgres.connection import Driver
    from markethall.shared.persistence.postgres.kept_connections import (
        KeptConnections,
        PooledDriver,
    )

BEGIN: Final = "BEGIN"
# A statement of a snapshot sums many rows, so it may take longer than one of a request.
SNAPSHOT_STATEMENT_SECONDS: Final = 20
# all statements see the commits that the first statement sees, and none can write
BEGIN_SNAPSHOT: Final = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;"
    f" SET LOCAL statement_timeout = '{SNAPSHOT_STATEMENT_SECONDS - 1}s'"
)

log = structlog.get_logger("markethall.database")

# Postgres must confirm within this time that it has cancelled a statement. Otherwise the connection
# is closed instead of being used again.
_CANCEL_TIMEOUT_SECONDS: Final = 0.15


class PooledSession:
    """A context manager that holds a pooled connection.

    It is a class because two nested @asynccontextmanager would take a fifth of the time of a select
    by primary key.
    """

    __slots__ = ("_acquire", "_begin", "_driver", "_pool", "_timeout", "_token")

    def __init__(
        self,
        acquire: "Callable[[], Awaitable[tuple[KeptConnections, PooledDriver]]]",
        timeout: float,
        begin: str | None,
    ) -> None:
        """`begin` is the statement that begins a transaction; None: there is no transaction."""
        self._acquire = acquire
        self._timeout = timeout
        self._begin = begin

    async def __aenter__(self) -> Connection:
        self._pool, self._driver = await self._acquire()
        if self._begin:
            try:
                await self._driver.execute(self._begin)
            except BaseException as error:
                await self._abort(error)
                raise
        self._token = HOLDS_CONNECTION.set("postgres" if self._begin else "reading")
        connection_class = TracedConnection if tracing.is_on else Connection
        return connection_class(self._driver, self._fetch_timeout())

    def _fetch_timeout(self) -> float | None:
        if self._begin is None:
            return STATEMENT_TIMEOUT.get()
        return SNAPSHOT_STATEMENT_SECONDS if self._begin == BEGIN_SNAPSHOT else None

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        HOLDS_CONNECTION.reset(self._token)
        if error is not None:
            await self._abort(error)
            return
        if self._begin:
            try:
                await _commit(self._driver)
            except BaseException as commit_error:
                await self._abort(commit_error)
                raise
        if not self._pool.keep(self._driver):
            await self._release(self._timeout)

    async def _abort(self, error: BaseException) -> None:
        """Release the connection after an error.

        Raises Unavailable if the error means that Postgres is unavailable.
        """
        await self._roll_back_or_terminate(error)
        if isinstance(error, asyncpg.DeadlockDetectedError):
            # logged as an error, because a deadlock is a bug: all code must lock rows in the same
            # order
            log.error("database.deadlock", detail=error.detail, exc_info=error)
        if isinstance(error, SCHEMA_MISMATCH_ERRORS):
            log.error("database.schema_mismatch", detail=str(error))
        if means_unavailable(error):
            raise Unavailable(dependency="postgres") from error

    async def _roll_back_or_terminate(self, error: BaseException) -> None:
        is_clean = False
        # after a timeout, asyncpg has asked Postgres to cancel the statement, which must be quick
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
            await self._pool.release(self._driver, seconds)
        except TimeoutError:
            pass  # the pool closed the connection: Postgres did not confirm the cancellation
        except asyncpg.InterfaceError:  # the pool was closed meanwhile
            self._driver.terminate()


async def _commit(driver: "Driver") -> None:
    """Commit. Raises RuntimeError if a statement of the transaction has failed.

    In this case, Postgres rolls back at COMMIT, but does not return an error.
    """
    status = await driver.execute("COMMIT")
    if status != "COMMIT":
        raise RuntimeError("an error was caught inside this transaction: it was rolled back")
