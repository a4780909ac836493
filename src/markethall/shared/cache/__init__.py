"""Cache-aside for reads: level 1 in the process, optionally level 2 and invalidations in Redis."""

from typing import Literal

from markethall.shared.cache.coherent_cache import CoherentCache
from markethall.shared.cache.invalidation_bus import InvalidationBus
from markethall.shared.cache.redis_cache import RedisCache
from markethall.shared.persistence.redis_client import RedisClient

__all__ = ["CoherentCache", "open_cache"]


def open_cache(mode: Literal["on", "off"], redis: RedisClient) -> CoherentCache:
    """Return the cache; it uses Redis and the invalidation bus if Redis is configured."""
    if mode == "off":
        return CoherentCache(enabled=False)
    if redis.is_configured:
        bus = InvalidationBus(redis)
        return CoherentCache(bus, RedisCache(redis, bus.is_pending))
    return CoherentCache()
