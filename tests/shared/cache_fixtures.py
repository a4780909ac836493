"""A clock and a data source for the tests of the cache."""

import asyncio


class Clock:
    """Seconds that pass only when a test adds them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Source:
    """The data behind a cache; counts its loads, and can keep them waiting."""

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
