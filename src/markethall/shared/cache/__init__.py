"""A cache for reads: in the process or in Redis, and never in the way.

Values are bytes. What every cache here promises:
- N concurrent misses of one key load once in this process (single flight). A caller that gives up
  does not take the others along; a load that fails, fails those who waited for it, and is not kept.
- A `forget` wins over a load that began before it: what that load brings is not kept, and a fetch
  that begins after the forget does not wait for it. Forget after the commit, not before.
- `None` from the load means absent, and is not kept.
"""

import time

from markethall.shared.cache.bells import PostgresBell, RedisBell
from markethall.shared.cache.near import NEAR, NearCache
from markethall.shared.cache.ports import Cache, Load, NoCache
from markethall.shared.cache.process import ProcessCache
from markethall.shared.cache.shared import RedisCache
from markethall.shared.cache.told import ToldCache
from markethall.shared.db import Postgres
from markethall.shared.redis import RedisClient

__all__ = [
    "Cache",
    "Load",
    "NearCache",
    "NoCache",
    "PostgresBell",
    "ProcessCache",
    "RedisBell",
    "RedisCache",
    "ToldCache",
    "open_cache",
]


def open_cache(mode: str, redis: RedisClient, postgres: Postgres | None = None) -> Cache:
    """The cache for the setting "on" or "off": in this process, before Redis where there is one.

    By Redis, else by the database, the processes hear of each other's forgets.
    """
    if mode == "off":
        return NoCache()
    if redis.configured:
        near = NearCache.before(RedisCache(redis), time.monotonic)
        return ToldCache(near, near.near, RedisBell(redis))
    alone = ProcessCache(longest=NEAR)
    return ToldCache(alone, alone, PostgresBell(postgres)) if postgres else alone
