"""Test the cache of one process, without and with Redis, and then each of its levels alone.

Level 1 is the memory of the process, level 2 is Redis.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from markethall.shared.cache import CoherentCache, open_cache
from markethall.shared.cache.coherent_cache import (
    L1_TTL_WITHOUT_BUS,
    MAX_FRESH_SHARE,
    MAX_RENEWALS,
    MIN_FRESH_SHARE,
)
from markethall.shared.cache.invalidation_bus import InvalidationBus
from markethall.shared.cache.redis_cache import RedisCache, TombstoneChannel
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.observability.metrics import REGISTRY
from markethall.shared.persistence.redis_client import RedisClient
from tests.shared.cache_fixtures import Clock, Source, until

NAMESPACE = "test.process"


class LoadFailed(Exception):
    """Raised by `failing_load`."""


async def failing_load() -> bytes | None:
    await asyncio.sleep(0)
    raise LoadFailed


@pytest.fixture
async def clients(redis_url: str) -> AsyncIterator[list[RedisClient]]:
    """The Redis clients of two processes, with a long timeout for slow machines.

    Each client has one connection, so that Redis executes commands in the order of the calls.
    """
    both = [RedisClient(redis_url, timeout=30, max_connections=1) for _ in range(2)]
    yield both
    for client in both:
        await client.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["process", "redis"])
async def cache(
    request: pytest.FixtureRequest, clients: list[RedisClient], clock: Clock
) -> AsyncIterator[CoherentCache]:
    """A cache with a stopped clock, so that nothing expires during a test on a slow machine."""
    made = CoherentCache(clock=clock)
    if request.param == "redis":
        bus = InvalidationBus(TombstoneChannel(clients[0]))
        made = CoherentCache(bus, RedisCache(clients[0], bus.is_pending), clock=clock)
    yield made
    await made.close()


@pytest.fixture
def connected(clock: Clock) -> CoherentCache:
    """A cache without Redis, in the state of a cache that is connected to the invalidation bus.

    In this state, values are valid for their whole `ttl`.
    """
    made = CoherentCache(clock=clock)
    made.on_connection_changed(True)
    return made


@pytest.fixture
def namespace() -> str:
    return f"test.{uuid4().hex}"


@pytest.fixture
def source() -> Source:
    return Source()


# Without and with Redis


async def test_loaded_value_is_not_loaded_again(
    cache: CoherentCache, namespace: str, source: Source
) -> None:
    answers = [await cache.get_or_load(namespace, "a", 60, source.load) for _ in range(3)]

    assert answers == [b"old"] * 3
    assert source.loads == 1


async def test_keys_and_namespaces_do_not_mix(cache: CoherentCache, namespace: str) -> None:
    one, two, three = Source(b"1"), Source(b"2"), Source(b"3")
    for _ in range(2):
        answers = [
            await cache.get_or_load(namespace, "a", 60, one.load),
            await cache.get_or_load(namespace, "b", 60, two.load),
            await cache.get_or_load(namespace + "x", "a", 60, three.load),
        ]

        assert answers == [b"1", b"2", b"3"]


async def test_absence_is_not_cached(cache: CoherentCache, namespace: str) -> None:
    source = Source(None)
    assert await cache.get_or_load(namespace, "a", 60, source.load) is None

    source.value = b"new"

    assert await cache.get_or_load(namespace, "a", 60, source.load) == b"new"


async def test_empty_value_is_cached(cache: CoherentCache, namespace: str) -> None:
    source = Source(b"")

    answers = [await cache.get_or_load(namespace, "a", 60, source.load) for _ in range(2)]

    assert answers == [b"", b""]
    assert source.loads == 1


async def test_any_text_is_valid_key(cache: CoherentCache, namespace: str) -> None:
    keys = ["", "ä\0\n {x}:*", "\ud800", "long" * 1000, "long" * 1000 + "er"]
    sources = [Source(str(number).encode()) for number in range(len(keys))]
    for _ in range(2):
        answers = [
            await cache.get_or_load(namespace, key, 60, source.load)
            for key, source in zip(keys, sources, strict=True)
        ]
        assert answers == [source.value for source in sources]

    assert [source.loads for source in sources] == [1] * len(keys)
    cache.invalidate(namespace, keys)
    for source in sources:
        source.value = b"new"
    answers = [
        await cache.get_or_load(namespace, key, 60, source.load)
        for key, source in zip(keys, sources, strict=True)
    ]
    assert answers == [b"new"] * len(keys)


async def test_invalidated_key_is_loaded_again(
    cache: CoherentCache, namespace: str, source: Source
) -> None:
    other = Source(b"other")
    await cache.get_or_load(namespace, "a", 60, source.load)
    await cache.get_or_load(namespace, "b", 60, other.load)
    source.value = b"new"

    cache.invalidate(namespace, ["a", "never loaded"])

    assert await cache.get_or_load(namespace, "a", 60, source.load) == b"new"
    assert await cache.get_or_load(namespace, "a", 60, source.load) == b"new"
    assert await cache.get_or_load(namespace, "b", 60, other.load) == b"other"
    assert (source.loads, other.loads) == (2, 1)


async def test_invalidating_namespace_leaves_other_namespaces(
    cache: CoherentCache, namespace: str, source: Source
) -> None:
    other = Source(b"other")
    for key in "ab":
        await cache.get_or_load(namespace, key, 60, source.load)
    await cache.get_or_load(namespace + "x", "a", 60, other.load)
    source.value = b"new"

    cache.invalidate_namespace(namespace)

    answers = [await cache.get_or_load(namespace, key, 60, source.load) for key in "ab"]
    assert answers == [b"new"] * 2
    assert await cache.get_or_load(namespace + "x", "a", 60, other.load) == b"other"
    assert other.loads == 1


async def all_calls_wait(cache: CoherentCache, namespace: str) -> None:
    """Wait until every earlier call waits for its load.

    The cache handles calls in order, so this function makes one more call and waits for its result.
    """
    await cache.get_or_load(namespace, "last", 60, Source().load)


async def test_hundred_concurrent_misses_load_once(
    cache: CoherentCache, namespace: str, source: Source
) -> None:
    await all_calls_wait(cache, namespace)
    source.block()
    calls = [
        asyncio.create_task(cache.get_or_load(namespace, "a", 60, source.load)) for _ in range(100)
    ]
    await all_calls_wait(cache, namespace)

    source.may_answer.set()

    assert await asyncio.gather(*calls) == [b"old"] * 100
    assert source.loads == 1


async def test_cancelling_first_caller_does_not_fail_others(
    cache: CoherentCache, namespace: str, source: Source
) -> None:
    source.block()
    first = asyncio.create_task(cache.get_or_load(namespace, "a", 60, source.load))
    await source.reading.wait()
    others = [
        asyncio.create_task(cache.get_or_load(namespace, "a", 60, source.load)) for _ in range(3)
    ]
    await all_calls_wait(cache, namespace)

    first.cancel()
    await asyncio.wait([first])
    source.may_answer.set()

    assert first.cancelled()
    assert await asyncio.gather(*others) == [b"old"] * 3
    assert source.loads == 1


async def test_failing_load_raises_in_every_caller_and_stores_nothing(
    cache: CoherentCache, namespace: str, source: Source
) -> None:
    calls = [cache.get_or_load(namespace, "a", 60, failing_load) for _ in range(3)]

    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [LoadFailed] * 3
    assert await cache.get_or_load(namespace, "a", 60, source.load) == b"old"


@pytest.fixture
async def unretrieved() -> AsyncIterator[list[object]]:
    """Collect the errors that asyncio reports because no code has retrieved them."""
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    yield reported
    loop.set_exception_handler(None)


async def test_failure_without_waiting_callers_is_not_reported(
    cache: CoherentCache, namespace: str, source: Source, unretrieved: list[object]
) -> None:
    failed = asyncio.Event()

    async def fail_later() -> bytes | None:
        await source.load()
        failed.set()
        raise LoadFailed

    source.block()
    call = asyncio.create_task(cache.get_or_load(namespace, "a", 60, fail_later))
    await source.reading.wait()
    call.cancel()
    await asyncio.wait([call])
    source.may_answer.set()
    await failed.wait()
    await all_calls_wait(cache, namespace)
    gc.collect()

    assert unretrieved == []


def invalidate(cache: CoherentCache, namespace: str, what: str) -> None:
    if what == "key":
        cache.invalidate(namespace, ["a"])
    else:
        cache.invalidate_namespace(namespace)


@pytest.mark.parametrize("what", ["key", "namespace"])
async def test_load_that_began_before_invalidation_is_not_stored(
    cache: CoherentCache, namespace: str, source: Source, what: str
) -> None:
    source.block()
    early = asyncio.create_task(cache.get_or_load(namespace, "a", 60, source.load))
    await source.reading.wait()
    source.value = b"new"

    invalidate(cache, namespace, what)
    source.may_answer.set()

    assert await early == b"old"
    assert await cache.get_or_load(namespace, "a", 60, source.load) == b"new"
    assert await cache.get_or_load(namespace, "a", 60, source.load) == b"new"
    assert source.loads == 2


@pytest.mark.parametrize("what", ["key", "namespace"])
async def test_call_after_invalidation_does_not_join_load_before_it(
    cache: CoherentCache, namespace: str, what: str
) -> None:
    old, new = Source(b"old"), Source(b"new")
    old.block()
    early = asyncio.create_task(cache.get_or_load(namespace, "a", 60, old.load))
    await old.reading.wait()
    invalidate(cache, namespace, what)

    assert await cache.get_or_load(namespace, "a", 60, new.load) == b"new"
    old.may_answer.set()

    assert await early == b"old"
    assert await cache.get_or_load(namespace, "a", 60, new.load) == b"new"
    assert new.loads == 1


async def test_hits_and_misses_are_counted(
    cache: CoherentCache, namespace: str, source: Source
) -> None:
    for _ in range(5):
        await cache.get_or_load(namespace, "a", 60, source.load)

    assert counted(namespace, "l1_hit") == 4
    assert counted(namespace, "miss") == 1


def counted(namespace: str, outcome: str) -> float | None:
    labels = {"cache": namespace, "outcome": outcome}
    return REGISTRY.get_sample_value("markethall_cache_total", labels)


async def test_value_is_current_until_its_invalidation(
    cache: CoherentCache, namespace: str, source: Source
) -> None:
    value = await cache.get_or_load(namespace, "a", 60, source.load)
    assert value is not None

    assert cache.is_current(namespace, "a", value)
    assert not cache.is_current(namespace, "b", value)
    cache.invalidate_namespace(namespace)
    assert not cache.is_current(namespace, "a", value)


# Level 1: in the process


async def test_value_lives_for_its_ttl(
    connected: CoherentCache, clock: Clock, source: Source
) -> None:
    await connected.get_or_load(NAMESPACE, "a", 60, source.load)
    source.value = b"new"

    clock.now += 59.9
    assert await connected.get_or_load(NAMESPACE, "a", 60, source.load) == b"old"
    clock.now += 0.2
    assert await connected.get_or_load(NAMESPACE, "a", 60, source.load) == b"new"


async def unavailable_load() -> bytes | None:
    raise Unavailable(dependency="postgres")


async def finish_loads(cache: CoherentCache) -> None:
    await until(lambda: not cache._tasks)


async def test_value_is_renewed_before_it_expires(
    connected: CoherentCache, clock: Clock, source: Source
) -> None:
    await connected.get_or_load(NAMESPACE, "a", 60, source.load)
    source.value = b"new"
    clock.now += 60 * MAX_FRESH_SHARE
    source.block()

    during = [await connected.get_or_load(NAMESPACE, "a", 60, source.load) for _ in range(50)]
    source.may_answer.set()
    await finish_loads(connected)

    assert during == [b"old"] * 50
    assert connected.peek(NAMESPACE, "a") == b"new"
    assert source.loads == 2


@pytest.mark.parametrize("renewed", [b"old", b"new"])
async def test_value_is_current_during_its_renewal_and_after_it_if_it_has_not_changed(
    connected: CoherentCache, clock: Clock, source: Source, renewed: bytes
) -> None:
    value = await connected.get_or_load(NAMESPACE, "a", 60, source.load)
    assert value is not None
    # a new object with the same bytes, because a database returns a new object at each load
    source.value = bytes(bytearray(renewed))
    clock.now += 60 * MAX_FRESH_SHARE
    source.block()

    before = connected.is_current(NAMESPACE, "a", value)
    await connected.get_or_load(NAMESPACE, "a", 60, source.load)
    during = connected.is_current(NAMESPACE, "a", value)
    source.may_answer.set()
    await finish_loads(connected)

    assert (before, during) == (False, True)
    assert connected.is_current(NAMESPACE, "a", value) is (renewed == b"old")


async def test_value_is_not_current_after_its_ttl(
    connected: CoherentCache, clock: Clock, source: Source
) -> None:
    value = await connected.get_or_load(NAMESPACE, "a", 60, source.load)
    assert value is not None
    clock.now += 60 * MAX_FRESH_SHARE
    source.block()
    await connected.get_or_load(NAMESPACE, "a", 60, source.load)
    clock.now += 60 * (1 - MAX_FRESH_SHARE)

    assert not connected.is_current(NAMESPACE, "a", value)
    source.may_answer.set()
    await finish_loads(connected)


async def test_values_loaded_together_are_renewed_at_different_times(
    connected: CoherentCache, clock: Clock, source: Source
) -> None:
    keys = [str(number) for number in range(200)]
    for key in keys:
        await connected.get_or_load(NAMESPACE, key, 100, source.load)
    fresh = []
    for share in (MIN_FRESH_SHARE - 0.01, 0.8, MAX_FRESH_SHARE):
        clock.now = 100 + 100 * share
        fresh.append(sum(connected.peek(NAMESPACE, key) is not None for key in keys))

    assert fresh[0] == 200
    assert 50 < fresh[1] < 150
    assert fresh[2] == 0


async def test_few_values_are_renewed_at_a_time(
    connected: CoherentCache, clock: Clock, source: Source
) -> None:
    keys = [str(number) for number in range(100)]
    for key in keys:
        await connected.get_or_load(NAMESPACE, key, 60, source.load)
    clock.now += 60 * MAX_FRESH_SHARE
    source.block()

    values = [await connected.get_or_load(NAMESPACE, key, 60, source.load) for key in keys]
    await source.reading.wait()

    assert values == [b"old"] * 100
    assert source.loads == 100 + MAX_RENEWALS
    source.may_answer.set()
    await finish_loads(connected)


async def test_value_is_returned_while_its_renewal_fails(
    connected: CoherentCache, clock: Clock, source: Source
) -> None:
    await connected.get_or_load(NAMESPACE, "a", 60, source.load)
    answers = []
    for seconds in (60 * MAX_FRESH_SHARE, 60, 5):
        clock.now += seconds
        calls = [connected.get_or_load(NAMESPACE, "a", 60, unavailable_load) for _ in range(3)]
        answers += await asyncio.gather(*calls)
        await finish_loads(connected)

    assert answers == [b"old"] * 9
    clock.now += 1.1
    with pytest.raises(Unavailable):
        await connected.get_or_load(NAMESPACE, "a", 60, unavailable_load)


@pytest.mark.parametrize("what", ["key", "namespace"])
async def test_invalidated_value_is_not_returned_when_its_load_fails(
    connected: CoherentCache, clock: Clock, source: Source, what: str
) -> None:
    await connected.get_or_load(NAMESPACE, "a", 60, source.load)
    clock.now += 61

    async def invalidated_meanwhile() -> bytes | None:
        invalidate(connected, NAMESPACE, what)
        raise Unavailable(dependency="postgres")

    with pytest.raises(Unavailable):
        await connected.get_or_load(NAMESPACE, "a", 60, invalidated_meanwhile)


async def test_value_is_not_returned_after_a_second_without_bus(
    clock: Clock, source: Source
) -> None:
    cache = CoherentCache(clock=clock)
    await cache.get_or_load(NAMESPACE, "a", 60, source.load)
    clock.now += L1_TTL_WITHOUT_BUS

    with pytest.raises(Unavailable):
        await cache.get_or_load(NAMESPACE, "a", 60, unavailable_load)


async def test_removed_value_is_not_returned_after_its_renewal(
    connected: CoherentCache, clock: Clock, source: Source
) -> None:
    await connected.get_or_load(NAMESPACE, "a", 60, source.load)
    source.value = None
    clock.now += 60 * MAX_FRESH_SHARE

    await connected.get_or_load(NAMESPACE, "a", 60, source.load)
    await finish_loads(connected)

    assert await connected.get_or_load(NAMESPACE, "a", 60, source.load) is None


async def test_least_recently_used_value_is_evicted_first(source: Source) -> None:
    cache = CoherentCache(max_bytes=1000)
    for key in "abc":
        await cache.get_or_load(NAMESPACE, key, 60, source.load)
    cache.peek(NAMESPACE, "a")

    await cache.get_or_load(NAMESPACE, "d", 60, source.load)

    assert [key for key in "abcd" if cache.peek(NAMESPACE, key)] == ["a", "c", "d"]


async def test_memory_is_bounded_by_bytes(clock: Clock) -> None:
    cache, source = CoherentCache(clock=clock, max_bytes=10_000), Source(b"x" * 2_000)
    for key in "abcdefgh":
        await cache.get_or_load(NAMESPACE, key, 60, source.load)
    giant = Source(b"x" * 20_000)

    assert [key for key in "abcdefgh" if cache.peek(NAMESPACE, key)] == ["e", "f", "g", "h"]
    assert await cache.get_or_load(NAMESPACE, "giant", 60, giant.load) == giant.value
    assert cache.peek(NAMESPACE, "giant") is None


async def test_replaced_value_is_counted_once(clock: Clock) -> None:
    cache, source = CoherentCache(clock=clock, max_bytes=5_000), Source(b"x" * 2_000)
    cache.on_connection_changed(True)
    await cache.get_or_load(NAMESPACE, "other", 3600, source.load)

    for _ in range(100):
        await cache.get_or_load(NAMESPACE, "a", 1, source.load)
        clock.now += 1

    assert cache.peek(NAMESPACE, "other") is not None


async def test_disabled_cache_loads_every_time(source: Source) -> None:
    cache = open_cache("off", RedisClient(None))

    for _ in range(3):
        assert await cache.get_or_load(NAMESPACE, "a", 60, source.load) == b"old"

    assert source.loads == 3
    assert cache.peek(NAMESPACE, "a") is None


# Level 2: in Redis


class RedisProcess:
    """Level 2 of the cache and the invalidation bus of one process, without level 1."""

    def __init__(self, client: RedisClient, clock: Clock | None = None) -> None:
        self.bus = InvalidationBus(TombstoneChannel(client))
        self.cache = RedisCache(client, self.bus.is_pending, clock or Clock())

    async def get(self, namespace: str, key: str, source: Source) -> bytes | None:
        return await self.cache.get_or_load(namespace, key, 60, source.load)

    async def invalidate(self, namespace: str, *keys: str | None) -> None:
        self.bus.publish([(namespace, key) for key in keys])
        await self.bus.flush()


Two = tuple[RedisProcess, RedisProcess]


@pytest.fixture
def cache_pair(clients: list[RedisClient]) -> Two:
    return RedisProcess(clients[0]), RedisProcess(clients[1])


KEY_OR_NAMESPACE = pytest.mark.parametrize("key", ["a", None], ids=["key", "namespace"])


async def test_processes_share_loaded_values(
    cache_pair: Two, namespace: str, source: Source
) -> None:
    here, there = cache_pair
    await here.get(namespace, "a", source)

    assert await there.get(namespace, "a", source) == b"old"
    assert source.loads == 1
    assert counted(namespace, "l2") == 1


@pytest.mark.parametrize("keys", [["a"], [None], ["a", None]])
async def test_key_invalidated_by_one_process_is_loaded_again_by_other(
    cache_pair: Two, namespace: str, source: Source, keys: list[str | None]
) -> None:
    here, there = cache_pair
    await there.get(namespace, "a", source)
    source.value = b"new"

    await here.invalidate(namespace, *keys)

    assert await there.get(namespace, "a", source) == b"new"


@KEY_OR_NAMESPACE
async def test_load_that_began_before_invalidation_elsewhere_is_not_stored(
    cache_pair: Two, namespace: str, source: Source, key: str | None
) -> None:
    here, there = cache_pair
    source.block()
    early = asyncio.create_task(here.get(namespace, "a", source))
    await source.reading.wait()
    fresh = Source(b"new")

    await there.invalidate(namespace, key)
    source.may_answer.set()

    assert await early == b"old"
    assert [await process.get(namespace, "a", fresh) for process in cache_pair] == [b"new"] * 2
    assert fresh.loads == 1


@KEY_OR_NAMESPACE
async def test_invalidation_that_is_not_sent_yet_hides_value_in_redis(
    cache_pair: Two, namespace: str, source: Source, key: str | None
) -> None:
    here, _ = cache_pair
    await here.get(namespace, "a", source)
    source.value = b"new"

    here.bus.publish([(namespace, key)])

    assert await here.get(namespace, "a", source) == b"new"


async def test_invalidation_of_many_keys_reaches_each(cache_pair: Two, namespace: str) -> None:
    here, there = cache_pair
    keys = [str(number) for number in range(2500)]
    old, new = Source(b"old"), Source(b"new")
    for key in keys[::250]:
        await there.get(namespace, key, old)

    await here.invalidate(namespace, *keys)

    for key in keys[::250]:
        assert await there.get(namespace, key, new) == b"new"


async def test_load_that_took_longer_than_its_tombstone_lives_is_not_stored(
    clients: list[RedisClient], namespace: str, source: Source, clock: Clock
) -> None:
    process = RedisProcess(clients[0], clock)

    async def slow_load() -> bytes | None:
        clock.now += 30
        return await source.load()

    for _ in range(2):
        assert await process.cache.get_or_load(namespace, "a", 60, slow_load) == b"old"

    assert source.loads == 2


async def test_values_and_tombstones_expire_in_redis(
    clients: list[RedisClient], cache_pair: Two, namespace: str, source: Source
) -> None:
    await cache_pair[0].get(namespace, "a", source)
    await cache_pair[0].invalidate(namespace, "b")

    ttls = [
        await clients[1].execute("PTTL", f"markethall:cache:{{{namespace}}}:{key}") for key in "ab"
    ]

    assert all(30_000 < ttl <= 60_000 for ttl in ttls)


async def test_data_of_another_program_is_not_returned(
    clients: list[RedisClient], cache_pair: Two, namespace: str, source: Source
) -> None:
    name = f"markethall:cache:{{{namespace}}}"
    for command in (
        ("SET", f"{name}:a", "foreign"),
        ("RPUSH", f"{name}:b", "a", "list"),
        ("SET", f"markethall:cache:{{{namespace}x}}", "a generation of another form"),
        ("RPUSH", f"markethall:cache:{{{namespace}y}}", "no generation"),
    ):
        await clients[1].execute(*command)

    for key in "ab":
        assert await cache_pair[0].get(namespace, key, source) == b"old"
    for suffix in "xy":
        assert await cache_pair[0].get(namespace + suffix, "a", source) == b"old"
