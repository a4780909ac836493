"""The caches: one suite for the process and for Redis, then what each has of its own."""

import asyncio
import gc
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from markethall.shared.cache import (
    Cache,
    NearCache,
    NoCache,
    ProcessCache,
    RedisCache,
    ToldCache,
    open_cache,
)
from markethall.shared.metrics import REGISTRY
from markethall.shared.redis import RedisClient


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Shelf:
    """What the cache stands before: counts how often it is asked, and can keep askers waiting."""

    def __init__(self, value: bytes | None = b"old") -> None:
        self.value = value
        self.asked = 0
        self.reading = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def load(self) -> bytes | None:
        self.asked += 1
        value = self.value
        self.reading.set()
        await self.may_answer.wait()
        return value

    def hold(self) -> None:
        self.reading.clear()
        self.may_answer.clear()


class Burnt(Exception):
    """The shelf is gone."""


async def burn() -> bytes | None:
    await asyncio.sleep(0)
    raise Burnt


@pytest.fixture
async def clients(redis_url: str) -> AsyncIterator[list[RedisClient]]:
    """Two, as of two processes. The timeout is long: a slow test machine is not a fault.

    One connection each: commands are answered in the order of the calls.
    """
    both = [RedisClient(redis_url, timeout=30, connections=1) for _ in range(2)]
    yield both
    for client in both:
        await client.close()


@pytest.fixture(params=["process", "redis", "near"])
async def cache(request: pytest.FixtureRequest, clients: list[RedisClient]) -> AsyncIterator[Cache]:
    made: Cache = ProcessCache() if request.param == "process" else RedisCache(clients[0])
    if request.param == "near":
        # a clock that stands: nothing gets old in the middle of a test, however slow the machine
        made = NearCache.before(made, Clock())
    yield made
    await made.close()


@pytest.fixture
def space() -> str:
    return f"test.{uuid4().hex}"


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


# both


async def test_what_was_loaded_is_not_loaded_again(cache: Cache, space: str, shelf: Shelf) -> None:
    answers = [await cache.fetch(space, "a", 60, shelf.load) for _ in range(3)]

    assert answers == [b"old"] * 3
    assert shelf.asked == 1


async def test_keys_and_spaces_do_not_mix(cache: Cache, space: str) -> None:
    one, two, three = Shelf(b"1"), Shelf(b"2"), Shelf(b"3")
    for _ in range(2):
        answers = [
            await cache.fetch(space, "a", 60, one.load),
            await cache.fetch(space, "b", 60, two.load),
            await cache.fetch(space + "x", "a", 60, three.load),
        ]

        assert answers == [b"1", b"2", b"3"]


async def test_absence_is_not_kept(cache: Cache, space: str) -> None:
    shelf = Shelf(None)
    assert await cache.fetch(space, "a", 60, shelf.load) is None

    shelf.value = b"new"

    assert await cache.fetch(space, "a", 60, shelf.load) == b"new"


async def test_an_empty_value_is_a_value(cache: Cache, space: str) -> None:
    shelf = Shelf(b"")

    answers = [await cache.fetch(space, "a", 60, shelf.load) for _ in range(2)]

    assert answers == [b"", b""]
    assert shelf.asked == 1


async def test_any_text_is_a_key(cache: Cache, space: str) -> None:
    keys = ["", "ä\0\n {x}:*", "\ud800", "long" * 1000, "long" * 1000 + "er"]
    shelves = [Shelf(str(number).encode()) for number in range(len(keys))]
    for _ in range(2):
        answers = [
            await cache.fetch(space, key, 60, shelf.load)
            for key, shelf in zip(keys, shelves, strict=True)
        ]
        assert answers == [shelf.value for shelf in shelves]

    assert [shelf.asked for shelf in shelves] == [1] * len(keys)


