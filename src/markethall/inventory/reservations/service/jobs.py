"""Holds that nobody paid for in time."""

from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar
from uuid import UUID

from markethall.inventory.catalogue.ports.products import ProductCache
from markethall.inventory.stock.domain.stock import InsufficientStock
from markethall.inventory.store_ports import Database, Store
from markethall.shared.kernel.clock import Clock

T = TypeVar("T")

_BATCH_SIZE: Final = 50


class ReservationExpiry:
    """Gives back what expired holds have: in the background, and at once when it is needed."""

    def __init__(self, database: Database, cache: ProductCache, clock: Clock) -> None:
        self._database = database
        self._cache = cache
        self._clock = clock

    async def run_once(self) -> None:
        """All that are overdue now, in small transactions."""
        await self.expire_reservations(None)

    async def run_after_expiring(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """The work, in a transaction; once more without expired holds when they stand in its way.

        `work` raises InsufficientStock for goods that are not there. Raises its refusal.
        """
        try:
            async with self._database.transaction() as store:
                return await work(store)
        except InsufficientStock as shortage:
            if shortage.is_final:
                raise shortage.error from None
            await self.expire_reservations(shortage.product_ids)
        return await self._run_again(work)

    async def _run_again(self, work: Callable[[Store], Awaitable[T]]) -> T:
        try:
            async with self._database.transaction() as store:
                return await work(store)
        except InsufficientStock as shortage:
            raise shortage.error from None

    async def expire_reservations(self, product_ids: Collection[UUID] | None) -> None:
        """What expired holds have of these products, or of any."""
        now = self._clock()
        while True:
            async with self._database.transaction() as store:
                expired = await store.expire_reservations(now, _BATCH_SIZE, product_ids)
                await store.release_stock(expired.quantities)
            changed_product_ids = [
                stock_quantity.product_id for stock_quantity in expired.quantities
            ]
            self._cache.invalidate(changed_product_ids, pages=False)
            if expired.count < _BATCH_SIZE:
                return
