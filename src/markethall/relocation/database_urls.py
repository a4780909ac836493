"""Converts a database URL to the forms that asyncpg and libpq need."""

import os
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_LIBPQ_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "ssl": "PGSSLMODE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "options": "PGOPTIONS",
}


class RelocationFailed(RuntimeError):
    """The relocation failed; the message is one line. The source is unchanged."""


def libpq_environment(url: str) -> dict[str, str]:
    """Return the environment variables with which pg_dump and psql connect.

    The password is not passed as an argument, because every user of the machine can read the
    arguments of a process. Raises RelocationFailed.
    """
    parts = parse_url(url)
    given = {
        "PGHOST": parts.host,
        "PGPORT": parts.port,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGDATABASE": parts.database,
        **{
            _LIBPQ_VARIABLES[name]: value
            for name, value in parts.query.items()
            if name in _LIBPQ_VARIABLES
        },
    }
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MARKETHALL_")}
    return {**ours, **{name: str(value) for name, value in given.items() if value}}


def parse_url(url: str) -> URL:
    """Return the URL with the scheme `postgresql`. Raises RelocationFailed."""
    try:
        return make_url(url).set(drivername="postgresql")
    except (ArgumentError, ValueError):
        # `from None`, because the text of the original error contains the password
        raise RelocationFailed("an address is like postgresql://user:…@host/database") from None
