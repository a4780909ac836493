"""The base of every context's container: the wiring from settings to implementations."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.settings import ContextSettings
from markethall.shared.idempotency.service import IdempotencyService
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
    """The tools that the process provides to a context."""

    # none with memory storage
    postgres: Postgres | None
    redis: RedisClient
    clock: Clock
    cursors: Cursors
    secret_key: bytes
    cache_mode: Literal["on", "off"]
    # a function: only the context that issues access tokens has the private key
    access_token_signer: Callable[[], AccessTokenSigner]


class ContextContainer(ABC, Generic[SettingsT]):
    """The implementations of one context, each built when it is first used.

    A subclass takes the contexts that it calls as keyword arguments of its constructor, each under
    the name of that context: `def __init__(self, settings, tools, *, users: Users)`.
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
        """Run again and again by the leader of the context."""
        return ()

    @property
    def long_running_tasks(self) -> Sequence[LongRunningTask]:
        """Run by the leader of the context, for as long as it leads."""
        return ()

    @property
    def background_tasks(self) -> Sequence[BackgroundTask]:
        """Run by every process, from its start to its end."""
        return ()

    @property
    def counters(self) -> Mapping[str, Counter]:
        """The numbers of this context in `/stats`, by the names in its manifest."""
        return {}

    async def start(self) -> None:
        """Do what has to be done before the first request."""

    async def close(self) -> None:
        """Release what this container holds."""
