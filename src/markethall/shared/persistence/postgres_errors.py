"""Errors of asyncpg: which mean that the database is unavailable, which spoil a connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from markethall.shared.kernel.errors import Unavailable

# The schema is not the one that the statements were written for: not migrated, or too new.
SCHEMA_MISMATCH_ERRORS: Final = (
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
)
# The server is away, shutting down or overloaded, or a timeout has expired.
UNAVAILABLE_ERRORS: Final = (
    OSError,
    TimeoutError,
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
    *SCHEMA_MISMATCH_ERRORS,
)
# The connection can be used again after these.
_ERRORS_THAT_KEEP_CONNECTION: Final = (
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.QueryCanceledError,
    *SCHEMA_MISMATCH_ERRORS,
)


@contextmanager
def translate_connection_errors() -> Iterator[None]:
    """Raise Unavailable in place of every error that means that the database does not answer."""
    try:
        yield
    except UNAVAILABLE_ERRORS as error:
        if not means_unavailable(error):
            raise
        raise Unavailable(dependency="postgres") from error


@contextmanager
def translate_login_errors() -> Iterator[None]:
    """Raise Unavailable for every error while connecting, such as a refused password.

    After the login the same classes of errors are faults of a statement.
    """
    try:
        with translate_connection_errors():
            yield
    except asyncpg.PostgresError as error:
        raise Unavailable(dependency="postgres") from error


def means_unavailable(error: BaseException) -> bool:
    """Return False for a fault of this program, such as concurrent use of one connection."""
    if isinstance(error, asyncpg.InterfaceError):
        # asyncpg's words for a connection or a pool that was closed meanwhile
        return any(word in str(error) for word in ("closed", "closing", "released back"))
    return isinstance(error, UNAVAILABLE_ERRORS)


def invalidates_connection(error: BaseException) -> bool:
    """Return whether the state of the connection is unknown after this error."""
    if isinstance(error, _ERRORS_THAT_KEEP_CONNECTION):
        return False
    return isinstance(error, UNAVAILABLE_ERRORS) or not isinstance(error, Exception)
