"""A clock, a data source and connections for the tests of the cache."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from markethall.shared.persistence.postgres import PoolSize, Postgres
from markethall.shared.persistence.redis_client import RedisClient

# the maximum number of polls, 5 ms apart; only a failing test needs all of them
MAX_ATTEMPTS = 1000


class Clock:
    """A clock, in seconds, that only a test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Source:
    """A data source of a cache. It counts its loads, and a test can block them."""

    def __init__(self, value: bytes | None = b"old") -> None:
        self.value = value
        self.loads = 0
        self.reading = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def load(self) -> bytes | None:
        self.loads += 1
        value = self.value
        self.reading.set()
        await self.may_answer.wait()
        return value

    def block(self) -> None:
        self.reading.clear()
        self.may_answer.clear()


class Connections(NamedTuple):
    """The connections of one process.

    The invalidation bus uses Postgres if `redis` has no URL.
    """

    redis: RedisClient
    postgres: Postgres

    async def close(self) -> None:
        await self.redis.close()
        await self.postgres.close()


def open_connections(bus_url: str, database_url: str) -> Connections:
    """Return connections with long timeouts, for slow machines."""
    redis = RedisClient(bus_url if bus_url.startswith("redis") else None, timeout=30)
    return Connections(redis, Postgres(database_url, PoolSize(1, 2, 30)))


async def until(condition: Callable[[], bool], attempts: int = MAX_ATTEMPTS) -> None:
    for _ in range(attempts):
        if condition():
            return
        await asyncio.sleep(0.005)  # the poll interval
    raise AssertionError("it did not happen")
