"""Test that an invalidation drops the value in other processes, over Redis and over Postgres."""

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from markethall.shared.cache import CoherentCache, open_cache
from markethall.shared.cache.coherent_cache import L1_TTL_WITHOUT_BUS
from markethall.shared.cache.invalidation_bus import InvalidationBus, PostgresChannel
from markethall.shared.cache.keys import Invalidation
from markethall.shared.cache.redis_cache import RedisChannel
from markethall.shared.persistence.postgres import PoolSize, Postgres
from markethall.shared.persistence.redis_client import RedisClient
from tests.conftest import on_server
from tests.proxy import Mode, Proxy
from tests.shared.cache_fixtures import (
    MAX_ATTEMPTS,
    Clock,
    Connections,
    Source,
    open_connections,
    until,
)


class Two(NamedTuple):
    """The caches of two processes."""

    here: CoherentCache
    there: CoherentCache


@pytest.fixture
def namespace() -> str:
    return f"test.{uuid4().hex}"


@pytest.fixture(params=["redis", "postgres"])
def bus_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("redis_url" if request.param == "redis" else "database_url"))


@pytest.fixture
async def connect(bus_url: str, database_url: str) -> AsyncIterator[Callable[[], Connections]]:
    opened: list[Connections] = []

    def connect() -> Connections:
        opened.append(open_connections(bus_url, database_url))
        return opened[-1]

    yield connect
    for connections in opened:
        await connections.close()


@pytest.fixture
async def two(connect: Callable[[], Connections]) -> AsyncIterator[Two]:
    """Two caches that listen to the bus. Their clocks are stopped, so that nothing expires."""
    both = Two(*(open_cache("on", *connect()) for _ in range(2)))
    for cache in both:
        cache._clock = lambda: 0.0
    tasks = [asyncio.create_task(cache.listen()) for cache in both]
    for sender, receiver in (both, reversed(both)):
        await until_invalidations_arrive(sender, receiver)
    yield both
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for cache in both:
        await cache.close()


async def until_invalidations_arrive(sender: CoherentCache, receiver: CoherentCache) -> None:
    namespace = f"test.{uuid4().hex}"
    for _ in range(MAX_ATTEMPTS):
        await receiver.get_or_load(namespace, "key", 1000, Source().load)
        if receiver.peek(namespace, "key"):
            sender.invalidate(namespace, ["key"])
            with suppress(AssertionError):
                await until_dropped(receiver, namespace, "key", attempts=20)
                return
        await asyncio.sleep(0.01)  # the poll interval
    raise AssertionError("no invalidation arrives")


async def until_dropped(
    cache: CoherentCache, namespace: str, key: str, attempts: int = MAX_ATTEMPTS
) -> None:
    await until(lambda: cache.peek(namespace, key) is None, attempts)


async def get(cache: CoherentCache, namespace: str, key: str, value: bytes) -> bytes | None:
    return await cache.get_or_load(namespace, key, 1000, Source(value).load)


async def test_value_is_cached_in_process(two: Two, namespace: str) -> None:
    await get(two.here, namespace, "key", b"old")

    assert two.here.peek(namespace, "key") == b"old"


async def test_key_invalidated_by_one_process_is_dropped_by_other(two: Two, namespace: str) -> None:
    await get(two.there, namespace, "key", b"old")
    await get(two.there, namespace, "other", b"old")

    two.here.invalidate(namespace, ["key"])
    await until_dropped(two.there, namespace, "key")

    assert await get(two.there, namespace, "key", b"new") == b"new"
    assert two.there.peek(namespace, "other") == b"old"


async def test_namespace_invalidated_by_one_process_is_dropped_by_other(
    two: Two, namespace: str
) -> None:
    await get(two.there, namespace, "key", b"old")

    two.here.invalidate_namespace(namespace)
    await until_dropped(two.there, namespace, "key")

    assert await get(two.there, namespace, "key", b"new") == b"new"


