"""A cache that is told what the other processes forget."""

import math
from collections.abc import Sequence

from markethall.shared.cache.near import NEAR
from markethall.shared.cache.ports import Bell, Cache, Forgotten, Load
from markethall.shared.cache.process import ProcessCache


class ToldCache:
    """`near` is the part of `cache` that lies in this process, or all of it.

    While others can be heard a value lives there for its `ttl`, else for a second. Whenever that
    changes all is forgotten: something may have been missed.
    """

    def __init__(self, cache: Cache, near: ProcessCache, bell: Bell) -> None:
        self._cache = cache
        self._near = near
        self._bell = bell

    async def fetch(self, space: str, key: str, ttl: float, load: Load) -> bytes | None:
        return await self._cache.fetch(space, key, ttl, load)

    def peek(self, space: str, key: str) -> bytes | None:
        return self._cache.peek(space, key)

    async def close(self) -> None:
        await self._bell.close()
        await self._cache.close()

    async def forget(self, space: str, keys: Sequence[str]) -> None:
        await self._cache.forget(space, keys)
        self._bell.ring([(space, key) for key in keys])

    async def forget_space(self, space: str) -> None:
        await self._cache.forget_space(space)
        self._bell.ring([(space, None)])

    async def listen(self) -> None:
        await self._bell.listen(self)

    def heard(self, names: Sequence[Forgotten]) -> None:
        self._near.forget_now(names)

    def hears(self, now: bool) -> None:
        self._near.longest = math.inf if now else NEAR
        self._near.forget_all()
