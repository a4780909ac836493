import ipaddress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from markethall.contexts import context_names, topology
from markethall.settings.data_directory import default_data_directory
from markethall.settings.field_types import (
    ContextName,
    Origin,
    PostgresUrl,
    RateLimitText,
    RedisUrl,
)
from markethall.settings.validation import cross_field_problems
from markethall.shared.composition.settings import (
    SETTINGS_CONFIG,
    CommaList,
    ContextSettings,
    Environment,
    RateLimits,
    Secret,
    SettingsError,
    Storage,
    validate_secret_strength,
)


class Settings(BaseSettings):
    """The settings of the process. Each context has its own class for its settings.

    See docs/configuration.md.
    """

    model_config = SETTINGS_CONFIG

    environment: Environment = "development"
    contexts: Annotated[
        frozenset[ContextName],
        NoDecode,
        CommaList,
        Field(description="The contexts that this process serves", min_length=1),
    ] = Field(default_factory=lambda: frozenset(context_names()))
    context_urls: Annotated[
        dict[ContextName, str],
        Field(description="URLs of the other contexts: a JSON object from context to base URL"),
    ] = {}
    storage: Storage = "sql"
    database_url: PostgresUrl = Field(
        SecretStr(""),
        description="Postgres; empty starts the embedded server in the data directory",
    )
    database_urls: Annotated[
        dict[ContextName, PostgresUrl],
        Field(description="Postgres per context, as a JSON object; the others use DATABASE_URL"),
    ] = {}
    database_pooler: Literal["none", "transaction"] = Field(
        "none",
        description="transaction: the database URLs lead to a pooler in transaction mode, "
        "such as PgBouncer",
    )
    database_direct_url: PostgresUrl = Field(
        SecretStr(""),
        description="Postgres without the pooler, for locks, notifications, migrations",
    )
    database_direct_urls: Annotated[
        dict[ContextName, PostgresUrl],
        Field(
            description="The same per context, as a JSON object; the others use DATABASE_DIRECT_URL"
        ),
    ] = {}
    database_pool_min: int = Field(5, ge=1, description="Minimum number of open connections")
    database_pool_max: int = Field(20, ge=1, description="Maximum number of connections")
    database_timeout: float = Field(
        1.8, gt=0, description="Seconds to wait for a connection, a lock, a statement"
    )
    anonymous_statement_timeout_seconds: float = Field(
        1,
        gt=0,
        description="Seconds that a statement of a read without a token may take; "
        "at most DATABASE_TIMEOUT",
    )
    redis_url: RedisUrl = Field(
        SecretStr(""),
        description="Redis for cache, rate limits and events; empty keeps cache and "
        "limits in the process, and cache invalidations use Postgres",
    )
    data_dir: Path | None = Field(
        None,
        description="Embedded server and generated keys. Empty: `~/.local/share/markethall` "
        "where it exists, else the platform's folder for user data; for root "
        "`/var/lib/markethall`",
    )
    secret_key: Secret = Field(
        SecretStr(""), description="At least 32 characters; signs cursors. Empty: generated"
    )
    access_token_private_key: Secret = Field(
        SecretStr(""),
        description="Ed25519 private key (PEM) that signs access tokens. Empty: generated",
    )
    service_token_private_key: Secret = Field(
        SecretStr(""),
        description="Ed25519 private key (PEM) that signs calls and events to other "
        "processes. Empty: generated",
    )
    request_deadline_seconds: float = Field(
        5, gt=0, le=60, description="Maximum time of a request for calls to other contexts"
    )
    rpc_attempt_timeout_seconds: float = Field(
        2, gt=0, description="Maximum time of one attempt of a call to another process"
    )
    rpc_max_connections: int = Field(
        32, ge=1, description="Maximum number of connections to each other process"
    )
    event_transport: Literal["auto", "dual"] = Field(
        "auto",
        description="auto: in process to subscribers here, by Redis Streams to others; "
        "dual: by Redis Streams to subscribers here too, during a relocation",
    )
    issuer: str = Field(
        "http://localhost:8000", description="`iss` of the access tokens: the public address"
    )
    token_ttl: int = Field(900, ge=1, description="Lifetime of an access token in seconds")
    cache: Literal["on", "off"] = Field("on", description="The cache of product reads")
    response_cache_ttl_seconds: float = Field(
        10,
        ge=0,
        description="Seconds that a public response is reused while the cache holds its data; "
        "0: off",
    )
    rate_limits: RateLimits = "on"
    rate_limit_requests: RateLimitText = Field(
        "600/60",
        description="Requests of a user, or of a network for guests and without a token: "
        "600/60 is 600 in 60 seconds",
    )
    rate_limit_searches: RateLimitText = Field(
        "120/60", description="The same for searches, which count as requests too"
    )
    rate_limit_login: RateLimitText = Field("20/60", description="The same for logins of a network")
    rate_limit_register: RateLimitText = Field(
        "10/60", description="The same for registrations of a network"
    )
    rate_limit_guests: RateLimitText = Field(
        "30/60", description="New guests of a network: 30/60 is 30 in 60 seconds"
    )
    rate_limit_order_lookups: RateLimitText = Field(
        "10/60", description="The same for lookups of orders by number and e-mail"
    )
    rate_limit_images: RateLimitText = Field(
        "6000/60",
        description="Files of images, of a user or a network like REQUESTS; they count for no "
        "other limit",
    )
    rate_limit_change_password: RateLimitText = Field(
        "10/60", description="Password changes of a user: 10/60 is 10 in 60 seconds"
    )
    max_concurrent_requests: int | None = Field(
        None,
        ge=1,
        description="Requests that run at the same time; four times as many may wait, and "
        "beyond them a request gets 503. Empty: DATABASE_POOL_MAX",
    )
    max_concurrent_requests_per_client: int = Field(
        16,
        ge=1,
        description="Requests of one user, or of one address without a user, that run at the "
        "same time; beyond them a request gets 429",
    )
    trusted_proxies: Annotated[
        tuple[str, ...],
        NoDecode,
        CommaList,
        Field(
            description="Networks of proxies, as a comma list, whose X-Forwarded-For is trusted. "
            "Forwarded (RFC 7239) is read without it: such a proxy must remove X-Forwarded-For"
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[Origin, ...],
        NoDecode,
        CommaList,
        Field(
            description="Origins, as a comma list, whose pages may call the API from a browser: "
            "`https://shop.example,http://localhost:3000`"
        ),
    ] = ()
    max_body_bytes: int = Field(
        1024 * 1024,
        ge=1024,
        description="Upper bound of the size of a request body; most routes take 64 KiB",
    )
    max_body_bytes_in_flight: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        description="Bytes of all request bodies in memory at once; beyond them a request gets "
        "503. Not below MAX_BODY_BYTES",
    )
    body_timeout: float = Field(
        10, gt=0, description="Seconds for the head of a request to arrive, and for its body"
    )
    docs: Literal["auto", "on", "off"] = Field(
        "auto", description="/docs and /openapi.json; auto: on, but off in production"
    )
    metrics: Literal["auto", "on", "off"] = Field(
        "auto",
        description="/metrics; auto: on, in production with a warning if METRICS_TOKEN is empty",
    )
    metrics_token: SecretStr = Field(
        SecretStr(""),
        description="The bearer token that /metrics requires. Empty: /metrics is open",
    )
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="The port on which /metrics is served, and nothing else. "
        "Empty: /metrics is served on MARKETHALL_PORT",
    )
    debug: bool = Field(False, description="Serve /debug, which can also provoke an error")
    log_format: Literal["auto", "json", "pretty"] = Field(
        "auto", description="auto: pretty in a terminal"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged"
    )
    drain_seconds: float = Field(
        0,
        ge=0,
        description="Seconds after SIGTERM that the process still serves while it is not ready",
    )
    shutdown_seconds: int = Field(
        20, ge=1, description="Maximum time for running requests to finish at shutdown"
    )

    @field_validator("context_urls")
    @classmethod
    def _validate_context_urls(cls, context_urls: dict[str, str]) -> dict[str, str]:
        for context, url in context_urls.items():
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError(f"{context}: must be an http or https address")
        return context_urls

    @field_validator("trusted_proxies")
    @classmethod
    def _validate_networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            ipaddress.ip_network(proxy, strict=False)
        return proxies

    @field_validator("secret_key")
    @classmethod
    def _validate_secret_strength(cls, secret: SecretStr) -> SecretStr:
        return validate_secret_strength(secret)

    @model_validator(mode="after")
    def _cross_field_checks(self) -> Self:
        if problems := cross_field_problems(self):
            raise SettingsError(problems)
        return self

    _by_context: dict[str, ContextSettings] = PrivateAttr(default_factory=dict)

    @property
    def by_context(self) -> dict[str, ContextSettings]:
        """The settings of each served context, which `read_settings` adds."""
        return self._by_context

    def database_url_of(self, context: str) -> str:
        own_url = self.database_urls.get(context)
        return (own_url or self.database_url).get_secret_value()

    def database_direct_url_of(self, context: str) -> str:
        """Return the URL that bypasses the pooler; if there is no pooler, the database URL."""
        if self.database_pooler == "none":
            return self.database_url_of(context)
        own_url = self.database_direct_urls.get(context)
        return (own_url or self.database_direct_url).get_secret_value()

    @property
    def direct_urls(self) -> dict[str, str]:
        """Map each database URL that leads to a pooler to the direct URL of the same database."""
        if self.database_pooler == "none":
            return {}
        return {
            url: self.database_direct_url_of(contexts[0])
            for url, contexts in self.contexts_by_database.items()
        }

    @property
    def contexts_by_database(self) -> dict[str, list[str]]:
        """Map each database URL to the served contexts that use it, sorted by name."""
        by_url: dict[str, list[str]] = {}
        for context in sorted(self.contexts):
            by_url.setdefault(self.database_url_of(context), []).append(context)
        return by_url

    def event_transports(self, publisher: str, listener: str) -> tuple[bool, bool]:
        """Return two flags: whether events are sent in process, and whether by Redis Streams."""
        is_in_process = {publisher, listener} <= self.contexts
        return is_in_process, not is_in_process or self.event_transport == "dual"

    @property
    def has_remote_dependencies(self) -> bool:
        """Tell whether a served context calls a context of another process."""
        return any(topology().dependencies[context] - self.contexts for context in self.contexts)

    @property
    def has_remote_subscribers(self) -> bool:
        """Tell whether a served context publishes events by Redis Streams, which must be signed."""
        return any(
            publisher in self.contexts and self.event_transports(publisher, subscriber)[1]
            for publisher, subscriber in topology().event_pairs
        )

    def remote_callers_of(self, context: str) -> frozenset[str]:
        """Return the contexts of other processes that call this one."""
        return topology().callers[context] - self.contexts

    def remote_publishers_of(self, context: str) -> frozenset[str]:
        """Return the contexts of other processes whose events this one handles."""
        return frozenset(topology().publishers_of(context)) - self.contexts

    @property
    def accepts_own_service_key(self) -> bool:
        """Tell whether a remote caller must use the same private key as this process.

        This is the case for a caller without a URL in `context_urls`, because its public key cannot
        be fetched.
        """
        return any(
            self.remote_callers_of(context) - set(self.context_urls) for context in self.contexts
        )

    def mode(self, context: str) -> Literal["local", "remote"]:
        return "local" if context in self.contexts else "remote"

    @property
    def serves_docs(self) -> bool:
        return self.docs == "on" or (self.docs == "auto" and self.environment != "production")

    @cached_property
    def data_directory(self) -> Path:
        """The data directory, with `~` replaced by the home directory."""
        return self.data_dir.expanduser() if self.data_dir else default_data_directory()
