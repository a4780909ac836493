"""Field types of the settings: names of contexts, URLs of servers, origins, rate limits."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, SecretStr

from markethall.contexts import context_names
from markethall.shared.composition.settings import Secret

_POSTGRES_SCHEMES: Final = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
_REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})


def _check_installed(name: str) -> str:
    if name not in context_names():
        raise ValueError(f"must be one of the contexts {', '.join(context_names())}")
    return name


ContextName = Annotated[str, AfterValidator(_check_installed)]


def _validate_postgres(url: SecretStr) -> SecretStr:
    """Return the URL without surrounding space. Raises ValueError if it is not a Postgres URL."""
    from markethall.shared.persistence.postgres_url import asyncpg_dsn

    stripped = SecretStr(url.get_secret_value().strip())
    _require_scheme(stripped, _POSTGRES_SCHEMES, "postgresql://user:…@host/database")
    if stripped.get_secret_value():
        asyncpg_dsn(stripped.get_secret_value())
    return stripped


def _validate_redis(url: SecretStr) -> SecretStr:
    _require_scheme(url, _REDIS_SCHEMES, "redis://host:6379/0")
    return url


def _require_scheme(url: SecretStr, schemes: frozenset[str], example: str) -> None:
    text = url.get_secret_value()
    # the error does not contain the URL, because the URL may contain a password
    if text and _scheme_of(text) not in schemes:
        raise ValueError(f"must be an address like {example}")


def _scheme_of(url: str) -> str:
    """Return the scheme, or an empty string if the URL is invalid."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).drivername
    except (ArgumentError, ValueError):
        return ""


# both also accept an empty value, which means "not set"
PostgresUrl = Annotated[Secret, AfterValidator(_validate_postgres)]
RedisUrl = Annotated[Secret, AfterValidator(_validate_redis)]


# as a browser sends it in the header Origin; group 1 is the scheme, group 2 the port
_ORIGIN: Final = re.compile(
    r"(https?)://(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS: Final = {("http", "80"), ("https", "443")}
_MAX_PORT: Final = 65535


def _validate_origin(origin: str) -> str:
    match = _ORIGIN.fullmatch(origin)
    if not match or match.groups() in _DEFAULT_PORTS or int(match[2] or 1) > _MAX_PORT:
        raise ValueError(
            "must be an origin such as https://shop.example or http://localhost:3000: lower case, "
            "without path, final slash, wildcard or default port"
        )
    return origin


Origin = Annotated[str, AfterValidator(_validate_origin)]


_RATE_LIMIT: Final = re.compile(r"([1-9][0-9]{0,6})/([1-9][0-9]{0,4})")
_MAX_WINDOW_SECONDS: Final = 86_400


def parse_rate_limit(text: str) -> tuple[int, int]:
    """Return the quota and the window in seconds of a text such as `600/60`. Raises ValueError."""
    match = _RATE_LIMIT.fullmatch(text)
    if not match or int(match[2]) > _MAX_WINDOW_SECONDS:
        raise ValueError(
            "must be requests/seconds, such as 600/60: 1 to 9999999 in 1 to 86400 seconds"
        )
    return int(match[1]), int(match[2])


def _validate_rate_limit(text: str) -> str:
    parse_rate_limit(text.strip())
    return text.strip()


RateLimitText = Annotated[str, AfterValidator(_validate_rate_limit)]
