"""The first level of the cache: values in the memory of this process."""

from collections import OrderedDict
from typing import NamedTuple

from markethall.shared.cache.ports import CacheKey, Invalidation

_ENTRY_OVERHEAD_BYTES = 300  # dictionary slot, tuples and strings around a value
_REFRESH_AFTER = 0.8  # of the lifetime


class Entry(NamedTuple):
    value: bytes
    refresh_at: float
    expires_at: float
    generation: int


class ProcessCache:
    """Values with a time to live, bounded by bytes; evicts the least recently used."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[CacheKey, Entry] = OrderedDict()
        # of each namespace: entries of an older one are dropped when they are read or evicted
        self._generations: dict[str, int] = {}

    def get(self, key: CacheKey, now: float) -> Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= now or entry.generation != self._generations.get(key[0], 0):
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: CacheKey, value: bytes, now: float, ttl: float) -> None:
        self._drop(key)
        generation = self._generations.get(key[0], 0)
        self._entries[key] = Entry(value, now + ttl * _REFRESH_AFTER, now + ttl, generation)
        self._bytes += _size(key, value)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def invalidate(self, invalidation: Invalidation) -> None:
        namespace, key = invalidation
        if key is not None:
            self._drop((namespace, key))
        else:
            self._generations[namespace] = self._generations.get(namespace, 0) + 1

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _drop(self, key: CacheKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(key, entry.value)


def _size(key: CacheKey, value: bytes) -> int:
    return _ENTRY_OVERHEAD_BYTES + len(key[1]) + len(value)
