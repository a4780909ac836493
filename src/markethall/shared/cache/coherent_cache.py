"""Cache-aside that stays coherent across processes."""

import asyncio
import math
import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from markethall.shared.cache.invalidation_bus import InvalidationBus
from markethall.shared.cache.ports import CacheKey, Invalidation, Loader, lookup_counter
from markethall.shared.cache.process_cache import ProcessCache
from markethall.shared.cache.redis_cache import RedisCache
from markethall.shared.cache.single_flight import SingleFlight
from markethall.shared.kernel.circuit_breaker import MonotonicClock

L1_TTL_WITHOUT_BUS: Final = 1.0  # seconds
_MAX_BYTES: Final = 64 * 1024 * 1024


class CoherentCache:
    """Values in the process (level 1), optionally in Redis (level 2), in front of a loader.

    - Concurrent misses of a key load once in this process. A cancelled caller does not cancel the
      load. A load that fails raises in every caller that waits for it, and stores nothing.
    - An invalidation wins over a load that began before it: the result is not stored, and later
      callers do not join the load. Invalidate after the commit, not before.
    - The bus carries invalidations to the other processes. While it is connected a value lives for
      its `ttl`, otherwise for at most one second from the start of its load. When the connection
      is made or lost everything is dropped, because invalidations may have been missed.
    - In the last fifth of its life a value is still returned while one load refreshes it.
    """

    def __init__(
        self,
        bus: InvalidationBus | None = None,
        redis: RedisCache | None = None,
        *,
        enabled: bool = True,
        clock: MonotonicClock = time.monotonic,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self._bus = bus
        self._redis = redis
        self._enabled = enabled
        self._clock = clock
        self._l1 = ProcessCache(max_bytes)
        self._l1_max_ttl = L1_TTL_WITHOUT_BUS
        self._loads = SingleFlight()

    async def get_or_load(self, namespace: str, key: str, ttl: float, load: Loader) -> bytes | None:
        """Return the cached value, else the result of `load`; None means absent, and is not cached.

        `ttl` is in seconds. Raises only what `load` raises.
        """
        if not self._enabled:
            return await load()
        value = self.peek(namespace, key)
        if value is not None:
            return value
        name = (namespace, key)
        task = self._loads.start_or_join(name, partial(self._load, name, ttl, load))
        entry = self._l1.get(name, self._clock())
        return entry.value if entry is not None else await asyncio.shield(task)

    def peek(self, namespace: str, key: str) -> bytes | None:
        """Return the value if it is in this process and needs no refresh.

        The same object as before means that the key has not been invalidated in between.
        """
        now = self._clock()
        entry = self._l1.get((namespace, key), now)
        if entry is None or entry.refresh_at <= now:
            return None
        lookup_counter(namespace, "l1_hit").inc()
        return entry.value

    def invalidate(self, namespace: str, keys: Sequence[str]) -> None:
        """Drop these keys here at once, and in the other processes soon."""
        self._invalidate([(namespace, key) for key in keys])

    def invalidate_namespace(self, namespace: str) -> None:
        self._invalidate([(namespace, None)])

    def clear(self) -> None:
        """Drop everything in this process."""
        self._loads.clear()
        self._l1.clear()

    async def listen(self) -> None:
        """Exchange invalidations with the other processes until cancelled."""
        if self._bus is not None:
            await self._bus.listen(self)

    async def close(self) -> None:
        """Send pending invalidations and cancel running loads."""
        await self._loads.close()
        if self._bus is not None:
            await self._bus.flush()

    def on_invalidated(self, invalidations: Collection[Invalidation]) -> None:
        for invalidation in invalidations:
            self._loads.invalidate(invalidation)
            self._l1.invalidate(invalidation)

    def on_connection_changed(self, connected: bool) -> None:
        self._l1_max_ttl = math.inf if connected else L1_TTL_WITHOUT_BUS
        self.clear()

    async def _load(self, name: CacheKey, ttl: float, load: Loader) -> bytes | None:
        started = self._clock()
        if self._redis is not None:
            value = await self._redis.get_or_load(*name, ttl, load)
        else:
            lookup_counter(name[0], "miss").inc()
            value = await load()
        if value is not None and self._loads.is_current(name):
            now = self._clock()
            self._l1.put(name, value, now, min(ttl, started + self._l1_max_ttl - now))
        return value

    def _invalidate(self, invalidations: Collection[Invalidation]) -> None:
        if self._bus is not None:
            self._bus.publish(invalidations)
        self.on_invalidated(invalidations)
