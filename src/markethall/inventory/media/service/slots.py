"""Limits how much work of one kind runs at the same time in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from markethall.shared.kernel.errors import Overloaded
from markethall.shared.kernel.wait_budget import MAX_WAIT_SECONDS, wait_within_budget


class WorkSlots:
    """A limited number of slots, and at most `max_waiting` tasks that wait for one."""

    def __init__(self, slots: int, max_waiting: int) -> None:
        self._semaphore = asyncio.Semaphore(slots)
        self._max_waiting = max_waiting
        self._waiting = 0

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold a slot during the block.

        Raises Overloaded if too many tasks wait, or after two seconds of waiting.
        """
        await self._acquire()
        try:
            yield
        finally:
            self._semaphore.release()

    async def _acquire(self) -> None:
        if self._semaphore.locked() and self._waiting >= self._max_waiting:
            raise Overloaded(retry_after=1)
        self._waiting += 1
        try:
            await wait_within_budget(self._semaphore.acquire(), MAX_WAIT_SECONDS)
        except TimeoutError:
            raise Overloaded(retry_after=1) from None
        finally:
            self._waiting -= 1
