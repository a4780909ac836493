"""Types that the parts of the cache share."""

from collections.abc import Awaitable, Callable, Collection
from functools import lru_cache
from typing import Protocol

from markethall.shared.observability.metrics import CACHE_LOOKUPS

Loader = Callable[[], Awaitable[bytes | None]]
CacheKey = tuple[str, str]  # namespace, key
Invalidation = tuple[str, str | None]  # namespace, key; None is the whole namespace

# labels() takes a lock, which costs more than a hit
lookup_counter = lru_cache(maxsize=256)(CACHE_LOOKUPS.labels)


class InvalidationListener(Protocol):
    def on_invalidated(self, invalidations: Collection[Invalidation]) -> None:
        """Drop what another process has invalidated."""

    def on_connection_changed(self, connected: bool) -> None:
        """Note whether invalidations arrive from now on; earlier ones may have been missed."""