async def test_process_keeps_what_it_loaded_after_its_own_invalidation(
    two: Two, namespace: str
) -> None:
    await get(two.there, namespace, "key", b"old")
    two.here.invalidate(namespace, ["key"])
    await get(two.here, namespace, "key", b"new")

    await until_dropped(two.there, namespace, "key")
    # `here` also receives its own invalidation. Messages arrive in the order in which they were
    # sent, so its own has arrived when a later message of `there` arrives.
    await until_invalidations_arrive(two.there, two.here)

    assert two.here.peek(namespace, "key") == b"new"


async def test_load_that_began_before_invalidation_elsewhere_is_not_stored(
    two: Two, namespace: str
) -> None:
    source = Source(b"old")
    source.block()
    await get(two.there, namespace, "marker", b"old")
    load = asyncio.create_task(two.there.get_or_load(namespace, "key", 1000, source.load))
    await source.reading.wait()
    two.here.invalidate(namespace, ["key"])
    two.here.invalidate(namespace, ["marker"])
    await until_dropped(two.there, namespace, "marker")
    source.may_answer.set()
    await load

    assert await get(two.there, namespace, "key", b"new") == b"new"


async def test_many_keys_are_invalidated(two: Two, namespace: str) -> None:
    keys = [f"{number}-{'x' * 100}" for number in range(90)]
    for key in keys:
        await get(two.there, namespace, key, b"old")

    two.here.invalidate(namespace, keys)

    for key in keys:
        await until_dropped(two.there, namespace, key)


async def test_busy_pool_delays_no_invalidation(
    two: Two, namespace: str, connect: Callable[[], Connections]
) -> None:
    connections = connect()
    cache = open_cache("on", *connections)
    listening = asyncio.create_task(cache.listen())
    await until_invalidations_arrive(cache, two.there)
    await get(two.there, namespace, "key", b"old")

    async with connections.postgres.transaction(), connections.postgres.transaction():
        cache.invalidate(namespace, ["key"])
        await until_dropped(two.there, namespace, "key")

    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_process_that_never_listens_sends_its_invalidations_when_it_closes(
    two: Two, namespace: str, bus_url: str, database_url: str
) -> None:
    """The command `markethall import` invalidates products, but does not listen."""
    for cache in two:
        await get(cache, namespace, "key", b"old")

    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.shared.invalidating_process"),
        *(bus_url, database_url, namespace, "key"),
    )

    assert await command.wait() == 0
    for cache in two:
        await until_dropped(cache, namespace, "key")


class FailsOnce(CoherentCache):
    """A cache that raises an error at the first invalidation that it receives.

    `max_ttls` records the maximum TTL, in seconds, after each change of the connection.
    """

    def __init__(self, bus: InvalidationBus) -> None:
        super().__init__(bus, clock=lambda: 0.0)
        self.max_ttls: list[float] = []
        self._has_failed = False

    def on_invalidated(self, invalidations: Collection[Invalidation]) -> None:
        if invalidations and not self._has_failed:
            self._has_failed = True
            raise ZeroDivisionError
        super().on_invalidated(invalidations)

    def on_connection_changed(self, connected: bool) -> None:
        super().on_connection_changed(connected)
        self.max_ttls.append(self._l1_max_ttl)


async def test_failed_listener_drops_everything_and_listens_again(
    two: Two, namespace: str, connect: Callable[[], Connections], bus_url: str
) -> None:
    redis, postgres = connect()
    is_redis = bus_url.startswith("redis")
    channel = RedisChannel(redis) if is_redis else PostgresChannel(postgres)
    failing = FailsOnce(InvalidationBus(channel))

    with capture_logs() as lines:
        listening = asyncio.create_task(failing.listen())
        await until(lambda: len(failing.max_ttls) == 1)
        two.here.invalidate(namespace, ["key"])
        await until(lambda: len(failing.max_ttls) == 3)
        await until_invalidations_arrive(two.here, failing)

    assert failing.max_ttls == [math.inf, L1_TTL_WITHOUT_BUS, math.inf]
    assert [line["event"] for line in lines] == ["cache.invalidation_listener_failed"]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_lost_connection_drops_everything_and_is_made_again(
    two: Two, namespace: str, bus_url: str, database_url: str
) -> None:
    for cache in two:
        await get(cache, namespace, "key", b"old")

    await cut_connections(bus_url, database_url)

    for cache in two:
        await until_dropped(cache, namespace, "key")
    await until_invalidations_arrive(two.here, two.there)
    await until_invalidations_arrive(two.there, two.here)


