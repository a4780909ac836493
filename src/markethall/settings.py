"""Everything that can be set, from the environment (MARKETHALL_…)."""

import ipaddress
import json
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from markethall.shared.passwords import weakness
from markethall.topology import HEARS, NEEDS, Context

SHORTEST_SECRET = 32
# OWASP's least work factor for bcrypt
LEAST_COST = 10
# on every platform, before the platform decided
_FORMER_DATA_DIR: Final = "~/.local/share/markethall"


class _Kind(NamedTuple):
    schemes: frozenset[str]
    example: str


_POSTGRES: Final = _Kind(
    frozenset({"postgres", "postgresql", "postgresql+asyncpg"}), "postgresql://user:…@host/database"
)
_REDIS: Final = _Kind(frozenset({"redis", "rediss", "unix"}), "redis://host:6379/0")


class BadSettings(Exception):
    """One readable line for each thing that is wrong."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _comma_list(value: Any) -> Any:
    """`users,orders` as well as `["users", "orders"]`."""
    if isinstance(value, str) and not value.strip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("must be a comma list or a JSON array") from None
    return value


CommaList = BeforeValidator(_comma_list)


class MigrationSettings(BaseSettings):
    """What alembic needs to know."""

    model_config = SettingsConfigDict(env_prefix="MARKETHALL_", extra="ignore")

    database_url: str = ""
    database_urls: dict[Context, str] = {}

    def url_of(self, context: Context) -> str:
        """Raises BadSettings when no database is named."""
        url = self.database_urls.get(context) or self.database_url
        if not url:
            raise BadSettings(["MARKETHALL_DATABASE_URL: say which database to migrate"])
        return url


class Settings(BaseSettings):
    """All settings. The table in the README is made from this class."""

    model_config = SettingsConfigDict(
        env_prefix="MARKETHALL_",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    environment: Annotated[
        Literal["development", "production"],
        Field(description="production refuses generated secrets and everything meant for trying"),
    ] = "development"
    serve: Annotated[
        frozenset[Context],
        NoDecode,
        CommaList,
        Field(description="The contexts that this process serves", min_length=1),
    ] = frozenset(Context)
    remotes: Annotated[
        dict[Context, str],
        Field(description="Where the others are: a JSON object of context to base URL"),
    ] = {}
    storage: Annotated[
        Literal["sql", "memory"], Field(description="memory keeps nothing after the process ends")
    ] = "sql"
    database_url: Annotated[
        SecretStr,
        Field(description="Postgres; empty starts the embedded server in the data directory"),
    ] = SecretStr("")
    database_urls: Annotated[
        dict[Context, SecretStr],
        Field(description="Postgres per context, as a JSON object; the others use DATABASE_URL"),
    ] = {}
    database_pool_min: Annotated[int, Field(ge=1, description="Connections kept open")] = 5
    database_pool_max: Annotated[int, Field(ge=1, description="Connections at most")] = 20
    database_timeout: Annotated[
        float, Field(gt=0, description="Seconds to wait for a connection, a lock, a statement")
    ] = 1.8
    redis_url: Annotated[
        SecretStr, Field(description="Cache and rate limits; empty keeps both in the process")
    ] = SecretStr("")
    data_dir: Annotated[
        Path | None,
        Field(
            description="Embedded server and generated keys. Empty: `~/.local/share/markethall` "
            "where it exists, else the platform's folder for user data"
        ),
    ] = None
    secret: Annotated[
        SecretStr,
        Field(description="At least 32 characters; signs cursors and webhooks. Empty: generated"),
    ] = SecretStr("")
    signing_key: Annotated[
        SecretStr,
        Field(description="Ed25519 private key (PEM) that signs access tokens. Empty: generated"),
    ] = SecretStr("")
    service_key: Annotated[
        SecretStr,
        Field(
            description="Ed25519 private key (PEM) that signs calls of a remote neighbour. "
            "Empty: generated"
        ),
    ] = SecretStr("")
    deadline: Annotated[
        float, Field(gt=0, le=60, description="Seconds that a request may wait for neighbours")
    ] = 5
    remote_timeout: Annotated[
        float, Field(gt=0, description="Seconds for one attempt to reach a remote neighbour")
    ] = 2
    remote_connections: Annotated[
        int, Field(ge=1, description="Connections to each remote neighbour at most")
    ] = 32
    events: Annotated[
        Literal["auto", "both"],
        Field(
            description="auto: straight to listeners here, by Redis Streams to those elsewhere; "
            "both: by Redis Streams to those here too, for the time of a move"
        ),
    ] = "auto"
    issuer: Annotated[str, Field(description="`iss` of the access tokens: the public address")] = (
        "http://localhost:8000"
    )
    admin_email: Annotated[
        str, Field(description="With ADMIN_PASSWORD: the first admin, made where there is none")
    ] = ""
    admin_password: Annotated[SecretStr, Field(description="See ADMIN_EMAIL")] = SecretStr("")
    bcrypt_cost: Annotated[int, Field(ge=4, le=16, description="Each step doubles the time")] = 12
    token_ttl: Annotated[int, Field(ge=1, description="Seconds an access token is good for")] = 900
    hold_ttl: Annotated[
        float,
        # 15 minutes: inventory holds goods no longer for anybody
        Field(
            gt=0, le=900, description="Seconds that stock is held for an unpaid order; 900 at most"
        ),
    ] = 900
    open_holds: Annotated[
        int, Field(ge=1, description="Unpaid orders that stock is held for at a time, per customer")
    ] = 20
    held_units: Annotated[
        int, Field(ge=1, description="Units of a product that one customer may hold unpaid")
    ] = 1000
    idempotency_lease: Annotated[
        float, Field(gt=0, description="Seconds before a retry may take a crashed request over")
    ] = 15
    gateway_timeout: Annotated[
        float, Field(gt=0, description="Seconds to wait for the card provider")
    ] = 8
    reconcile_after: Annotated[
        float, Field(gt=0, description="Seconds before an unanswered charge is asked after")
    ] = 15
    cache: Annotated[Literal["on", "off"], Field(description="The cache of product reads")] = "on"
    response_cache_ttl_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="Seconds that a whole public response is reused while the cache holds its "
            "data; 0 turns this off",
        ),
    ] = 5
    rate_limits: Annotated[
        Literal["on", "off"], Field(description="off is for benchmarks; refused in production")
    ] = "on"
    trusted_proxies: Annotated[
        tuple[str, ...],
        NoDecode,
        CommaList,
        Field(description="Networks whose X-Forwarded-For is believed, as a comma list"),
    ] = ()
    body_limit: Annotated[int, Field(ge=1024, description="Bytes of a request body at most")] = (
        1024 * 1024
    )
    import_limit: Annotated[
        int, Field(ge=1024, description="Bytes of a file to import at most")
    ] = 64 * 1024 * 1024
    body_timeout: Annotated[
        float, Field(gt=0, description="Seconds for a request's head, and for its body, to arrive")
    ] = 10
    docs: Annotated[
        Literal["auto", "on", "off"],
        Field(description="/docs and /openapi.json; auto: on, but off in production"),
    ] = "auto"
    debug: Annotated[bool, Field(description="/debug, and a provoked error there")] = False
    log_format: Annotated[
        Literal["auto", "json", "pretty"], Field(description="auto: pretty in a terminal")
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="The least that is logged")
    ] = "info"
    drain_seconds: Annotated[
        float, Field(ge=0, description="Seconds not ready before SIGTERM closes the door")
    ] = 0
    shutdown_seconds: Annotated[
        int, Field(ge=1, description="Seconds for requests in flight to finish")
    ] = 20

    @field_validator("remotes")
    @classmethod
    def _base_urls(cls, remotes: dict[Context, str]) -> dict[Context, str]:
        for context, url in remotes.items():
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError(f"{context}: must be an http or https address")
        return remotes

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, url: SecretStr) -> SecretStr:
        return _checked_url(url, _POSTGRES)

    @field_validator("database_urls")
    @classmethod
    def _are_postgres(cls, urls: dict[Context, SecretStr]) -> dict[Context, SecretStr]:
        return {context: _checked_url(url, _POSTGRES) for context, url in urls.items()}

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: SecretStr) -> SecretStr:
        return _checked_url(url, _REDIS)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            ipaddress.ip_network(proxy, strict=False)
        return proxies

    @field_validator("secret")
    @classmethod
    def _strong(cls, secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        if text and (len(text) < SHORTEST_SECRET or len(set(text)) < SHORTEST_SECRET // 4):
            raise ValueError(f"is too weak: at least {SHORTEST_SECRET} random characters")
        return secret

    @model_validator(mode="after")
    def _whole(self) -> Self:
        wrong = [
            *self._wrong_topology(),
            *self._wrong_events(),
            *self._wrong_pool(),
            *self._wrong_admin(),
            *self._wrong_in_production(),
        ]
        if wrong:
            raise BadSettings(wrong)
        return self

    def _wrong_topology(self) -> list[str]:
        wrong = [
            f"MARKETHALL_REMOTES: {context} is served by this process and cannot be remote too"
            for context in sorted(self.serve & set(self.remotes))
        ]
        for context in sorted(self.serve):
            missing = sorted(NEEDS[context] - self.serve - set(self.remotes))
            if missing:
                names = ", ".join(missing)
                wrong.append(f"MARKETHALL_REMOTES: {context} needs {names}: serve or name them")
        return wrong

    def _wrong_events(self) -> list[str]:
        if self.redis_url.get_secret_value():
            return []
        wrong = [
            f"MARKETHALL_REDIS_URL: is required: {publisher} or {listener} is served elsewhere"
            for publisher, listener in self.flows
            if (publisher in self.serve) != (listener in self.serve)
        ]
        if self.events == "both" and not wrong:
            wrong.append("MARKETHALL_EVENTS: both needs MARKETHALL_REDIS_URL")
        return wrong

    def _wrong_pool(self) -> list[str]:
        if self.database_pool_max < self.database_pool_min:
            return ["MARKETHALL_DATABASE_POOL_MAX: is less than MARKETHALL_DATABASE_POOL_MIN"]
        return []

    def _wrong_admin(self) -> list[str]:
        password = self.admin_password.get_secret_value()
        if bool(self.admin_email) != bool(password):
            return ["MARKETHALL_ADMIN_EMAIL: comes together with MARKETHALL_ADMIN_PASSWORD"]
        if not password:
            return []
        weak = weakness(password, self.admin_email, self.admin_email.partition("@")[0])
        return [f"MARKETHALL_ADMIN_PASSWORD: is {weak.replace('_', ' ')}"] if weak else []

    def _wrong_in_production(self) -> list[str]:
        if self.environment != "production":
            return []
        wrong = self._wrong_keys()
        if self.storage == "memory":
            wrong.append("MARKETHALL_STORAGE: memory keeps nothing; it is refused in production")
        elif missing := self._without_database():
            wrong.append(f"MARKETHALL_DATABASE_URL: is required in production for {missing}")
        if self.rate_limits == "off":
            wrong.append("MARKETHALL_RATE_LIMITS: off is refused in production")
        if self.debug:
            wrong.append("MARKETHALL_DEBUG: is refused in production")
        if self.bcrypt_cost < LEAST_COST:
            wrong.append(f"MARKETHALL_BCRYPT_COST: is at least {LEAST_COST} in production")
        return wrong

    def _wrong_keys(self) -> list[str]:
        wrong = []
        if not self.secret.get_secret_value():
            wrong.append("MARKETHALL_SECRET: is required in production")
        if Context.USERS in self.serve and not self.signing_key.get_secret_value():
            wrong.append("MARKETHALL_SIGNING_KEY: is required in production where users is served")
        if Context.USERS not in self.serve | set(self.remotes):
            wrong.append("MARKETHALL_REMOTES: users: is required to read its public keys")
        if self.calls_out and not self.service_key.get_secret_value():
            wrong.append("MARKETHALL_SERVICE_KEY: is required in production to call a neighbour")
        return wrong

    def _without_database(self) -> str:
        return ", ".join(c for c in sorted(self.serve) if not self.database_of(c))

    def database_of(self, context: Context) -> str:
        own = self.database_urls.get(context)
        return (own or self.database_url).get_secret_value()

    @property
    def flows(self) -> list[tuple[Context, Context]]:
        """(publisher, listener), of all contexts, wherever they are served."""
        return [
            (publisher, listener) for listener in Context for publisher in sorted(HEARS[listener])
        ]

    def pipes(self, publisher: Context, listener: Context) -> tuple[bool, bool]:
        """Whether events go straight into the listener's inbox, and whether by Redis Streams."""
        direct = {publisher, listener} <= self.serve
        return direct, not direct or self.events == "both"

    @property
    def calls_out(self) -> bool:
        """Whether a context that is served here calls one that is not."""
        return any(NEEDS[context] - self.serve for context in self.serve)

    def callers_of(self, context: Context) -> frozenset[Context]:
        """Who calls this context from another process."""
        return frozenset(c for c in Context if context in NEEDS[c]) - self.serve

    @property
    def trusts_itself(self) -> bool:
        """Whether a caller is not named, so that only a key which we share can vouch for it."""
        return any(self.callers_of(context) - set(self.remotes) for context in self.serve)

    def mode(self, context: Context) -> Literal["local", "remote"]:
        return "local" if context in self.serve else "remote"

    @property
    def shows_docs(self) -> bool:
        return self.docs == "on" or (self.docs == "auto" and self.environment != "production")

    @cached_property
    def home(self) -> Path:
        """The data directory, `~` resolved."""
        if self.data_dir:
            return self.data_dir.expanduser()
        former = Path(_FORMER_DATA_DIR).expanduser()
        return former if former.exists() else user_data_path("markethall")


