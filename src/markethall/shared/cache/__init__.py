"""Cache-aside for reads: in the process, optionally Redis behind it, with an invalidation bus."""

from typing import Literal

from markethall.shared.cache.coherent_cache import CoherentCache
from markethall.shared.cache.invalidation_bus import InvalidationBus
from markethall.shared.cache.redis_cache import RedisCache
from markethall.shared.persistence.redis_client import RedisClient

__all__ = ["CoherentCache", "open_cache"]


def open_cache(mode: Literal["on", "off"], redis: RedisClient) -> CoherentCache:
    """Return the cache for the setting; it uses Redis and the bus if Redis is configured."""
    if mode == "off":
        return CoherentCache(enabled=False)
    if redis.is_configured:
        bus = InvalidationBus(redis)
        return CoherentCache(bus, RedisCache(redis, bus.is_pending))
    return CoherentCache()
