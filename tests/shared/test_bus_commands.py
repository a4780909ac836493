"""Test which Redis commands the invalidation buses send."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from markethall.local.valkey import EmbeddedValkey
from markethall.shared.cache import open_bus, open_cache
from markethall.shared.cache.keys import Invalidation
from markethall.shared.persistence.redis_client import RedisClient

CHANGED: list[Invalidation] = [("orders", "1"), ("orders", "2"), ("orders", "3")]


@pytest.fixture
def own_redis_url() -> Iterator[str]:
    """The URL of a server for one test, so that it counts no commands of other tests."""
    server = EmbeddedValkey()
    yield server.start()
    server.stop()


@pytest.fixture
async def client(own_redis_url: str) -> AsyncIterator[RedisClient]:
    client = RedisClient(own_redis_url, timeout=30, max_connections=1)
    assert await client.ping()
    yield client
    await client.close()


@pytest.fixture
async def server(own_redis_url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(own_redis_url)
    yield redis
    await redis.aclose()


async def test_message_without_a_cache_is_one_publish_and_writes_no_key(
    client: RedisClient, server: Redis
) -> None:
    bus = open_bus(client, None)
    assert bus is not None
    before = await calls(server)

    bus.publish(CHANGED)
    await bus.flush()

    assert await calls(server) - before == {"publish": 1}
    assert await server.dbsize() == 0


async def test_invalidation_of_a_cache_writes_a_tombstone_for_each_key(
    client: RedisClient, server: Redis
) -> None:
    cache = open_cache("on", client)
    before = await calls(server)

    cache.invalidate("products", ["1", "2", "3"])
    await cache.close()

    sent = await calls(server) - before
    assert (sent["publish"], sent["set"]) == (1, 3)
    assert await server.dbsize() == 3


async def calls(server: Redis) -> Counter[str]:
    """Return the number of calls of each command except INFO, including calls by scripts."""
    stats = await server.info("commandstats")
    named = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
    return Counter(named) - Counter({"info": named.get("info", 0)})
