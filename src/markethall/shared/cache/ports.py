"""What a cache is."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from prometheus_client import Counter

from markethall.shared.metrics import CACHE

Load = Callable[[], Awaitable[bytes | None]]
Name = tuple[str, str]  # space and key
Forgotten = tuple[str, str | None]  # space and key; None: the whole space


class Cache(Protocol):
    """Where the answers of a `space`, say "inventory.product", are kept for `ttl` seconds."""

    async def fetch(self, space: str, key: str, ttl: float, load: Load) -> bytes | None:
        """What is kept, else what `load` brings. Raises only what `load` raises."""

    async def forget(self, space: str, keys: Sequence[str]) -> None:
        """Drop these keys for every process that shares the cache. Never raises."""

    async def forget_space(self, space: str) -> None:
        """Drop everything in the space at once. Never raises."""

    def peek(self, space: str, key: str) -> bytes | None:
        """What can be had without waiting. None says nothing: ask `fetch`."""

    async def listen(self) -> None:
        """Hear what other processes forget; until cancelled, where there may be others."""

    async def close(self) -> None:
        """Give up what is still being loaded."""


class Ear(Protocol):
    """Who is told of forgets elsewhere."""

    def heard(self, names: Sequence[Forgotten]) -> None:
        """Others have forgotten these."""

    def hears(self, now: bool) -> None:
        """Whether forgets are heard from now on. Whatever came before may have been missed."""


class Bell(Protocol):
    """The way from one process's forgets to all others."""

    def ring(self, names: Sequence[Forgotten]) -> None:
        """Tell the others, soon. Never raises, and never waits."""

    async def listen(self, ear: Ear) -> None:
        """Until cancelled; begins again whenever the connection is lost."""

    async def close(self) -> None:
        """Tell what is not told yet."""


class NoCache:
    """Every fetch loads."""

    async def fetch(self, space: str, key: str, ttl: float, load: Load) -> bytes | None:  # noqa: ARG002 - the contract
        return await load()

    async def forget(self, space: str, keys: Sequence[str]) -> None:
        """Nothing is kept."""

    async def forget_space(self, space: str) -> None:
        """Nothing is kept."""

    def peek(self, space: str, key: str) -> bytes | None:  # noqa: ARG002 - the contract
        return None

    async def listen(self) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is open."""


class Counters(dict[str, Counter]):
    """The counter of each space for one outcome: looking it up by labels costs more than a hit."""

    def __init__(self, outcome: str) -> None:
        super().__init__()
        self._outcome = outcome

    def __missing__(self, space: str) -> Counter:
        self[space] = counter = CACHE.labels(space, self._outcome)
        return counter
