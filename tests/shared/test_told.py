"""What one process forgets, the others forget too: by Redis, and by the database they share."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from markethall.shared.cache import (
    Cache,
    PostgresBell,
    ProcessCache,
    RedisBell,
    ToldCache,
    open_cache,
)
from markethall.shared.cache.near import NEAR
from markethall.shared.cache.ports import Bell, Ear, Forgotten
from markethall.shared.db import PoolSize, Postgres
from markethall.shared.redis import RedisClient

# of looks, each some milliseconds after the one before: a limit of failure, not a measure
MOST_LOOKS = 1000


class Two(NamedTuple):
    here: Cache
    there: Cache


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def space() -> str:
    return f"test.{uuid4().hex}"


@pytest.fixture(params=["redis", "postgres"])
async def two(
    request: pytest.FixtureRequest, redis_url: str, database_url: str
) -> AsyncIterator[Two]:
    """Of two processes, each listening."""
    closing: list[Callable[[], Awaitable[None]]] = []
    made = []
    for _ in range(2):
        if request.param == "redis":
            client = RedisClient(redis_url, timeout=30)
            made.append(open_cache("on", client))
            closing.append(client.close)
        else:
            postgres = Postgres(database_url, PoolSize(1, 2, 30))
            made.append(open_cache("on", RedisClient(None), postgres))
            closing.append(postgres.close)
    for cache in made:
        assert isinstance(cache, ToldCache)
        # time stands still: nothing goes because it is old
        cache._near._clock = lambda: 0.0
    tasks = [asyncio.create_task(cache.listen()) for cache in made]
    both = Two(*made)
    await _hear_each_other(both)
    yield both
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for cache in made:
        await cache.close()
    for close in closing:
        await close()


async def _hear_each_other(two: Two) -> None:
    for one, other in (two, reversed(two)):
        await _until_forgotten(one, other, f"test.{uuid4().hex}")


async def _until_forgotten(one: Cache, other: Cache, space: str) -> None:
    """Tries until a forget of one reaches the other."""
    for _ in range(MOST_LOOKS):
        await other.fetch(space, "key", 1000, old)
        if other.peek(space, "key"):
            await one.forget(space, ["key"])
            with suppress(AssertionError):
                await gone(other, space, "key", looks=20)
                return
        await asyncio.sleep(0.01)  # looks again; nothing hangs on the length
    raise AssertionError("they do not hear each other")


async def gone(cache: Cache, space: str, key: str, looks: int = MOST_LOOKS) -> None:
    for _ in range(looks):
        if cache.peek(space, key) is None:
            return
        await asyncio.sleep(0.005)  # looks again; nothing hangs on the length
    raise AssertionError("it is still there")


async def until(so: Callable[[], bool]) -> None:
    for _ in range(MOST_LOOKS):
        if so():
            return
        await asyncio.sleep(0.005)  # looks again; nothing hangs on the length
    raise AssertionError("it is not so")


async def old() -> bytes | None:
    return b"old"


async def new() -> bytes | None:
    return b"new"


async def test_a_value_lies_in_the_process(two: Two, space: str) -> None:
    await two.here.fetch(space, "key", 1000, old)

    assert two.here.peek(space, "key") == b"old"


async def test_what_one_forgets_the_other_forgets(two: Two, space: str) -> None:
    await two.there.fetch(space, "key", 1000, old)
    await two.there.fetch(space, "other", 1000, old)

    await two.here.forget(space, ["key"])
    await gone(two.there, space, "key")

    assert await two.there.fetch(space, "key", 1000, new) == b"new"
    assert two.there.peek(space, "other") == b"old"


async def test_a_space_that_one_forgets_is_forgotten_everywhere(two: Two, space: str) -> None:
    await two.there.fetch(space, "key", 1000, old)

    await two.here.forget_space(space)
    await gone(two.there, space, "key")

    assert await two.there.fetch(space, "key", 1000, new) == b"new"


async def test_a_forget_elsewhere_wins_over_a_load_that_began_before_it(
    two: Two, space: str
) -> None:
    reading, may_answer = asyncio.Event(), asyncio.Event()

    async def slow() -> bytes | None:
        reading.set()
        await may_answer.wait()
        return b"old"

    await two.there.fetch(space, "sign", 1000, old)
    load = asyncio.create_task(two.there.fetch(space, "key", 1000, slow))
    await reading.wait()
    await two.here.forget(space, ["key"])
    await two.here.forget(space, ["sign"])
    await gone(two.there, space, "sign")
    may_answer.set()
    await load

    assert await two.there.fetch(space, "key", 1000, new) == b"new"


async def test_more_than_can_be_said_at_once_is_forgotten(two: Two, space: str) -> None:
    # fewer than are told one by one, and longer in all than the database takes
    keys = [f"{number}-{'x' * 100}" for number in range(90)]
    for key in keys:
        await two.there.fetch(space, key, 1000, old)

    await two.here.forget(space, keys)

    for key in keys:
        await gone(two.there, space, key)


async def test_what_is_owed_is_told_at_the_end_by_who_never_listened(
    two: Two, space: str, request: pytest.FixtureRequest, database_url: str, redis_url: str
) -> None:
    """A command that imports and ends."""
    postgres = Postgres(database_url, PoolSize(1, 2, 30))
    redis = RedisClient(redis_url if "redis" in request.node.name else None, timeout=30)
    command = open_cache("on", redis, postgres)
    await two.there.fetch(space, "key", 1000, old)

    await command.forget(space, ["key"])
    await command.close()

    await gone(two.there, space, "key")
    await redis.close()
    await postgres.close()


class Startled(ToldCache):
    """The first forget that it hears of is too much for it. `kept` is how long it keeps values."""

    def __init__(self, bell: Bell) -> None:
        near = ProcessCache(clock=lambda: 0.0)
        super().__init__(near, near, bell)
        self.kept: list[float] = []
        self._calm = False

    def heard(self, names: Sequence[Forgotten]) -> None:
        if names and not self._calm:
            self._calm = True
            raise ZeroDivisionError
        super().heard(names)

    def hears(self, now: bool) -> None:
        super().hears(now)
        self.kept.append(self._near.longest)


async def test_who_cannot_take_a_word_believes_nothing_for_long_and_listens_again(
    two: Two, space: str, request: pytest.FixtureRequest, database_url: str, redis_url: str
) -> None:
    postgres = Postgres(database_url, PoolSize(1, 2, 30))
    redis = RedisClient(redis_url, timeout=30)
    by_redis = "redis" in request.node.name
    startled = Startled(RedisBell(redis) if by_redis else PostgresBell(postgres))

    with capture_logs() as lines:
        listening = asyncio.create_task(startled.listen())
        await until(lambda: len(startled.kept) == 1)
        await two.here.forget(space, ["key"])
        await until(lambda: len(startled.kept) == 3)
        await _until_forgotten(two.here, startled, space)

    assert startled.kept == [math.inf, NEAR, math.inf]
    assert [line["event"] for line in lines] == ["cache.deaf"]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await redis.close()
    await postgres.close()


class NoBell:
    def ring(self, names: Sequence[Forgotten]) -> None:
        pass

    async def listen(self, ear: Ear) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_who_hears_keeps_a_value_for_its_time(space: str) -> None:
    clock = Clock()
    near = ProcessCache(clock=clock)
    cache = ToldCache(near, near, NoBell())
    cache.hears(True)
    await cache.fetch(space, "key", 1000, old)

    clock.now += 500

    assert await cache.fetch(space, "key", 1000, new) == b"old"


async def test_what_was_missed_in_a_silence_is_not_believed(space: str) -> None:
    near = ProcessCache()
    cache = ToldCache(near, near, NoBell())
    await cache.fetch(space, "key", 1000, old)

    cache.hears(True)

    assert cache.peek(space, "key") is None


async def test_what_nobody_tells_is_believed_for_no_longer_than_a_second(space: str) -> None:
    postgres = Postgres("postgresql://nobody@127.0.0.1:9/nothing", PoolSize(1, 2, 5))
    cache = open_cache("on", RedisClient(None), postgres)
    assert isinstance(cache, ToldCache)
    clock = Clock()
    cache._near._clock = clock
    await cache.fetch(space, "key", 1000, old)

    clock.now += 1.0

    assert await cache.fetch(space, "key", 1000, new) == b"new"