async def test_what_is_forgotten_is_loaded_again(cache: Cache, space: str, shelf: Shelf) -> None:
    other = Shelf(b"other")
    await cache.fetch(space, "a", 60, shelf.load)
    await cache.fetch(space, "b", 60, other.load)
    shelf.value = b"new"

    await cache.forget(space, ["a", "never seen"])

    assert await cache.fetch(space, "a", 60, shelf.load) == b"new"
    assert await cache.fetch(space, "a", 60, shelf.load) == b"new"
    assert await cache.fetch(space, "b", 60, other.load) == b"other"
    assert (shelf.asked, other.asked) == (2, 1)


async def test_a_space_is_forgotten_at_once_and_others_are_not(
    cache: Cache, space: str, shelf: Shelf
) -> None:
    neighbour = Shelf(b"neighbour")
    for key in "ab":
        await cache.fetch(space, key, 60, shelf.load)
    await cache.fetch(space + "x", "a", 60, neighbour.load)
    shelf.value = b"new"

    await cache.forget_space(space)

    assert [await cache.fetch(space, key, 60, shelf.load) for key in "ab"] == [b"new"] * 2
    assert await cache.fetch(space + "x", "a", 60, neighbour.load) == b"neighbour"
    assert neighbour.asked == 1


async def in_line(cache: Cache, space: str) -> None:
    """All fetches that were begun have looked and wait for the load: this one came after them."""
    await cache.fetch(space, "last in line", 60, Shelf().load)


async def test_a_hundred_at_once_load_once(cache: Cache, space: str, shelf: Shelf) -> None:
    await in_line(cache, space)
    shelf.hold()
    fetches = [asyncio.create_task(cache.fetch(space, "a", 60, shelf.load)) for _ in range(100)]
    await in_line(cache, space)

    shelf.may_answer.set()

    assert await asyncio.gather(*fetches) == [b"old"] * 100
    assert shelf.asked == 1


async def test_the_first_caller_may_leave_and_the_others_get_their_answer(
    cache: Cache, space: str, shelf: Shelf
) -> None:
    shelf.hold()
    first = asyncio.create_task(cache.fetch(space, "a", 60, shelf.load))
    await shelf.reading.wait()
    others = [asyncio.create_task(cache.fetch(space, "a", 60, shelf.load)) for _ in range(3)]
    await in_line(cache, space)

    first.cancel()
    await asyncio.wait([first])
    shelf.may_answer.set()

    assert first.cancelled()
    assert await asyncio.gather(*others) == [b"old"] * 3
    assert shelf.asked == 1


async def test_a_failing_load_fails_those_who_wait_and_keeps_nothing(
    cache: Cache, space: str, shelf: Shelf
) -> None:
    fetches = [cache.fetch(space, "a", 60, burn) for _ in range(3)]

    outcomes = await asyncio.gather(*fetches, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [Burnt] * 3
    assert await cache.fetch(space, "a", 60, shelf.load) == b"old"


@pytest.fixture
async def complaints() -> AsyncIterator[list[object]]:
    """What asyncio says about errors that nobody took."""
    heard: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, what: heard.append(what))
    yield heard
    loop.set_exception_handler(None)


async def test_a_failure_that_nobody_waits_for_any_more_is_quiet(
    cache: Cache, space: str, shelf: Shelf, complaints: list[object]
) -> None:
    over = asyncio.Event()

    async def burn_late() -> bytes | None:
        await shelf.load()
        over.set()
        raise Burnt

    shelf.hold()
    fetch = asyncio.create_task(cache.fetch(space, "a", 60, burn_late))
    await shelf.reading.wait()
    fetch.cancel()
    await asyncio.wait([fetch])
    shelf.may_answer.set()
    await over.wait()
    await in_line(cache, space)
    gc.collect()

    assert complaints == []


@pytest.mark.parametrize("what", ["key", "space"])
async def test_a_forget_wins_over_a_load_that_began_before_it(
    cache: Cache, space: str, shelf: Shelf, what: str
) -> None:
    shelf.hold()
    early = asyncio.create_task(cache.fetch(space, "a", 60, shelf.load))
    await shelf.reading.wait()
    shelf.value = b"new"

    await (cache.forget(space, ["a"]) if what == "key" else cache.forget_space(space))
    shelf.may_answer.set()

    assert await early == b"old"
    assert await cache.fetch(space, "a", 60, shelf.load) == b"new"
    assert await cache.fetch(space, "a", 60, shelf.load) == b"new"
    assert shelf.asked == 2


