"""Cache-aside for reads: in the process, optionally Redis behind it, and one invalidation bus."""

from typing import Literal

from markethall.shared.cache.coherent_cache import CoherentCache
from markethall.shared.cache.invalidation_bus import PostgresInvalidationBus, RedisInvalidationBus
from markethall.shared.cache.redis_cache import RedisCache
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.persistence.redis_client import RedisClient

__all__ = ["CoherentCache", "open_cache"]


def open_cache(
    mode: Literal["on", "off"], redis: RedisClient, postgres: Postgres | None = None
) -> CoherentCache:
    """Return the cache for the setting; its bus is Redis if configured, else Postgres if given."""
    if mode == "off":
        return CoherentCache(enabled=False)
    if redis.is_configured:
        bus = RedisInvalidationBus(redis)
        return CoherentCache(bus, RedisCache(redis, bus.is_pending))
    return CoherentCache(PostgresInvalidationBus(postgres) if postgres else None)
