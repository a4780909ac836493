"""Classifies asyncpg's errors: whether the database is down, whether the connection is usable."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from markethall.shared.kernel.errors import Unavailable

# A table, column or function is missing: the database has the migrations of another release.
SCHEMA_MISMATCH_ERRORS: Final = (
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
)
# The server is unreachable, shutting down or overloaded, a timeout has expired, or the schema does
# not fit this release.
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
# The connection can be used again after these errors.
_ERRORS_THAT_KEEP_CONNECTION: Final = (
    TimeoutError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.QueryCanceledError,
    *SCHEMA_MISMATCH_ERRORS,
)


@contextmanager
def translate_connection_errors() -> Iterator[None]:
    """Raise Unavailable instead of errors that mean that the database is unavailable."""
    try:
        yield
    except UNAVAILABLE_ERRORS as error:
        if not means_unavailable(error):
            raise
        raise Unavailable(dependency="postgres") from error


@contextmanager
def translate_login_errors() -> Iterator[None]:
    """Raise Unavailable instead of every error while connecting, such as a rejected password.

    Use this only for the login: later, errors of these classes may mean that a statement is wrong.
    """
    try:
        with translate_connection_errors():
            yield
    except asyncpg.PostgresError as error:
        raise Unavailable(dependency="postgres") from error


def means_unavailable(error: BaseException) -> bool:
    """Tell whether the error means that the database is unavailable.

    An InterfaceError means it only for a closed connection or pool. Any other InterfaceError is a
    bug, such as concurrent use of a connection.
    """
    if isinstance(error, asyncpg.InterfaceError):
        # asyncpg has no error class for a closed connection or pool, only these texts
        return any(word in str(error) for word in ("closed", "closing", "released back"))
    return isinstance(error, UNAVAILABLE_ERRORS)


def invalidates_connection(error: BaseException) -> bool:
    """Tell whether the connection must be closed, because its state is unknown."""
    if isinstance(error, _ERRORS_THAT_KEEP_CONNECTION):
        return False
    return isinstance(error, UNAVAILABLE_ERRORS) or not isinstance(error, Exception)