@pytest.mark.parametrize("what", ["key", "space"])
async def test_who_comes_after_a_forget_does_not_wait_for_the_old_load(
    cache: Cache, space: str, shelf: Shelf, what: str
) -> None:
    old, new = Shelf(b"old"), Shelf(b"new")
    old.hold()
    early = asyncio.create_task(cache.fetch(space, "a", 60, old.load))
    await old.reading.wait()
    await (cache.forget(space, ["a"]) if what == "key" else cache.forget_space(space))

    assert await cache.fetch(space, "a", 60, new.load) == b"new"
    old.may_answer.set()

    assert await early == b"old"
    assert await cache.fetch(space, "a", 60, new.load) == b"new"
    assert new.asked == 1


async def test_hits_and_misses_are_counted(cache: Cache, space: str, shelf: Shelf) -> None:
    for _ in range(5):
        await cache.fetch(space, "a", 60, shelf.load)

    assert counted(space, "near" if isinstance(cache, NearCache) else "hit") == 4
    assert counted(space, "miss") == 1


def counted(space: str, outcome: str) -> float | None:
    return REGISTRY.get_sample_value("markethall_cache_total", {"cache": space, "outcome": outcome})


# in the process


async def test_in_the_process_a_value_lives_for_its_time() -> None:
    clock, shelf = Clock(), Shelf()
    cache = ProcessCache(10, clock)
    await cache.fetch("s", "a", 60, shelf.load)
    shelf.value = b"new"

    clock.now += 59.9
    assert await cache.fetch("s", "a", 60, shelf.load) == b"old"
    clock.now += 0.1
    assert await cache.fetch("s", "a", 60, shelf.load) == b"new"


async def test_in_the_process_the_longest_unused_goes_first() -> None:
    cache, shelf = ProcessCache(max_entries=3), Shelf()
    for key in "abc":
        await cache.fetch("s", key, 60, shelf.load)
    cache.peek("s", "a")

    await cache.fetch("s", "d", 60, shelf.load)

    assert [key for key in "abcd" if cache.peek("s", key)] == ["a", "c", "d"]


async def test_in_the_process_memory_is_bounded_by_bytes_too() -> None:
    cache, shelf = ProcessCache(max_bytes=10_000), Shelf(b"x" * 2_000)
    for key in "abcdefgh":
        await cache.fetch("s", key, 60, shelf.load)
    giant = Shelf(b"x" * 20_000)

    assert [key for key in "abcdefgh" if cache.peek("s", key)] == ["e", "f", "g", "h"]
    assert await cache.fetch("s", "giant", 60, giant.load) == giant.value
    assert cache.peek("s", "giant") is None


async def test_in_the_process_what_replaces_a_value_is_weighed_once() -> None:
    clock = Clock()
    cache, shelf = ProcessCache(10, clock, max_bytes=5_000), Shelf(b"x" * 2_000)
    await cache.fetch("s", "other", 3600, shelf.load)

    for _ in range(100):
        await cache.fetch("s", "a", 1, shelf.load)
        clock.now += 1

    assert cache.peek("s", "other") is not None


async def test_a_peek_finds_what_is_there_without_waiting(space: str, shelf: Shelf) -> None:
    cache = ProcessCache()
    assert cache.peek(space, "a") is None

    await cache.fetch(space, "a", 60, shelf.load)

    assert cache.peek(space, "a") == b"old"
    await cache.forget_space(space)
    assert cache.peek(space, "a") is None


async def test_without_a_cache_every_fetch_loads(space: str, shelf: Shelf) -> None:
    cache = NoCache()

    for _ in range(3):
        assert await cache.fetch(space, "a", 60, shelf.load) == b"old"

    assert shelf.asked == 3
    assert cache.peek(space, "a") is None


