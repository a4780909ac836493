"""Types of keys and loaders, the ping interval of the bus, and the metric of lookups."""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Final

from markethall.shared.observability.metrics import CACHE_LOOKUPS

Loader = Callable[[], Awaitable[bytes | None]]
CacheKey = tuple[str, str]  # namespace, key
Invalidation = tuple[str, str | None]  # namespace, key; None means the whole namespace

# Seconds. A connection that has received no message for this time is pinged, and the other side
# must answer the ping within the same time.
HEARTBEAT_INTERVAL: Final = 0.5

# cached, because `labels` takes a lock, which is slower than a cache hit
lookup_counter = lru_cache(maxsize=256)(CACHE_LOOKUPS.labels)
