"""The cache of a process before the one that processes share, and what it renews in time."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import pytest

from markethall.shared.cache import NearCache, ProcessCache, open_cache
from markethall.shared.redis import RedisClient

SPACE = "test.near"


class Hand:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Shop:
    """Says a price, and counts how often it was asked."""

    def __init__(self) -> None:
        self.price = b"1"
        self.asked = 0

    async def load(self) -> bytes | None:
        self.asked += 1
        return self.price


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def doors(hand: Hand) -> tuple[NearCache, NearCache]:
    """Two processes and what they share."""
    far = ProcessCache(clock=hand)
    return NearCache.before(far, hand), NearCache.before(far, hand)


async def landed() -> None:
    """What was begun in the background has come."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_another_process_sees_a_change_within_a_second(
    doors: tuple[NearCache, NearCache], hand: Hand, shop: Shop
) -> None:
    mine, theirs = doors
    for door in doors:
        assert await door.fetch(SPACE, "a", 60, shop.load) == b"1"

    shop.price = b"2"
    await mine.forget(SPACE, ["a"])

    assert await mine.fetch(SPACE, "a", 60, shop.load) == b"2"
    assert theirs.peek(SPACE, "a") == b"1"
    hand.now = 1.0
    assert theirs.peek(SPACE, "a") is None
    assert await theirs.fetch(SPACE, "a", 60, shop.load) == b"2"
    assert shop.asked == 2


async def test_a_space_is_forgotten_near_and_far(
    doors: tuple[NearCache, NearCache], hand: Hand, shop: Shop
) -> None:
    mine, theirs = doors
    for door in doors:
        await door.fetch(SPACE, "a", 60, shop.load)

    shop.price = b"2"
    await mine.forget_space(SPACE)

    assert await mine.fetch(SPACE, "a", 60, shop.load) == b"2"
    hand.now = 1.0
    assert await theirs.fetch(SPACE, "a", 60, shop.load) == b"2"


async def test_what_is_read_far_while_it_is_forgotten_is_not_kept_near(
    hand: Hand, shop: Shop
) -> None:
    class Slow(ProcessCache):
        """Somebody reads between the two steps of a forget."""

        async def forget(self, space: str, keys: Sequence[str]) -> None:
            assert await door.fetch(space, "a", 60, shop.load) == b"1"
            await super().forget(space, keys)

    far = Slow(clock=hand)
    door = NearCache.before(far, hand)
    await door.fetch(SPACE, "a", 60, shop.load)

    shop.price = b"2"
    await door.forget(SPACE, ["a"])

    assert await door.fetch(SPACE, "a", 60, shop.load) == b"2"


async def test_what_is_popular_is_renewed_by_one_and_waited_for_by_none(
    hand: Hand, shop: Shop
) -> None:
    cache = ProcessCache(clock=hand)
    await cache.fetch(SPACE, "a", 10, shop.load)
    shop.price = b"2"

    hand.now = 8.0
    late = [await cache.fetch(SPACE, "a", 10, shop.load) for _ in range(5)]
    assert cache.peek(SPACE, "a") is None
    await landed()

    assert late == [b"1"] * 5
    assert shop.asked == 2
    assert cache.peek(SPACE, "a") == b"2"


async def test_a_forget_wins_over_a_renewal_that_began_before_it(hand: Hand, shop: Shop) -> None:
    cache = ProcessCache(clock=hand)
    await cache.fetch(SPACE, "a", 10, shop.load)
    hand.now = 8.0
    await cache.fetch(SPACE, "a", 10, shop.load)

    await cache.forget(SPACE, ["a"])
    await landed()

    assert cache.peek(SPACE, "a") is None


async def test_a_renewal_that_fails_leaves_what_is_there(hand: Hand, shop: Shop) -> None:
    cache = ProcessCache(clock=hand)
    await cache.fetch(SPACE, "a", 10, shop.load)

    async def broken() -> bytes | None:
        raise OSError

    hand.now = 8.0
    assert await cache.fetch(SPACE, "a", 10, broken) == b"1"
    await landed()

    assert await cache.fetch(SPACE, "a", 10, shop.load) == b"1"


async def test_without_redis_nothing_is_older_than_a_second() -> None:
    cache = open_cache("on", RedisClient(None))
    assert isinstance(cache, ProcessCache)

    assert cache.longest == 1.0
    key = uuid4().hex
    assert await cache.fetch(SPACE, key, 60, Shop().load) == b"1"
