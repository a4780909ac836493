"""Bulkhead for reservations of one product."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

MAX_CONCURRENT_PER_PRODUCT: Final = 10
MAX_WAIT_SECONDS: Final = 0.2


class ProductConcurrencyLimiter:
    """Limits the concurrent reservations of one product in this process, in FIFO order.

    Callers wait without a connection, so that a hot product leaves half of the pool to others, and
    fewer transactions queue for its row. It is no lock: after `max_wait_seconds` a caller proceeds.
    """

    def __init__(
        self,
        max_concurrent: int = MAX_CONCURRENT_PER_PRODUCT,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
    ) -> None:
        self._max_concurrent = max_concurrent
        self._max_wait_seconds = max_wait_seconds
        self._slots_by_product: dict[UUID, _ProductSlots] = {}

    @asynccontextmanager
    async def slot(self, product_id: UUID) -> AsyncIterator[None]:
        slots = self._slots_by_product.get(product_id)
        if slots is None:
            slots = self._slots_by_product[product_id] = _ProductSlots(self._max_concurrent)
        slots.users += 1
        try:
            is_acquired = await slots.acquire(self._max_wait_seconds)
            try:
                yield
            finally:
                if is_acquired:
                    slots.semaphore.release()
        finally:
            slots.users -= 1
            if not slots.users:
                del self._slots_by_product[product_id]


class _ProductSlots:
    def __init__(self, max_concurrent: int) -> None:
        self.semaphore = asyncio.Semaphore(max_concurrent)
        self.users = 0

    async def acquire(self, seconds: float) -> bool:
        """False when the wait timed out."""
        if not self.semaphore.locked():
            return await self.semaphore.acquire()
        try:
            async with asyncio.timeout(seconds):
                return await self.semaphore.acquire()
        except TimeoutError:
            return False