def read_settings(**given: Any) -> Settings:
    """From the environment, and what is given over it. Raises BadSettings."""
    try:
        return Settings(**given)
    except ValidationError as error:
        raise BadSettings([_line(item) for item in error.errors()]) from None
    except SettingsError as error:
        raise BadSettings([_not_json(error)]) from None


def _line(item: Any) -> str:
    name, *rest = item["loc"] or ("",)
    # a key of a JSON object may be anything, an address with a password too
    parts = [part for part in map(str, rest) if part.isalnum() and len(part) < 20]  # noqa: PLR2004
    where = f"MARKETHALL_{str(name).upper()}" + "".join(f"[{part}]" for part in parts)
    return f"{where}: {item['msg'].removeprefix('Value error, ')}"


def _not_json(error: SettingsError) -> str:
    """pydantic-settings names the field, and in its own words."""
    found = re.search(r'field "(\w+)"', str(error))
    name = f"MARKETHALL_{found[1].upper()}" if found else "a setting"
    return f"{name}: must be a JSON object"


def _checked_url(url: SecretStr, kind: _Kind) -> SecretStr:
    """The address, if it is one of this kind. It is never repeated: there is a password in it."""
    text = url.get_secret_value()
    if text and _scheme(text) not in kind.schemes:
        raise ValueError(f"must be an address like {kind.example}")
    return url


def _scheme(url: str) -> str:
    """Empty for what is no address at all."""
    from sqlalchemy import make_url  # noqa: PLC0415 - large, and wanted only with a server
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - large, as the line above

    try:
        return make_url(url).drivername
    except (ArgumentError, ValueError):
        return ""
