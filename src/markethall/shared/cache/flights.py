"""Single flight: one load for all who ask meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable

from markethall.shared.cache.ports import Name


class Flight:
    """One load under way; `forgotten` says that what it brings is old already."""

    def __init__(self, seen: object) -> None:
        self.seen = seen
        self.forgotten = False
        self.task: asyncio.Task[bytes | None]


Fly = Callable[[Flight], Awaitable[bytes | None]]


class Flights:
    """The loads under way, at most one per name that a newcomer may join.

    A load runs in a task of its own: a caller that leaves leaves nobody without an answer.
    """

    def __init__(self) -> None:
        self._joinable: dict[Name, Flight] = {}
        self._tasks: set[asyncio.Task[bytes | None]] = set()

    async def join(self, name: Name, seen: object, fly: Fly) -> bytes | None:
        """What the flight of this name brings; `seen` parts those that saw different states."""
        flight = self._joinable.get(name)
        if flight is None or flight.seen != seen:
            flight = self._start(name, seen, fly)
        return await asyncio.shield(flight.task)

    def begin(self, name: Name, fly: Fly) -> None:
        """Unless it is under way; nobody waits for it."""
        if name not in self._joinable:
            self._start(name, None, fly)

    def forget(self, name: Name) -> None:
        """Nobody joins what is under way any more."""
        flight = self._joinable.pop(name, None)
        if flight is not None:
            flight.forgotten = True

    def forget_all(self) -> None:
        for name in list(self._joinable):
            self.forget(name)

    def forget_space(self, space: str) -> None:
        for name in [name for name in self._joinable if name[0] == space]:
            self.forget(name)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, name: Name, seen: object, fly: Fly) -> Flight:
        flight = Flight(seen)
        flight.task = asyncio.create_task(self._run(name, flight, fly))
        flight.task.add_done_callback(self._landed)
        self._tasks.add(flight.task)
        self._joinable[name] = flight
        return flight

    async def _run(self, name: Name, flight: Flight, fly: Fly) -> bytes | None:
        try:
            return await fly(flight)
        finally:
            if self._joinable.get(name) is flight:
                del self._joinable[name]

    def _landed(self, task: asyncio.Task[bytes | None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, so that asyncio does not complain if everybody left
