"""A bulkhead: a limit on concurrent reservations of one product."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

MAX_CONCURRENT_PER_PRODUCT: Final = 10
MAX_WAIT_SECONDS: Final = 0.2


class ProductConcurrencyLimiter:
    """Limit the concurrent reservations of one product in this process.

    Reservations of a product wait for the lock of one stock row. Without the limit, those of a
    popular product would occupy all database connections. Callers wait here in FIFO order, without
    a connection. After `max_wait_seconds` a caller proceeds without a slot, because the limit only
    protects the connection pool.
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
        """Wait for a slot. Return False after a timeout."""
        if not self.semaphore.locked():
            return await self.semaphore.acquire()
        try:
            async with asyncio.timeout(seconds):
                return await self.semaphore.acquire()
        except TimeoutError:
            return False
