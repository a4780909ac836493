"""The base class of the containers, which build the objects of a context from its settings."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.settings import ContextSettings
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.messaging.context_worker import LongRunningTask, PeriodicJob
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.persistence.redis_client import RedisClient
from markethall.shared.security.access_tokens import AccessTokenSigner

SettingsT = TypeVar("SettingsT", bound=ContextSettings)

BackgroundTask = Callable[[], Coroutine[Any, Any, None]]
Counter = Callable[[], Awaitable[int]]


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


class ContextContainer(ABC, Generic[SettingsT]):
    """Builds the objects of one context when they are first used.

    The constructor of a subclass has a keyword argument for each context that it calls, with the
    name of that context: `def __init__(self, settings, tools, *, users: Users)`.
    """

    def __init__(self, settings: SettingsT, tools: ContextTools) -> None:
        self.settings = settings
        self.tools = tools
        self.clock = tools.clock
        self.cursors = tools.cursors

    @abstractmethod
    def build_memory_persistence(self) -> ContextPersistence[Any]: ...

    @abstractmethod
    def build_sql_persistence(self, postgres: Postgres) -> ContextPersistence[Any]: ...

    @property
    def postgres(self) -> Postgres:
        if self.tools.postgres is None:
            raise LookupError("memory storage has no Postgres")
        return self.tools.postgres

    @cached_property
    def persistence(self) -> ContextPersistence[Any]:
        if self.settings.storage == "memory":
            return self.build_memory_persistence()
        return self.build_sql_persistence(self.postgres)

    @cached_property
    def idempotency(self) -> IdempotencyService:
        lease = timedelta(seconds=self.settings.idempotency_lease)
        return IdempotencyService(self.persistence.idempotency_store, self.clock, lease)

    @property
    def event_handlers(self) -> object:
        """Return an object with a method for each subscription of the manifest."""
        return None

    @property
    def periodic_jobs(self) -> Sequence[PeriodicJob]:
        """Return the jobs that the leader of the context runs at an interval."""
        return ()

    @property
    def long_running_tasks(self) -> Sequence[LongRunningTask]:
        """Return the tasks that run in the leader of the context, as long as it is the leader."""
        return ()

    @property
    def background_tasks(self) -> Sequence[BackgroundTask]:
        """Return the tasks that run in every process that serves the context."""
        return ()

    @property
    def counters(self) -> Mapping[str, Counter]:
        """Return the functions that count for `/stats`, by the names in the manifest."""
        return {}

    async def get_current_scopes(self, actor: Actor) -> frozenset[str]:
        """Return the current scopes of the user, which may differ from those in the token.

        Only the context that issues access tokens implements this. Raises Unauthenticated if the
        user is disabled or the session of the token has ended.
        """
        return actor.scopes

    async def start(self) -> None:
        """Prepare the context before the first request."""

    async def close(self) -> None:
        """Release the resources of this container, such as threads and connections."""
