"""Where databases are, as asyncpg and as libpq want to be told; and the no of a move."""

import os
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

# what libpq takes from its environment: a password in an argument is seen by everybody
_LIBPQ: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "ssl": "PGSSLMODE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "options": "PGOPTIONS",
}


class MoveFailed(RuntimeError):
    """In one line. The source is as it was, and there is no half copy."""


def dsn(url: str) -> str:
    """As asyncpg reads it: SQLAlchemy's name for sslmode is its own."""
    parts = parts_of(url)
    if mode := parts.query.get("ssl"):
        parts = parts.difference_update_query(["ssl"]).update_query_dict({"sslmode": str(mode)})
    return parts.render_as_string(hide_password=False)


def libpq(url: str) -> dict[str, str]:
    """The environment that says where to connect: arguments are seen by everybody."""
    parts = parts_of(url)
    given = {
        "PGHOST": parts.host,
        "PGPORT": parts.port,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGDATABASE": parts.database,
        **{_LIBPQ[name]: value for name, value in parts.query.items() if name in _LIBPQ},
    }
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MARKETHALL_")}
    return {**ours, **{name: str(value) for name, value in given.items() if value}}


def parts_of(url: str) -> URL:
    try:
        return make_url(url).set(drivername="postgresql")
    except (ArgumentError, ValueError):
        # without its text: there is a password in it
        raise MoveFailed("an address is like postgresql://user:…@host/database") from None
