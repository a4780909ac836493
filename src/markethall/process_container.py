"""The container of the objects that all contexts of a process share: connections, keys, limits.

Each function builds one object; the class `ProcessContainer` below connects the objects.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

import httpx2
from dependency_injector import containers, providers

from markethall.contexts import topology
from markethall.secret_keys import ApplicationSecrets
from markethall.settings import Settings
from markethall.settings.field_types import parse_rate_limit
from markethall.shared.composition.providers import deferred, singleton
from markethall.shared.composition.tracing import TracedRedisClient
from markethall.shared.http.rate_limits import (
    CHANGE_PASSWORD,
    GUESTS,
    IMAGES,
    LOGIN,
    ORDER_LOOKUPS,
    REGISTER,
    REQUESTS,
    SEARCHES,
    RateLimit,
    RateLimiter,
)
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.messaging.event_signature import EventSigner, EventVerifier
from markethall.shared.observability.opentelemetry import tracing
from markethall.shared.persistence.postgres import Databases, PoolSize
from markethall.shared.persistence.redis_client import RedisClient
from markethall.shared.rpc.client import HttpClients, RetryPolicy
from markethall.shared.rpc.client_interceptor import AllowList, InFlightCalls
from markethall.shared.security.access_tokens import AccessTokenSigner, AccessTokenVerifier
from markethall.shared.security.current_access import (
    AccessSource,
    CurrentAccessVerifier,
)
from markethall.shared.security.jwks import JwksProvider, LocalJwks, RemoteJwks, UserTokenVerifier
from markethall.shared.security.service_tokens import ServiceSigner, ServiceVerifier

AUDIENCE: Final = "markethall"
USERS_JWKS_PATH: Final = "/.well-known/jwks.json"
SERVICES_JWKS_PATH: Final = "/internal/keys.json"
_BROKER_TIMEOUT_SECONDS: Final = 1.0


def _databases(settings: Settings) -> Databases:
    return Databases(
        PoolSize(
            min_size=settings.database_pool_min,
            max_size=settings.database_pool_max,
            timeout=settings.database_timeout,
        ),
        settings.direct_urls,
    )


def _redis(settings: Settings) -> RedisClient:
    client_class = TracedRedisClient if tracing.is_on else RedisClient
    return client_class(_redis_url(settings))


def _broker(settings: Settings) -> RedisClient:
    """Build the client of the event streams, for the same server as `_redis`.

    Streams have a separate client, because their blocking reads would delay reads of the cache.
    """
    client_class = TracedRedisClient if tracing.is_on else RedisClient
    return client_class(_redis_url(settings), timeout=_BROKER_TIMEOUT_SECONDS)


def _redis_url(settings: Settings) -> str | None:
    return settings.redis_url.get_secret_value() or None


def _rate_limiter(
    settings: Settings, redis: RedisClient, application_secrets: ApplicationSecrets
) -> RateLimiter:
    return RateLimiter(
        settings.rate_limits, redis, application_secrets.secret_key, configured_limits(settings)
    )


def configured_limits(settings: Settings) -> Mapping[str, RateLimit]:
    """Return the rate limits of the settings, by the names of RATE_LIMITS."""
    texts = {
        REQUESTS: settings.rate_limit_requests,
        SEARCHES: settings.rate_limit_searches,
        LOGIN: settings.rate_limit_login,
        REGISTER: settings.rate_limit_register,
        GUESTS: settings.rate_limit_guests,
        ORDER_LOOKUPS: settings.rate_limit_order_lookups,
        IMAGES: settings.rate_limit_images,
        CHANGE_PASSWORD: settings.rate_limit_change_password,
    }
    return {
        limit.name: RateLimit(limit.name, *parse_rate_limit(text)) for limit, text in texts.items()
    }


def _access_token_signer(
    application_secrets: ApplicationSecrets, settings: Settings, clock: Clock
) -> AccessTokenSigner:
    return AccessTokenSigner(
        application_secrets.access_token_private_key,
        settings.issuer,
        AUDIENCE,
        timedelta(seconds=settings.token_ttl),
        clock,
    )


def _user_jwks(
    settings: Settings, http_clients: HttpClients, signer: Callable[[], AccessTokenSigner]
) -> JwksProvider:
    issuer = topology().token_issuer
    if issuer in settings.context_urls:
        return RemoteJwks(issuer, USERS_JWKS_PATH, http_clients.get(issuer))
    return LocalJwks(signer().jwks)


def _user_token_verifier(
    jwks: JwksProvider, access_source: AccessSource | None, settings: Settings, clock: Clock
) -> UserTokenVerifier | CurrentAccessVerifier:
    verifier = UserTokenVerifier(
        AccessTokenVerifier(jwks.get_key_set, settings.issuer, AUDIENCE, clock), jwks
    )
    return CurrentAccessVerifier(verifier, access_source, clock) if access_source else verifier


def _retry_policy(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        attempt_timeout_seconds=settings.rpc_attempt_timeout_seconds,
        total_timeout_seconds=settings.request_deadline_seconds,
        max_connections=settings.rpc_max_connections,
    )


def _http_clients(
    settings: Settings, policy: RetryPolicy, transport: httpx2.AsyncBaseTransport | None
) -> HttpClients:
    return HttpClients(settings.context_urls, policy, transport)


def _service_token_verifier(
    settings: Settings,
    application_secrets: ApplicationSecrets,
    http_clients: HttpClients,
    signer: Callable[[], ServiceSigner],
    clock: Clock,
) -> ServiceVerifier:
    callers = {
        caller for context in settings.contexts for caller in settings.remote_callers_of(context)
    }
    jwks = {
        # the keys of a caller without a URL cannot be fetched, so such a caller must use the same
        # private key as this process
        caller: RemoteJwks(caller, SERVICES_JWKS_PATH, http_clients.get(caller))
        if caller in settings.context_urls
        else LocalJwks(signer().jwks)
        for caller in sorted(callers)
        # if this process has neither the URL of a caller nor a private key, it cannot verify the
        # tokens of the caller, and rejects them
        if caller in settings.context_urls or application_secrets.service_token_private_key
    }
    return ServiceVerifier(jwks, settings.contexts, clock)


class EventKeys:
    """Signs and verifies the events that this process exchanges with others.

    Events signed with the key of this process are accepted too: when a publisher moves to another
    process, the stream still contains older events, which this process has signed.
    """

    def __init__(
        self,
        settings: Settings,
        application_secrets: ApplicationSecrets,
        http_clients: HttpClients,
        signer: Callable[[], ServiceSigner],
    ) -> None:
        self._context_urls = settings.context_urls
        self._has_own_key = bool(application_secrets.service_token_private_key)
        self._http_clients = http_clients
        self._signer = signer

    def signer_of(self, publisher: str) -> EventSigner:
        return EventSigner(self._signer(), publisher)

    def verifier_of(self, publisher: str) -> EventVerifier:
        sources: list[JwksProvider] = []
        if publisher in self._context_urls:
            http = self._http_clients.get(publisher)
            # 0 seconds, because EventVerifier itself limits how often keys are fetched
            jwks = RemoteJwks(publisher, SERVICES_JWKS_PATH, http, unknown_key_refetch_seconds=0)
            sources.append(jwks)
        if self._has_own_key or not sources:
            # a publisher without a URL is served by this process
            sources.append(LocalJwks(self._signer().jwks))
        return EventVerifier(publisher, sources)


class ProcessContainer(containers.DeclarativeContainer):
    """Builds each object when it is first used. Building opens no connection."""

    settings: providers.Dependency[Settings] = providers.Dependency(instance_of=Settings)
    secrets: providers.Dependency[ApplicationSecrets] = providers.Dependency(
        instance_of=ApplicationSecrets
    )
    clock: providers.Dependency[Clock] = providers.Dependency()
    http_transport: providers.Dependency[httpx2.AsyncBaseTransport | None] = providers.Dependency()
    access_source: providers.Dependency[AccessSource | None] = providers.Dependency()

    databases = singleton(_databases, settings)
    redis = singleton(_redis, settings)
    broker = singleton(_broker, settings)
    rate_limiter = singleton(_rate_limiter, settings, redis, secrets)
    cursors = singleton(lambda secrets: Cursors(secrets.secret_key), secrets)

    retry_policy = singleton(_retry_policy, settings)
    http_clients = singleton(_http_clients, settings, retry_policy, http_transport)
    in_flight_calls = singleton(InFlightCalls)
    allow_list = singleton(lambda: AllowList(topology().allowed_calls))

    access_token_signer = singleton(_access_token_signer, secrets, settings, clock)
    user_jwks = singleton(_user_jwks, settings, http_clients, deferred(access_token_signer))
    user_token_verifier = singleton(_user_token_verifier, user_jwks, access_source, settings, clock)
    service_signer = singleton(
        lambda secrets, clock: ServiceSigner(secrets.service_token_private_key, clock),
        secrets,
        clock,
    )
    event_keys = singleton(EventKeys, settings, secrets, http_clients, deferred(service_signer))
    service_token_verifier = singleton(
        _service_token_verifier, settings, secrets, http_clients, deferred(service_signer), clock
    )
