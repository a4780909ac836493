"""Holds that nobody paid for in time."""

from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar
from uuid import UUID

from markethall.inventory.domain import Shortage
from markethall.inventory.ports import Database, ProductCache, Store
from markethall.shared.clock import Clock

T = TypeVar("T")

_BATCH: Final = 50


class ExpiredHolds:
    """Gives back what expired holds have: in the background, and at once when it is needed."""

    def __init__(self, database: Database, cache: ProductCache, clock: Clock) -> None:
        self._database = database
        self._cache = cache
        self._clock = clock

    async def sweep(self) -> None:
        """All that are overdue now, in small transactions."""
        await self.give_back(None)

    async def without(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """The work, in a transaction; once more without expired holds when they stand in its way.

        `work` raises Shortage for goods that are not there. Raises its refusal.
        """
        try:
            async with self._database.transaction() as store:
                return await work(store)
        except Shortage as shortage:
            if shortage.final:
                raise shortage.refusal from None
            await self.give_back(shortage.product_ids)
        return await self._again(work)

    async def _again(self, work: Callable[[Store], Awaitable[T]]) -> T:
        try:
            async with self._database.transaction() as store:
                return await work(store)
        except Shortage as shortage:
            raise shortage.refusal from None

    async def give_back(self, product_ids: Collection[UUID] | None) -> None:
        """What expired holds have of these products, or of any."""
        now = self._clock()
        while True:
            async with self._database.transaction() as store:
                expired = await store.expire(now, _BATCH, product_ids)
                await store.give_back(expired.goods)
            touched = [goods.product_id for goods in expired.goods]
            self._cache.invalidate(touched, pages=False)
            if expired.count < _BATCH:
                return
