"""The root container: the tools of the process, and the containers of the served contexts."""

from contextlib import AsyncExitStack
from datetime import timedelta
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any, Final, TypeVar

import httpx2

from markethall.contexts import topology
from markethall.secret_keys import ApplicationSecrets
from markethall.settings import Settings
from markethall.shared.composition.container import ContextContainer, ContextTools
from markethall.shared.composition.parts import InternalApi
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

K = TypeVar("K", bound=ContextContainer[Any])

AUDIENCE: Final = "markethall"
USERS_JWKS_PATH: Final = "/.well-known/jwks.json"
USER_ACCESS_PATH: Final = "/users/me/access"
SERVICES_JWKS_PATH: Final = "/internal/keys.json"
# streams have a client of their own, because their blocking reads would delay reads of the cache
_BROKER_TIMEOUT_SECONDS: Final = 1.0


class ApplicationContainer:
    """Builds each object when it is first used. Building opens no connection."""

    def __init__(
        self,
        settings: Settings,
        application_secrets: ApplicationSecrets,
        *,
        clock: Clock = utc_now,
        http_transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.secrets = application_secrets
        self.clock = clock
        self._http_transport = http_transport
        # maps the name of each served context to its container
        self.contexts: dict[str, ContextContainer[Any]] = {}
        self._build_contexts()

    # Tools

    @cached_property
    def databases(self) -> Databases:
        return Databases(
            PoolSize(
                min_size=self.settings.database_pool_min,
                max_size=self.settings.database_pool_max,
                timeout=self.settings.database_timeout,
            )
        )

    @cached_property
    def redis(self) -> RedisClient:
        return RedisClient(self._redis_url)

    @cached_property
    def broker(self) -> RedisClient:
        return RedisClient(self._redis_url, timeout=_BROKER_TIMEOUT_SECONDS)

    @property
    def _redis_url(self) -> str | None:
        return self.settings.redis_url.get_secret_value() or None

    @cached_property
    def rate_limiter(self) -> RateLimiter:
        return RateLimiter(self.settings.rate_limits, self.redis, self.secrets.secret_key)

    @cached_property
    def cursors(self) -> Cursors:
        return Cursors(self.secrets.secret_key)

    @cached_property
    def access_token_signer(self) -> AccessTokenSigner:
        return AccessTokenSigner(
            self.secrets.access_token_private_key,
            self.settings.issuer,
            AUDIENCE,
            timedelta(seconds=self.settings.token_ttl),
            self.clock,
        )

    @cached_property
    def user_token_verifier(self) -> UserTokenVerifier | CurrentAccessVerifier:
        jwks = self._user_jwks()
        verifier = UserTokenVerifier(
            AccessTokenVerifier(jwks.get_key_set, self.settings.issuer, AUDIENCE, self.clock), jwks
        )
        source = self._access_source()
        return CurrentAccessVerifier(verifier, source, self.clock) if source else verifier

    def _user_jwks(self) -> JwksProvider:
        issuer = topology().token_issuer
        if issuer in self.settings.context_urls:
            return RemoteJwks(issuer, USERS_JWKS_PATH, self.http_clients.get(issuer))
        return LocalJwks(self.access_token_signer.jwks)

    def _access_source(self) -> AccessSource | None:
        """Return the source of current roles, or None if this process cannot reach users.

        Only development settings allow None.
        """
        issuer = topology().token_issuer
        if issuer in self.settings.context_urls:
            return RemoteAccessSource(issuer, USER_ACCESS_PATH, self.http_clients.get(issuer))
        container = self.contexts.get(issuer)
        return LocalAccessSource(container.get_current_scopes) if container else None

    # Calls

    @cached_property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            attempt_timeout_seconds=self.settings.rpc_attempt_timeout_seconds,
            total_timeout_seconds=self.settings.request_deadline_seconds,
            max_connections=self.settings.rpc_max_connections,
        )

    @cached_property
    def http_clients(self) -> HttpClients:
        return HttpClients(self.settings.context_urls, self.retry_policy, self._http_transport)

    @cached_property
    def service_signer(self) -> ServiceSigner:
        return ServiceSigner(self.secrets.service_token_private_key, self.clock)

    @cached_property
    def service_token_verifier(self) -> ServiceVerifier:
        callers = {
            caller
            for context in self.settings.contexts
            for caller in self.settings.remote_callers_of(context)
        }
        jwks = {caller: self._caller_jwks(caller) for caller in sorted(callers)}
        return ServiceVerifier(jwks, self.settings.contexts, self.clock)

    def _caller_jwks(self, caller: str) -> JwksProvider:
        """Return the public keys of a caller.

        A caller without a URL must use the same private key as this process.
        """
        if caller in self.settings.context_urls:
            return RemoteJwks(caller, SERVICES_JWKS_PATH, self.http_clients.get(caller))
        return LocalJwks(self.service_signer.jwks)

    @cached_property
    def in_flight_calls(self) -> InFlightCalls:
        return InFlightCalls()

    @cached_property
    def allow_list(self) -> AllowList:
        return AllowList(topology().allowed_calls)

    # Contexts

    def context(self, name: str, kind: type[K]) -> K:
        """Return the container of a context. Raises SettingsError if it is not served here."""
        container = self.contexts.get(name)
        if not isinstance(container, kind):
            raise SettingsError([f"MARKETHALL_CONTEXTS: this needs {name}, which is not served"])
        return container

    def internal_service(self, target: str, caller: str) -> Any:
        """Return the target's contract: its implementation if served here, else an RPC client."""
        api = _internal_api(target)
        if target in self.contexts:
            return api.local(self.contexts[target])
        http_client = self.http_clients.get(target)
        return api.remote(
            RpcClient(
                caller, target, http_client, self.service_signer, self.clock, self.retry_policy
            )
        )

    def _build_contexts(self) -> None:
        """Build the containers of the served contexts, each after the contexts that it calls."""
        for context in TopologicalSorter(topology().dependencies).static_order():
            if context in self.settings.contexts:
                self.contexts[context] = self._build_context(context)

    def _build_context(self, context: str) -> ContextContainer[Any]:
        manifest = topology().contexts[context]
        clients = {target: self._guarded_client(target, context) for target in manifest.calls}
        container: ContextContainer[Any] = manifest.load_parts().container(
            self.settings.by_context[context], self._tools(context), **clients
        )
        return container

    def _guarded_client(self, target: str, caller: str) -> Any:
        guard = CallGuard(
            caller,
            target,
            self.allow_list,
            self.in_flight_calls,
            self.clock,
            self.settings.request_deadline_seconds,
        )
        return _internal_api(target).guarded(self.internal_service(target, caller), guard)

    def _tools(self, context: str) -> ContextTools:
        database_url = self.settings.database_url_of(context)
        return ContextTools(
            postgres=self.databases.get(database_url) if self.settings.storage == "sql" else None,
            redis=self.redis,
            clock=self.clock,
            cursors=self.cursors,
            secret_key=self.secrets.secret_key,
            cache_mode=self.settings.cache,
            access_token_signer=lambda: self.access_token_signer,
        )

    # Lifecycle

    async def start(self) -> None:
        for container in self.contexts.values():
            await container.start()

    async def close(self) -> None:
        """Close everything in reverse order. After an error the rest is closed too."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.databases.close)
            stack.push_async_callback(self.redis.close)
            stack.push_async_callback(self.broker.close)
            for container in self.contexts.values():
                stack.push_async_callback(container.close)
            stack.push_async_callback(self.http_clients.close)
            stack.push_async_callback(
                self.in_flight_calls.drain, self.settings.request_deadline_seconds
            )


def _internal_api(target: str) -> InternalApi[Any, Any]:
    api = topology().contexts[target].load_parts().internal_api
    if api is None:
        raise InvalidManifest(f"{target} is called, but has no internal API")
    return api
