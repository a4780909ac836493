"""The root container: the container of the process and the containers of the contexts."""

from contextlib import AsyncExitStack
from graphlib import TopologicalSorter
from typing import Any, Final, TypeVar, cast

import httpx2
from dependency_injector import providers

from markethall.contexts import topology
from markethall.process_container import ProcessContainer
from markethall.secret_keys import ApplicationSecrets
from markethall.settings import Settings
from markethall.shared.composition.container import ContextContainer, ContextTools
from markethall.shared.composition.parts import ContextParts, InternalApi
from markethall.shared.composition.settings import SettingsError
from markethall.shared.composition.topology import InvalidManifest
from markethall.shared.composition.tracing import TracedCallGuard
from markethall.shared.kernel.clock import Clock, utc_now
from markethall.shared.observability.opentelemetry import tracing
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.shared.security.current_access import (
    AccessSource,
    LocalAccessSource,
    RemoteAccessSource,
)

K = TypeVar("K", bound=ContextContainer)

USER_ACCESS_PATH: Final = "/users/me/access"


class ApplicationContainer:
    """Connects the containers of the served contexts, which it finds by their manifests."""

    def __init__(
        self,
        settings: Settings,
        application_secrets: ApplicationSecrets,
        *,
        clock: Clock | None = None,
        http_transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`clock` is for tests: it replaces the clocks of the machine and of the databases."""
        self.settings = settings
        # for times that are not stored in a database, such as deadlines and the expiry of tokens;
        # stored times use the clock of the database, see `_context_tools`
        self.clock = clock or utc_now
        self._fixed_clock = clock
        # There is a dependency cycle: the contexts are built from `process`, but the token verifier
        # in `process` asks the context `users` for the current scopes, through an access source. So
        # `process` gets a provider of the access source. The provider looks for `users` in
        # `self.contexts` at the first request, when all contexts are built.
        self.process = ProcessContainer(
            settings=settings,
            secrets=application_secrets,
            clock=self.clock,
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
        # a cast, because dependency-injector builds a DynamicContainer with the providers of `kind`
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
                self.process.http_clients().get(target),
                self.process.service_signer(),
                self.clock,
                self.process.retry_policy(),
            )
        )

    def _build_contexts(self) -> None:
        """Build the containers of the served contexts, each after the contexts that it calls."""
        for context in TopologicalSorter(topology().dependencies).static_order():
            if context in self.settings.contexts:
                self.contexts[context] = self._build_context(context)

    def _build_context(self, context: str) -> ContextContainer:
        """Build a context. Raises dependency_injector.errors.Error if a dependency is undefined."""
        clients = {
            target: providers.Singleton(self._guarded_client, target, context)
            for target in topology().dependencies[context]
        }
        container: ContextContainer = _parts(context).container(
            settings=self.settings.by_context[context],
            tools=self._context_tools(context),
            **clients,
        )
        container.check_dependencies()
        return container

    def _guarded_client(self, target: str, caller: str) -> Any:
        guard_class = TracedCallGuard if tracing.is_on else CallGuard
        guard = guard_class(
            caller,
            target,
            self.process.allow_list(),
            self.process.in_flight_calls(),
            self.clock,
            self.settings.request_deadline_seconds,
        )
        return _internal_api(target).guarded(self.internal_service(target, caller), guard)

    def _access_source(self) -> AccessSource | None:
        """Return the source of the current scopes of staff.

        Returns None if this process neither serves the token issuer nor has the URL of the issuer.
        Production refuses such settings.
        """
        issuer = topology().token_issuer
        if issuer in self.settings.context_urls:
            http_client = self.process.http_clients().get(issuer)
            return RemoteAccessSource(issuer, USER_ACCESS_PATH, http_client)
        container = self.contexts.get(issuer)
        return LocalAccessSource(container.get_current_scopes()) if container else None

    def _context_tools(self, context: str) -> ContextTools:
        database_url = self.settings.database_url_of(context)
        databases = self.process.databases()
        postgres = databases.get(database_url) if self.settings.storage == "sql" else None
        return ContextTools(
            postgres=postgres,
            redis=self.process.redis(),
            clock=self._fixed_clock or (postgres.clock if postgres else self.clock),
            cursors=self.process.cursors(),
            secret_key=self.process.secrets().secret_key,
            cache_mode=self.settings.cache,
            # the provider, not the signer: building the signer needs the private key, which only
            # the token issuer has
            access_token_signer=self.process.access_token_signer,
            # the verifier is built later, because only some contexts use it
            verify_access_token=lambda token: self.process.user_token_verifier().verify(token),
            data_directory=self.settings.data_directory,
        )

    # Lifecycle

    async def start(self) -> None:
        """Open the databases, which also sets their clocks. Then run the hooks of the contexts."""
        await self.process.databases().open()
        for container in self.contexts.values():
            for start in container.on_start():
                await start()

    def end_waits(self) -> None:
        """Answer the requests that wait for a change (`?wait=`) now, because the process stops."""
        for container in self.contexts.values():
            for end in container.on_drain():
                end()

    async def close(self) -> None:
        """Close everything in reverse order. After an error, close the remaining parts too."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.process.databases().close)
            stack.push_async_callback(self.process.redis().close)
            stack.push_async_callback(self.process.broker().close)
            for container in self.contexts.values():
                for close in container.on_close():
                    stack.push_async_callback(close)
            stack.push_async_callback(self.process.http_clients().close)
            stack.push_async_callback(
                self.process.in_flight_calls().drain, self.settings.request_deadline_seconds
            )


def _parts(context: str) -> ContextParts[Any]:
    return topology().contexts[context].load_parts()


def _internal_api(target: str) -> InternalApi[Any, Any]:
    api = _parts(target).internal_api
    if api is None:
        raise InvalidManifest(f"{target} is called, but has no internal API")
    return api
