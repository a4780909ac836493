"""A cache for reads. An invalidation in one process also drops the entry in the others."""

import asyncio
import math
import random
import time
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from markethall.shared.cache.invalidation_bus import InvalidationBus
from markethall.shared.cache.keys import CacheKey, Invalidation, Loader, lookup_counter
from markethall.shared.cache.redis_cache import RedisCache
from markethall.shared.kernel.bounded_cache import BoundedCache
from markethall.shared.kernel.circuit_breaker import MonotonicClock
from markethall.shared.kernel.errors import Unavailable

L1_TTL_WITHOUT_BUS: Final = 1.0  # seconds
# A value is renewed after a random share of its TTL between these two. So values that were loaded
# together are renewed at different times.
MIN_FRESH_SHARE: Final = 0.7
MAX_FRESH_SHARE: Final = 0.9
MAX_RENEWALS: Final = 4  # maximum number of concurrent renewals in this process
_MAX_BYTES: Final = 64 * 1024 * 1024
_ENTRY_OVERHEAD_BYTES: Final = 300  # estimated memory of an entry besides its key and its value


class CoherentCache:
    """A cache in the process (level 1), optionally with a cache in Redis (level 2).

    - Concurrent misses of a key share one load in this process. A cancelled caller does not cancel
      the load. The error of a load is raised in all its callers, and nothing is stored.
    - If a key is invalidated during a load, the result is not stored, and later callers start a new
      load. Call `invalidate` after the commit. If it were called earlier, a load that starts before
      the commit would store the old value again.
    - Shortly before a value expires, a load in the background renews it, and callers get the old
      value until that load ends. At most four such renewals run at the same time.
    - If a value has expired and a new load raises Unavailable, callers get the expired value, for
      at most one `ttl` after its expiry. An invalidated value is never returned.
    - The bus sends invalidations to the other processes. While the bus is connected, level 1 keeps
      a value for its `ttl`; otherwise for at most one second from the start of its load. When it
      connects or disconnects, level 1 is cleared, because invalidations may have been missed.
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
        self._l1: BoundedCache[CacheKey, _Entry] = BoundedCache(max_bytes)
        self._l1_max_ttl = L1_TTL_WITHOUT_BUS
        # The current generation of each namespace. Entries with an older generation are invalid, so
        # a whole namespace is invalidated by one increment.
        self._generations: dict[str, int] = {}
        # The running loads that callers may join. An invalidation removes the load from here, but
        # does not stop it: the load stays in `_tasks` until it ends.
        self._loads: dict[CacheKey, asyncio.Task[bytes | None]] = {}
        self._tasks: set[asyncio.Task[bytes | None]] = set()
        self._renewals: set[asyncio.Task[bytes | None]] = set()

    async def get_or_load(self, namespace: str, key: str, ttl: float, load: Loader) -> bytes | None:
        """Return the cached value, or the result of `load`.

        If `load` returns None, the value does not exist; this result is not cached. `ttl` is in
        seconds. Raises only the errors of `load`.
        """
        if not self._enabled:
            return await load()
        value = self.peek(namespace, key)
        if value is not None:
            return value
        name = (namespace, key)
        now = self._clock()
        entry = self._entry(name, now)
        if entry is not None and now < entry.expires_at:
            self._renew(name, ttl, load)
            lookup_counter(namespace, "stale").inc()
            return entry.value
        try:
            return await asyncio.shield(self._loads.get(name) or self._start_load(name, ttl, load))
        except Unavailable:
            # read the entry again, because it may have been invalidated during the load
            entry = self._entry(name, self._clock())
            if entry is None:
                raise
            lookup_counter(namespace, "stale").inc()
            return entry.value

    def peek(self, namespace: str, key: str) -> bytes | None:
        """Return the value from level 1, or None if it is missing or due for renewal."""
        now = self._clock()
        entry = self._entry((namespace, key), now)
        if entry is None or entry.renew_at <= now:
            return None
        lookup_counter(namespace, "l1_hit").inc()
        return entry.value

    def is_current(self, namespace: str, key: str, value: bytes) -> bool:
        """Tell whether `value`, an earlier result of `get_or_load`, is still the cached value.

        If it is, a response that was built from it can be sent again. Returns False if the value is
        due for renewal: the caller then calls `get_or_load`, which starts the renewal. While no
        renewal can start (see `_can_renew`), returns True until the value expires.
        """
        name, now = (namespace, key), self._clock()
        entry = self._entry(name, now)
        if entry is None or entry.value is not value:
            return False
        return now < entry.renew_at or (now < entry.expires_at and not self._can_renew(name))

    def invalidate(self, namespace: str, keys: Sequence[str]) -> None:
        """Drop the keys here at once, and in other processes when they receive the message."""
        self._invalidate([(namespace, key) for key in keys])

    def invalidate_namespace(self, namespace: str) -> None:
        self._invalidate([(namespace, None)])

    async def listen(self) -> None:
        """Exchange invalidations with the other processes until cancelled."""
        if self._bus is not None:
            await self._bus.listen(self)

    async def close(self) -> None:
        """Send pending invalidations and cancel running loads."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._bus is not None:
            await self._bus.flush()

    def on_invalidated(self, invalidations: Collection[Invalidation]) -> None:
        for namespace, key in invalidations:
            if key is not None:
                self._loads.pop((namespace, key), None)
                self._l1.drop((namespace, key))
            else:
                for name in [name for name in self._loads if name[0] == namespace]:
                    del self._loads[name]
                self._generations[namespace] = self._generation(namespace) + 1

    def on_connection_changed(self, connected: bool) -> None:
        self._l1_max_ttl = math.inf if connected else L1_TTL_WITHOUT_BUS
        self._loads.clear()
        self._l1.clear()

    def _invalidate(self, invalidations: Collection[Invalidation]) -> None:
        if self._bus is not None:
            self._bus.publish(invalidations)
        self.on_invalidated(invalidations)

    def _entry(self, name: CacheKey, now: float) -> "_Entry | None":
        """Return the entry of level 1, or None if it is invalidated or past `stale_until`."""
        entry = self._l1.get(name)
        if entry is None:
            return None
        if entry.stale_until <= now or entry.generation != self._generation(name[0]):
            self._l1.drop(name)
            return None
        return entry

    def _renew(self, name: CacheKey, ttl: float, load: Loader) -> None:
        """Start to load the value in the background, if `_can_renew` allows it."""
        if self._can_renew(name):
            task = self._start_load(name, ttl, load)
            self._renewals.add(task)
            task.add_done_callback(self._renewals.discard)

    def _can_renew(self, name: CacheKey) -> bool:
        return name not in self._loads and len(self._renewals) < MAX_RENEWALS

    def _start_load(self, name: CacheKey, ttl: float, load: Loader) -> "asyncio.Task[bytes | None]":
        task = self._loads[name] = asyncio.create_task(self._load(name, ttl, load))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._finish_load(name, task))
        return task

    async def _load(self, name: CacheKey, ttl: float, load: Loader) -> bytes | None:
        started = self._clock()
        if self._redis is not None:
            value = await self._redis.get_or_load(*name, ttl, load)
        else:
            lookup_counter(name[0], "miss").inc()
            value = await load()
        is_current = self._loads.get(name) is asyncio.current_task()
        if is_current and value is None:
            self._l1.drop(name)
        elif is_current and value is not None:
            known = self._l1.get(name)
            if known is not None and known.value == value:
                # keep the old object: `is_current` compares identity, so responses that were built
                # from it stay valid
                value = known.value
            entry = self._new_entry(value, ttl, started, self._generation(name[0]))
            self._l1.put(name, entry, _ENTRY_OVERHEAD_BYTES + len(name[1]) + len(value))
        return value

    def _new_entry(self, value: bytes, ttl: float, started: float, generation: int) -> "_Entry":
        now, limit = self._clock(), started + self._l1_max_ttl
        expires_at = min(now + ttl, limit)
        share = random.uniform(MIN_FRESH_SHARE, MAX_FRESH_SHARE)
        renew_at = now + share * (expires_at - now)
        return _Entry(value, renew_at, expires_at, min(expires_at + ttl, limit), generation)

    def _generation(self, namespace: str) -> int:
        return self._generations.get(namespace, 0)

    def _finish_load(self, name: CacheKey, task: "asyncio.Task[bytes | None]") -> None:
        self._tasks.discard(task)
        if self._loads.get(name) is task:
            del self._loads[name]
        if not task.cancelled():
            # read the exception: if every caller was cancelled, asyncio would log it as unretrieved
            task.exception()


class _Entry(NamedTuple):
    """A cached value. The times are seconds of the monotonic clock."""

    value: bytes
    renew_at: float
    expires_at: float
    # from `expires_at` until this time, the value is returned only if a new load raises Unavailable
    stale_until: float
    generation: int
