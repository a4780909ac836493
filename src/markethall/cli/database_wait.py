import asyncio
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from markethall.shared.persistence.postgres_url import asyncpg_dsn

WAIT_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.5


class DatabaseUnreachable(OSError):
    """Postgres does not accept the connection. The message is one line without the password."""


def wait_for_database(
    url: str, report: Callable[[str], None], *, seconds: float = WAIT_SECONDS
) -> None:
    """Return when Postgres accepts a connection. Call this outside of an event loop.

    Retries for `seconds` while the server refuses the connection, does not answer or is still
    starting; then raises DatabaseUnreachable. Raises it at once if the user, the password or the
    database name is wrong.
    """
    asyncio.run(_wait(url, report, seconds))


async def _wait(url: str, report: Callable[[str], None], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    is_reported = False
    while True:
        remaining = deadline - time.monotonic()
        try:
            await _connect(url, max(remaining, _PAUSE_SECONDS))
        except asyncpg.CannotConnectNowError as error:
            reason = str(error)
        except asyncpg.PostgresError as error:
            raise _unreachable(url, str(error)) from None
        except OSError as error:
            reason = _reason(error)
        else:
            return
        if remaining <= 0:
            raise _unreachable(url, reason)
        if not is_reported:
            report(f"Waiting up to {seconds:g} s for Postgres at {_place(url)}: {reason}")
            is_reported = True
        await asyncio.sleep(_PAUSE_SECONDS)


async def _connect(url: str, seconds: float) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(url), timeout=seconds)
    await connection.close()


def _unreachable(url: str, reason: str) -> DatabaseUnreachable:
    return DatabaseUnreachable(
        f"Postgres at {_place(url)} is not available: {reason}; see MARKETHALL_DATABASE_URL"
    )


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname or 'the local socket'}:{parts.port or 5432}"


def _reason(error: OSError) -> str:
    """Return the reason without the error number. A TimeoutError has no text, so add one."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or str(error)
