"""The cache in this process."""

import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markethall.shared.breaker import Seconds
from markethall.shared.cache.flights import Flight, Flights
from markethall.shared.cache.ports import Counters, Forgotten, Load, Name

_MIB = 1024 * 1024
_ENTRY_BYTES = 300  # what dictionary, tuples and texts take beside what is in them
_RENEWED = 0.8  # of its life


class _Entry(NamedTuple):
    expires_at: float
    renew_at: float
    generation: int
    value: bytes


class ProcessCache:
    """Bounded by entries and by bytes; the least recently used go first.

    A value lives for its `ttl`, or for `longest` seconds if that is less: where nobody tells what
    other processes forget (see ToldCache). In the last fifth of its life a value is still given
    to all, while the first who asks has it renewed: what is popular is never waited for.
    """

    def __init__(
        self,
        max_entries: int = 10_000,
        clock: Seconds = time.monotonic,
        max_bytes: int = 64 * _MIB,
        longest: float = math.inf,
        outcomes: tuple[str, str] = ("hit", "miss"),
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self.longest = longest
        self._entries: OrderedDict[Name, _Entry] = OrderedDict()
        self._generations: dict[str, int] = {}
        self._bytes = 0
        self._flights = Flights()
        self._hits = Counters(outcomes[0])
        self._misses = Counters(outcomes[1])

    async def fetch(self, space: str, key: str, ttl: float, load: Load) -> bytes | None:
        name = (space, key)

        async def fly(flight: Flight) -> bytes | None:
            value = await load()
            if value is not None and not flight.forgotten:
                self._keep(name, min(ttl, self.longest), value)
            return value

        entry = self._find(name)
        if entry is None:
            self._misses[space].inc()
            return await self._flights.join(name, None, fly)
        if entry.renew_at <= self._clock():
            self._flights.begin(name, fly)
        self._hits[space].inc()
        return entry.value

    async def forget(self, space: str, keys: Sequence[str]) -> None:
        self.forget_now([(space, key) for key in keys])

    async def forget_space(self, space: str) -> None:
        self.forget_now([(space, None)])

    def forget_now(self, names: Iterable[Forgotten]) -> None:
        for space, key in names:
            if key is None:
                self._forget_space(space)
            else:
                self._flights.forget((space, key))
                self._drop((space, key))

    def forget_all(self) -> None:
        self._flights.forget_all()
        self._entries.clear()
        self._bytes = 0

    def _forget_space(self, space: str) -> None:
        self._flights.forget_space(space)
        # what is left of older generations is never read again, and goes as the oldest
        self._generations[space] = self._generations.get(space, 0) + 1

    def peek(self, space: str, key: str) -> bytes | None:
        entry = self._find((space, key))
        if entry is None or entry.renew_at <= self._clock():
            return None
        self._hits[space].inc()
        return entry.value

    async def listen(self) -> None:
        """There is nobody else."""

    async def close(self) -> None:
        await self._flights.close()

    def _find(self, name: Name) -> "_Entry | None":
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry.expires_at <= self._clock() or entry.generation != self._generations.get(
            name[0], 0
        ):
            self._drop(name)
            return None
        self._entries.move_to_end(name)
        return entry

    def _keep(self, name: Name, ttl: float, value: bytes) -> None:
        self._drop(name)
        now, generation = self._clock(), self._generations.get(name[0], 0)
        self._entries[name] = _Entry(now + ttl, now + ttl * _RENEWED, generation, value)
        self._bytes += _weight(name, value)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, name: Name) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._bytes -= _weight(name, entry.value)


def _weight(name: Name, value: bytes) -> int:
    return _ENTRY_BYTES + len(name[1]) + len(value)
