"""Bulkheads limit how many requests of one kind, or of one client, run at the same time."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog

from markethall.shared.kernel.circuit_breaker import MonotonicClock
from markethall.shared.kernel.errors import Overloaded, TooManyRequests
from markethall.shared.kernel.wait_budget import wait_within_budget
from markethall.shared.observability.metrics import REJECTED

log = structlog.get_logger("markethall.admission")

_LOG_INTERVAL_SECONDS: Final = 10.0


class RejectionLog:
    """Counts rejections, and logs at most one line in ten seconds for each reason."""

    def __init__(self, clock: MonotonicClock = time.monotonic) -> None:
        self._clock = clock
        self._unlogged: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}

    def add(self, reason: str) -> None:
        REJECTED.labels(reason).inc()
        self._unlogged[reason] += 1
        now = self._clock()
        if now - self._logged_at.get(reason, -_LOG_INTERVAL_SECONDS) >= _LOG_INTERVAL_SECONDS:
            self._logged_at[reason] = now
            log.warning("request.rejected", reason=reason, rejected=self._unlogged.pop(reason))


class Bulkhead:
    """A limited number of slots, and a FIFO queue of at most `max_waiting` requests for them.

    The queue is slow while its first request has waited for more than half of `max_wait_seconds`.
    A slow queue accepts no more requests, because most of them would wait until they time out.
    """

    def __init__(
        self,
        name: str,
        slots: int,
        rejections: RejectionLog,
        max_waiting: int = 0,
        max_wait_seconds: float = 0,
        clock: MonotonicClock = time.monotonic,
    ) -> None:
        self.name = name
        self.in_use = 0
        self._semaphore = asyncio.Semaphore(slots)
        # maps each waiting request to the time at which it began to wait, in the order of the queue
        self._waiting_since: dict[object, float] = {}
        self._rejections = rejections
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._clock = clock

    @property
    def waiting(self) -> int:
        return len(self._waiting_since)

    async def enter(self) -> None:
        """Take a slot, if necessary after a wait in the queue.

        Raises Overloaded at once if the queue is full or slow, or later if the wait takes too long.
        """
        if self._semaphore.locked():
            await self._wait()
        else:
            await self._semaphore.acquire()
        self.in_use += 1

    def refuse_if_full(self) -> None:
        """Raise Overloaded if `enter` would raise it at once."""
        if self._semaphore.locked() and (self.waiting >= self._max_waiting or self._is_slow()):
            raise self._reject()

    def leave(self) -> None:
        self.in_use -= 1
        self._semaphore.release()

    async def _wait(self) -> None:
        self.refuse_if_full()
        request = object()
        self._waiting_since[request] = self._clock()
        try:
            await wait_within_budget(self._semaphore.acquire(), self._max_wait_seconds)
        except TimeoutError:
            raise self._reject() from None
        finally:
            del self._waiting_since[request]

    def _is_slow(self) -> bool:
        first = next(iter(self._waiting_since.values()), None)
        return first is not None and self._clock() - first > self._max_wait_seconds / 2

    def _reject(self) -> Overloaded:
        self._rejections.add(self.name)
        return Overloaded(retry_after=1)


class Slots:
    """The slots of one request in several bulkheads."""

    def __init__(self, bulkheads: Sequence[Bulkhead]) -> None:
        self._bulkheads = bulkheads
        self._entered: list[Bulkhead] = []

    async def enter(self) -> None:
        """Take a slot in each bulkhead.

        Raises Overloaded. The slots taken before the error are held until `leave` is called.
        """
        for bulkhead in self._bulkheads:
            await bulkhead.enter()
            self._entered.append(bulkhead)

    @property
    def are_taken(self) -> bool:
        return bool(self._entered)

    def leave(self) -> None:
        while self._entered:
            self._entered.pop().leave()


class ClientSlots:
    """Counts the slots that each client uses, by kind. It stores nothing about idle clients."""

    def __init__(self, rejections: RejectionLog) -> None:
        self.in_use: Counter[tuple[str, str]] = Counter()
        self._rejections = rejections

    @contextmanager
    def slots(
        self, kind: str, client: str, limit: int, count: int = 1
    ) -> Iterator["HeldClientSlots"]:
        """Hold `count` slots of the client during the block.

        Raises TooManyRequests if the client would use more than `limit` slots.
        """
        key = kind, client
        if self.in_use[key] + count > limit:
            self._rejections.add("client")
            raise TooManyRequests(policy="concurrency", retry_after=1)
        slots = HeldClientSlots(self.in_use, key, count)
        slots.enter()
        try:
            yield slots
        finally:
            slots.leave()


class HeldClientSlots:
    """The slots of one client that a request holds, and may release during a long wait."""

    def __init__(self, in_use: Counter[tuple[str, str]], key: tuple[str, str], count: int) -> None:
        self._in_use = in_use
        self._key = key
        self._count = count
        self._are_held = False

    def enter(self) -> None:
        """Take the slots, without a check of the limit: only ClientSlots.slots checks it."""
        if not self._are_held:
            self._in_use[self._key] += self._count
            self._are_held = True

    def leave(self) -> None:
        if self._are_held:
            self._are_held = False
            self._in_use[self._key] -= self._count
            if not self._in_use[self._key]:
                del self._in_use[self._key]
