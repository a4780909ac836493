"""Converts a Postgres URL to the forms of asyncpg and SQLAlchemy."""

from sqlalchemy.engine import make_url


def asyncpg_dsn(url: str) -> str:
    """Return the URL for asyncpg: `postgresql://…`, with the parameter `sslmode`."""
    parsed = make_url(_with_known_scheme(url)).set(drivername="postgresql")
    if "ssl" in parsed.query:
        mode = parsed.query["ssl"]
        parsed = parsed.difference_update_query(["ssl"]).update_query_dict({"sslmode": mode})
    return parsed.render_as_string(hide_password=False)


def asyncpg_url(url: str) -> str:
    """Return the URL for SQLAlchemy: `postgresql+asyncpg://…`, with the parameter `ssl`."""
    parsed = make_url(_with_known_scheme(url)).set(drivername="postgresql+asyncpg")
    if "sslmode" in parsed.query:
        mode = parsed.query["sslmode"]
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed.render_as_string(hide_password=False)


def _with_known_scheme(url: str) -> str:
    if url.startswith("postgres://"):
        return "postgresql://" + url.removeprefix("postgres://")
    return url
