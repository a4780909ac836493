"""Who waits in line for what everybody wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

MAX_CONCURRENT_PER_PRODUCT: Final = 10
MAX_WAIT_SECONDS: Final = 0.2


class ProductConcurrencyLimiter:
    """Some at a time take of one product; the others of this process come after them, in order.

    They wait without a connection: the crowd around one product leaves half of the pool to who
    wants something else, and twenty that wait for one row make Postgres work more than ten do. A
    turn is a courtesy and no lock: who has waited `patience` seconds goes ahead.
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
        """Whether it is our turn; if not, we have waited long enough."""
        if not self.semaphore.locked():
            return await self.semaphore.acquire()
        try:
            async with asyncio.timeout(seconds):
                return await self.semaphore.acquire()
        except TimeoutError:
            return False
