"""Reads a Postgres URL as hosting providers give it, and converts it to the form of asyncpg."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

# parameters of libpq that asyncpg has too (postgresql.org, "Parameter Key Words")
_SUPPORTED: Final = frozenset(
    {
        "host",
        "options",
        "passfile",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "sslpassword",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "target_session_attrs",
        "krbsrvname",
    }
)
# parameters of libpq that are ignored, because a setting or a constant of this program applies
_IGNORED: Final = frozenset(
    {
        "application_name",
        "fallback_application_name",
        "client_encoding",
        "connect_timeout",
        "gssencmode",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
    }
)
# URL parameters that configure other drivers for PgBouncer. A parameter is ignored if it has the
# value given here, which means "no pooler"; with another value the URL is rejected.
_POOLER: Final = {"pgbouncer": "false", "statement_cache_size": "", "prepare_threshold": ""}


class InvalidPostgresUrl(ValueError):
    """The message is one line without the URL, which may contain a password."""


def asyncpg_dsn(url: str) -> str:
    """Return the URL for asyncpg: `postgresql://…`. Raises InvalidPostgresUrl."""
    parsed = _parse(url)
    parameters = {
        name: value
        for name, value in _parameters(parsed).items()
        if _is_supported(name, value.lower())
    }
    return parsed.set(query=parameters).render_as_string(hide_password=False)


def _parse(url: str) -> URL:
    text = url.strip()
    if text.startswith("postgres://"):
        text = "postgresql://" + text.removeprefix("postgres://")
    try:
        return make_url(text).set(drivername="postgresql")
    except (ArgumentError, ValueError):
        raise InvalidPostgresUrl("must be an address like postgresql://host/database") from None


def _parameters(url: URL) -> Mapping[str, str]:
    """Return the query parameters, with `ssl` renamed to `sslmode`.

    URLs for SQLAlchemy with asyncpg have `ssl`. Raises InvalidPostgresUrl for a repeated parameter.
    """
    parameters: dict[str, str] = {}
    for name, value in url.query.items():
        if not isinstance(value, str):
            raise InvalidPostgresUrl(f"has the parameter {name} twice")
        parameters["sslmode" if name == "ssl" else name] = value
    return parameters


def _is_supported(name: str, value: str) -> bool:
    """Tell whether the parameter is passed to asyncpg; otherwise it is removed from the URL.

    Raises InvalidPostgresUrl for a parameter that must not be removed silently.
    """
    if name in _POOLER and value != _POOLER[name]:
        raise InvalidPostgresUrl(
            f"has the parameter {name}: remove it and set MARKETHALL_DATABASE_POOLER=transaction"
        )
    if name == "channel_binding" and value == "require":
        raise InvalidPostgresUrl("has channel_binding=require, which the driver does not support")
    if name in _IGNORED | _POOLER.keys() | {"channel_binding"}:
        return False
    if name not in _SUPPORTED:
        raise InvalidPostgresUrl(f"has the parameter {name}, which is not known")
    return True
