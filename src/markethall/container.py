"""The root container: the tools of the process, and the containers of the served contexts."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from graphlib import TopologicalSorter
from typing import Any, Final, TypeVar, cast

import httpx2
from dependency_injector import containers, providers

from markethall.contexts import topology
from markethall.secret_keys import ApplicationSecrets
from markethall.settings import Settings
from markethall.shared.composition.container import ContextContainer, ContextTools
from markethall.shared.composition.parts import ContextParts, InternalApi
from markethall.shared.composition.providers import deferred, singleton
from markethall.shared.composition.settings import SettingsError
from markethall.shared.composition.topology import InvalidManifest
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.kernel.clock import Clock, utc_now
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.persistence.postgres import Databases, PoolSize
from markethall.shared.persistence.redis_client import RedisClient
from markethall.shared.rpc.client import HttpClients, RetryPolicy, RpcClient
from markethall.shared.rpc.client_interceptor import AllowList, CallGuard, InFlightCalls
from markethall.shared.security.access_tokens import AccessTokenSigner, AccessTokenVerifier
from markethall.shared.security.current_access import (
    AccessSource,
    CurrentAccessVerifier,
    LocalAccessSource,
    RemoteAccessSource,
)
from markethall.shared.security.jwks import JwksProvider, LocalJwks, RemoteJwks, UserTokenVerifier
from markethall.shared.security.service_tokens import ServiceSigner, ServiceVerifier

K = TypeVar("K", bound=ContextContainer)

AUDIENCE: Final = "markethall"
USERS_JWKS_PATH: Final = "/.well-known/jwks.json"
USER_ACCESS_PATH: Final = "/users/me/access"
SERVICES_JWKS_PATH: Final = "/internal/keys.json"
# streams have a client of their own, because their blocking reads would delay reads of the cache
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
    return RedisClient(_redis_url(settings))


def _broker(settings: Settings) -> RedisClient:
    return RedisClient(_redis_url(settings), timeout=_BROKER_TIMEOUT_SECONDS)


def _redis_url(settings: Settings) -> str | None:
    return settings.redis_url.get_secret_value() or None


def _rate_limiter(
    settings: Settings, redis: RedisClient, application_secrets: ApplicationSecrets
) -> RateLimiter:
    return RateLimiter(settings.rate_limits, redis, application_secrets.secret_key)


def _cursors(application_secrets: ApplicationSecrets) -> Cursors:
    return Cursors(application_secrets.secret_key)


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


def _service_signer(application_secrets: ApplicationSecrets, clock: Clock) -> ServiceSigner:
    return ServiceSigner(application_secrets.service_token_private_key, clock)


def _service_token_verifier(
    settings: Settings,
    http_clients: HttpClients,
    signer: Callable[[], ServiceSigner],
    clock: Clock,
) -> ServiceVerifier:
    callers = {
        caller for context in settings.contexts for caller in settings.remote_callers_of(context)
    }
    jwks = {
        # a caller without a URL must use the same private key as this process
        caller: RemoteJwks(caller, SERVICES_JWKS_PATH, http_clients.get(caller))
        if caller in settings.context_urls
        else LocalJwks(signer().jwks)
        for caller in sorted(callers)
    }
    return ServiceVerifier(jwks, settings.contexts, clock)


def _allow_list() -> AllowList:
    return AllowList(topology().allowed_calls)


class ProcessContainer(containers.DeclarativeContainer):
    """Builds each tool of the process when it is first used. Building opens no connection."""

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
    cursors = singleton(_cursors, secrets)

    retry_policy = singleton(_retry_policy, settings)
    http_clients = singleton(_http_clients, settings, retry_policy, http_transport)
    in_flight_calls = singleton(InFlightCalls)
    allow_list = singleton(_allow_list)

    access_token_signer = singleton(_access_token_signer, secrets, settings, clock)
    user_jwks = singleton(_user_jwks, settings, http_clients, deferred(access_token_signer))
    user_token_verifier = singleton(_user_token_verifier, user_jwks, access_source, settings, clock)
    service_signer = singleton(_service_signer, secrets, clock)
    service_token_verifier = singleton(
        _service_token_verifier, settings, http_clients, deferred(service_signer), clock
    )


class ApplicationContainer:
    """Connects the containers of the served contexts, found by their manifests."""

    def __init__(
        self,
        settings: Settings,
        application_secrets: ApplicationSecrets,
        *,
        clock: Clock = utc_now,
        http_transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.tools = ProcessContainer(
            settings=settings,
            secrets=application_secrets,
            clock=clock,
            http_transport=http_transport,
            access_source=providers.Singleton(self._access_source),
        )
        # maps the name of each served context to its container
        self.contexts: dict[str, ContextContainer] = {}
        self._build_contexts()

    def context(self, name: str, kind: type[K]) -> K:
        """Return the container of a context. Raises SettingsError if it is not served here."""
        if name not in self.contexts or _parts(name).container is not kind:
            raise SettingsError([f"MARKETHALL_CONTEXTS: this needs {name}, which is not served"])
        # its class in memory is dependency-injector's
        return cast("K", self.contexts[name])

    def internal_service(self, target: str, caller: str) -> Any:
        """Return the target's contract: its implementation if served here, else an RPC client."""
        api = _internal_api(target)
        if target in self.contexts:
            return api.local(self.contexts[target])
        return api.remote(
            RpcClient(
                caller,
                target,
                self.tools.http_clients().get(target),
                self.tools.service_signer(),
                self.clock,
                self.tools.retry_policy(),
            )
        )

    def _build_contexts(self) -> None:
        """Build the containers of the served contexts, each after the contexts that it calls."""
        for context in TopologicalSorter(topology().dependencies).static_order():
            if context in self.settings.contexts:
                self.contexts[context] = self._build_context(context)

    def _build_context(self, context: str) -> ContextContainer:
        """Raises dependency_injector.errors.Error for a container that lacks one of its parts."""
        clients = {
            target: providers.Singleton(self._guarded_client, target, context)
            for target in topology().dependencies[context]
        }
        container: ContextContainer = _parts(context).container(
            settings=self.settings.by_context[context], tools=self._tools(context), **clients
        )
        container.check_dependencies()
        return container

    def _guarded_client(self, target: str, caller: str) -> Any:
        guard = CallGuard(
            caller,
            target,
            self.tools.allow_list(),
            self.tools.in_flight_calls(),
            self.clock,
            self.settings.request_deadline_seconds,
        )
        return _internal_api(target).guarded(self.internal_service(target, caller), guard)

    def _access_source(self) -> AccessSource | None:
        """Return where the current scopes of staff are asked for, or None.

        None: this process neither serves users nor has its URL. Production settings reject that.
        """
        issuer = topology().token_issuer
        if issuer in self.settings.context_urls:
            http_client = self.tools.http_clients().get(issuer)
            return RemoteAccessSource(issuer, USER_ACCESS_PATH, http_client)
        container = self.contexts.get(issuer)
        return LocalAccessSource(container.get_current_scopes()) if container else None

    def _tools(self, context: str) -> ContextTools:
        database_url = self.settings.database_url_of(context)
        databases = self.tools.databases()
        return ContextTools(
            postgres=databases.get(database_url) if self.settings.storage == "sql" else None,
            redis=self.tools.redis(),
            clock=self.clock,
            cursors=self.tools.cursors(),
            secret_key=self.tools.secrets().secret_key,
            cache_mode=self.settings.cache,
            access_token_signer=self.tools.access_token_signer,
        )

    # Lifecycle

    async def start(self) -> None:
        for container in self.contexts.values():
            for start in container.on_start():
                await start()

    async def close(self) -> None:
        """Close everything in reverse order. After an error the rest is closed too."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.tools.databases().close)
            stack.push_async_callback(self.tools.redis().close)
            stack.push_async_callback(self.tools.broker().close)
            for container in self.contexts.values():
                for close in container.on_close():
                    stack.push_async_callback(close)
            stack.push_async_callback(self.tools.http_clients().close)
            stack.push_async_callback(
                self.tools.in_flight_calls().drain, self.settings.request_deadline_seconds
            )


def _parts(context: str) -> ContextParts[Any]:
    return topology().contexts[context].load_parts()


def _internal_api(target: str) -> InternalApi[Any, Any]:
    api = _parts(target).internal_api
    if api is None:
        raise InvalidManifest(f"{target} is called, but has no internal API")
    return api