async def cut_connections(bus_url: str, database_url: str) -> None:
    """Make the server close the connections over which processes receive invalidations."""
    if bus_url.startswith("redis"):
        redis = RedisClient(bus_url, timeout=30)
        await redis.execute("CLIENT", "KILL", "TYPE", "pubsub")
        await redis.close()
    else:
        await on_server(
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'markethall'",
        )


async def test_connection_that_stops_answering_is_noticed(bus_url: str, database_url: str) -> None:
    url = urlsplit(bus_url)
    async with Proxy(url.port or 0) as proxy:
        user = f"{url.netloc.rpartition('@')[0]}@" if "@" in url.netloc else ""
        proxied = url._replace(netloc=f"{user}127.0.0.1:{proxy.port}").geturl()
        is_redis = bus_url.startswith("redis")
        connections = open_connections(proxied, database_url if is_redis else proxied)
        cache = open_cache("on", *connections)
        listening = asyncio.create_task(cache.listen())
        await until(lambda: cache._l1_max_ttl == math.inf)

        await proxy.switch(Mode.BLACKHOLE)

        await until(lambda: cache._l1_max_ttl == L1_TTL_WITHOUT_BUS)
        await proxy.switch(Mode.PASS)
        await until(lambda: cache._l1_max_ttl == math.inf)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await connections.close()


# One process


async def test_connected_process_keeps_value_for_its_ttl(namespace: str) -> None:
    clock = Clock()
    cache = CoherentCache(clock=clock)
    cache.on_connection_changed(True)
    await get(cache, namespace, "key", b"old")

    clock.now += 500

    assert await get(cache, namespace, "key", b"new") == b"old"


@pytest.mark.parametrize("connected", [True, False])
async def test_change_of_connection_drops_every_value_and_every_running_load(
    namespace: str, connected: bool
) -> None:
    cache = CoherentCache(clock=Clock())
    cache.on_connection_changed(not connected)
    await get(cache, namespace, "key", b"old")
    source = Source(b"old")
    source.block()
    load = asyncio.create_task(cache.get_or_load(namespace, "loading", 1000, source.load))
    await source.reading.wait()

    cache.on_connection_changed(connected)
    source.may_answer.set()
    await load

    assert cache.peek(namespace, "key") is None
    assert cache.peek(namespace, "loading") is None


async def test_without_connection_no_value_is_older_than_second(namespace: str) -> None:
    clock = Clock()
    unreachable = Postgres("postgresql://127.0.0.1:9/nothing", PoolSize(1, 2, 5))
    for redis_url, postgres in (
        (None, None),
        (None, unreachable),
        ("redis://127.0.0.1:9", unreachable),
    ):
        cache = open_cache("on", RedisClient(redis_url), postgres)
        cache._clock = clock
        await get(cache, namespace, "key", b"old")

        clock.now += 1.0

        assert await get(cache, namespace, "key", b"new") == b"new"


async def test_without_connection_second_begins_with_load(namespace: str) -> None:
    clock = Clock()
    cache = CoherentCache(clock=clock)

    async def slow_load() -> bytes | None:
        clock.now += 0.6
        return b"old"

    await cache.get_or_load(namespace, "key", 1000, slow_load)
    clock.now += 0.4

    assert await get(cache, namespace, "key", b"new") == b"new"
