"""A cache of this process in front of one that processes share."""

from collections.abc import Sequence
from typing import Final

from markethall.shared.breaker import Seconds
from markethall.shared.cache.ports import Cache, Load
from markethall.shared.cache.process import ProcessCache

# seconds: so old at most is what another process has changed
NEAR: Final = 1.0


class NearCache:
    """What is popular is asked of the far cache once in a while, whoever asks here.

    A forget is at once for all who ask here; a ToldCache hears of those of other processes.
    """

    def __init__(self, far: Cache, near: ProcessCache) -> None:
        self._far = far
        self.near = near

    @classmethod
    def before(cls, far: Cache, clock: Seconds) -> "NearCache":
        return cls(far, ProcessCache(clock=clock, longest=NEAR, outcomes=("near", "far")))

    async def fetch(self, space: str, key: str, ttl: float, load: Load) -> bytes | None:
        async def from_afar() -> bytes | None:
            return await self._far.fetch(space, key, ttl, load)

        return await self.near.fetch(space, key, ttl, from_afar)

    async def forget(self, space: str, keys: Sequence[str]) -> None:
        # the far one first: else what is read there meanwhile would be kept here
        await self._far.forget(space, keys)
        await self.near.forget(space, keys)

    async def forget_space(self, space: str) -> None:
        await self._far.forget_space(space)
        await self.near.forget_space(space)

    def peek(self, space: str, key: str) -> bytes | None:
        return self.near.peek(space, key)

    async def listen(self) -> None:
        """Nobody rings: a ToldCache hears for it."""

    async def close(self) -> None:
        await self.near.close()
        await self._far.close()
