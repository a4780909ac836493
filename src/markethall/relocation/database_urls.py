"""Database URLs in the forms that asyncpg and libpq read."""

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
    """A reason in one line. The source is unchanged, and no part of a copy is left."""


def asyncpg_dsn(url: str) -> str:
    """Rename `ssl`, SQLAlchemy's name for `sslmode`. Raises RelocationFailed."""
    parts = parse_url(url)
    if mode := parts.query.get("ssl"):
        parts = parts.difference_update_query(["ssl"]).update_query_dict({"sslmode": str(mode)})
    return parts.render_as_string(hide_password=False)


def libpq_environment(url: str) -> dict[str, str]:
    """Environment variables for pg_dump and psql: every user can see the arguments of a process.

    Raises RelocationFailed.
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
    """Raises RelocationFailed."""
    try:
        return make_url(url).set(drivername="postgresql")
    except (ArgumentError, ValueError):
        # the text of the error would repeat the password
        raise RelocationFailed("an address is like postgresql://user:…@host/database") from None
