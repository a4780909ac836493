"""Cache-aside for reads: a cache in each process, and optionally a shared second one in Redis."""

from typing import Literal

from markethall.shared.cache.coherent_cache import CoherentCache
from markethall.shared.cache.invalidation_bus import (
    InvalidationBus,
    InvalidationListeners,
    PostgresChannel,
)
from markethall.shared.cache.redis_cache import RedisCache, RedisChannel, TombstoneChannel
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.persistence.redis_client import RedisClient

__all__ = ["CoherentCache", "InvalidationBus", "InvalidationListeners", "open_bus", "open_cache"]


def open_cache(
    mode: Literal["on", "off"], redis: RedisClient, postgres: Postgres | None = None
) -> CoherentCache:
    """Return the cache. Invalidations are sent over Redis if configured, otherwise over Postgres.

    With mode "off", nothing is cached.
    """
    if mode == "off":
        return CoherentCache(enabled=False)
    if redis.is_configured:
        bus = InvalidationBus(TombstoneChannel(redis))
        return CoherentCache(bus, RedisCache(redis, bus.is_pending))
    return CoherentCache(open_bus(redis, postgres))


def open_bus(redis: RedisClient, postgres: Postgres | None) -> InvalidationBus | None:
    """Return an invalidation bus of keys that are not cached in Redis.

    It uses Redis if configured, otherwise Postgres if there is one.
    """
    if redis.is_configured:
        return InvalidationBus(RedisChannel(redis))
    return InvalidationBus(PostgresChannel(postgres)) if postgres else None