async def test_the_setting_and_the_redis_choose_the_cache(clients: list[RedisClient]) -> None:
    nowhere = RedisClient(None)

    assert isinstance(open_cache("off", clients[0]), NoCache)
    assert isinstance(open_cache("on", clients[0]), ToldCache)
    assert isinstance(open_cache("on", nowhere), ProcessCache)


# in Redis


@pytest.fixture
async def two(clients: list[RedisClient]) -> AsyncIterator[tuple[RedisCache, RedisCache]]:
    here, there = RedisCache(clients[0]), RedisCache(clients[1])
    yield here, there
    await here.close()
    await there.close()


Two = tuple[RedisCache, RedisCache]


async def test_processes_share_what_one_of_them_loaded(two: Two, space: str, shelf: Shelf) -> None:
    here, there = two
    await here.fetch(space, "a", 60, shelf.load)

    assert await there.fetch(space, "a", 60, shelf.load) == b"old"
    assert shelf.asked == 1


@pytest.mark.parametrize("what", ["key", "space"])
async def test_what_one_process_forgets_the_next_fetch_of_the_other_loads(
    two: Two, space: str, shelf: Shelf, what: str
) -> None:
    here, there = two
    await there.fetch(space, "a", 60, shelf.load)
    shelf.value = b"new"

    await (here.forget(space, ["a"]) if what == "key" else here.forget_space(space))

    assert await there.fetch(space, "a", 60, shelf.load) == b"new"


@pytest.mark.parametrize("what", ["key", "space"])
async def test_a_forget_elsewhere_wins_over_a_load_here(
    two: Two, space: str, shelf: Shelf, what: str
) -> None:
    here, there = two
    shelf.hold()
    early = asyncio.create_task(here.fetch(space, "a", 60, shelf.load))
    await shelf.reading.wait()
    fresh = Shelf(b"new")

    await (there.forget(space, ["a"]) if what == "key" else there.forget_space(space))
    joined = await here.fetch(space, "a", 60, fresh.load)
    shelf.may_answer.set()

    assert joined == b"new"
    assert await early == b"old"
    assert [await cache.fetch(space, "a", 60, fresh.load) for cache in two] == [b"new"] * 2
    assert fresh.asked == 1


async def test_a_forget_of_many_keys_reaches_each(two: Two, space: str) -> None:
    here, there = two
    keys = [str(number) for number in range(2500)]
    old, new = Shelf(b"old"), Shelf(b"new")
    for key in keys[::250]:
        await there.fetch(space, key, 60, old.load)

    await here.forget(space, keys)

    for key in keys[::250]:
        assert await there.fetch(space, key, 60, new.load) == b"new"


async def test_a_load_that_outlived_its_tombstone_keeps_nothing(
    clients: list[RedisClient], space: str, shelf: Shelf
) -> None:
    clock = Clock()
    cache = RedisCache(clients[0], clock)

    async def endless() -> bytes | None:
        clock.now += 30
        return await shelf.load()

    for _ in range(2):
        assert await cache.fetch(space, "a", 60, endless) == b"old"

    assert shelf.asked == 2


async def test_in_redis_values_and_tombstones_expire(
    clients: list[RedisClient], two: Two, space: str, shelf: Shelf
) -> None:
    await two[0].fetch(space, "a", 60, shelf.load)
    await two[0].forget(space, ["b"])

    lives = [await clients[1].run("PTTL", f"markethall:cache:{{{space}}}:{key}") for key in "ab"]

    assert all(30_000 < life <= 60_000 for life in lives)


async def test_what_others_wrote_under_our_names_is_no_answer(
    clients: list[RedisClient], two: Two, space: str, shelf: Shelf
) -> None:
    name = f"markethall:cache:{{{space}}}"
    for command in (
        ("SET", f"{name}:a", "foreign"),
        ("RPUSH", f"{name}:b", "a", "list"),
        ("SET", f"{name}x", "a generation of no form"),
        ("RPUSH", f"{name}y", "no generation"),
    ):
        await clients[1].run(*command)

    for key in "ab":
        assert await two[0].fetch(space, key, 60, shelf.load) == b"old"
    for other in "xy":
        assert await two[0].fetch(space + other, "a", 60, shelf.load) == b"old"


# reads
