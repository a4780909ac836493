"""The base class of the containers, which build the objects of a context from its settings."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from dependency_injector import containers, providers

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.providers import singleton
from markethall.shared.composition.settings import ContextSettings
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.integrity import IntegrityCheck
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.messaging.context_worker import LongRunningTask, PeriodicJob
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.persistence.redis_client import RedisClient
from markethall.shared.security.access_tokens import AccessTokenSigner

BackgroundTask = Callable[[], Coroutine[Any, Any, None]]
Counter = Callable[[], Awaitable[int]]
LifecycleHook = Callable[[], Awaitable[None]]
GetScopes = Callable[[Actor], Awaitable[frozenset[str]]]


@dataclass(frozen=True, kw_only=True)
class ContextTools:
    """The shared objects and settings that the process gives to each context."""

    # None with memory storage
    postgres: Postgres | None
    redis: RedisClient
    clock: Clock
    cursors: Cursors
    secret_key: bytes
    cache_mode: Literal["on", "off"]
    # a function, because it needs the private key, which only the issuer of access tokens has
    access_token_signer: Callable[[], AccessTokenSigner]
    # returns the user or guest of an access token in the body of a request; raises Unauthenticated,
    # and Unavailable if the keys cannot be fetched
    verify_access_token: Callable[[str], Awaitable[Actor]]
    # the directory for files that a context stores
    data_directory: Path


def _postgres(tools: ContextTools) -> Postgres:
    if tools.postgres is None:
        raise LookupError("memory storage has no Postgres")
    return tools.postgres


async def _scopes_of_token(actor: Actor) -> frozenset[str]:
    return actor.scopes


class ContextContainer(containers.DeclarativeContainer):
    """The providers of one context. `container.clock()` returns the object of the provider `clock`.

    A subclass declares `settings`. If its context calls another context, it also declares a
    `Dependency` with the name of the called context, such as
    `users: providers.Dependency[Users] = providers.Dependency()`.
    """

    tools: providers.Dependency[ContextTools] = providers.Dependency(instance_of=ContextTools)
    clock: providers.Singleton[Clock] = singleton(lambda tools: tools.clock, tools)
    cursors: providers.Singleton[Cursors] = singleton(lambda tools: tools.cursors, tools)
    postgres: providers.Singleton[Postgres] = singleton(_postgres, tools)

    # declared by every subclass
    persistence: providers.Provider[ContextPersistence[Any]]
    idempotency: providers.Provider[IdempotencyService]

    # an object with a method for each subscription of the manifest
    event_handlers: providers.Provider[Any] = providers.Object(None)
    # the jobs that the leader runs at an interval; the leader is the one process that does the
    # background work of the context
    periodic_jobs: providers.Provider[Sequence[PeriodicJob]] = providers.Object(())
    # the tasks that run in the leader, as long as this process is the leader
    long_running_tasks: providers.Provider[Sequence[LongRunningTask]] = providers.Object(())
    # the tasks that run in every process that serves the context
    background_tasks: providers.Provider[Sequence[BackgroundTask]] = providers.Object(())
    # maps each counter name of the manifest to the function that counts for the endpoint `/stats`
    counters: providers.Provider[Mapping[str, Counter]] = providers.Object({})
    # the checks of `markethall doctor` and `/integrity`, besides those that every context has
    integrity_checks: providers.Provider[Sequence[IntegrityCheck]] = providers.Object(())
    # A function that returns the current scopes of a user, which may differ from the scopes in the
    # token. It raises Unauthenticated if the user is disabled or the session of the token has
    # ended. Only the context that issues access tokens overrides this provider.
    get_current_scopes: providers.Provider[GetScopes] = providers.Object(_scopes_of_token)
    # called before the first request, to prepare the context
    on_start: providers.Provider[Sequence[LifecycleHook]] = providers.Object(())
    # called in the event loop when the process begins to stop, while it still serves requests
    on_drain: providers.Provider[Sequence[Callable[[], None]]] = providers.Object(())
    # called at the end of the process, to release resources such as threads and connections
    on_close: providers.Provider[Sequence[LifecycleHook]] = providers.Object(())


def build_idempotency(
    persistence: ContextPersistence[Any], settings: ContextSettings, clock: Clock
) -> IdempotencyService:
    lease = timedelta(seconds=settings.idempotency_lease)
    return IdempotencyService(persistence.idempotency_store, clock, lease)
