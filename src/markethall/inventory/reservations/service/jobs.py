"""Expire reservations whose orders were not paid in time."""

from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar
from uuid import UUID

from markethall.inventory.catalogue.ports import ProductCache
from markethall.inventory.reservations.ports import ReadStore, Store
from markethall.inventory.stock.domain import InsufficientStock
from markethall.shared.kernel.clock import Clock
from markethall.shared.observability.metrics import RESERVATIONS_EXPIRED
from markethall.shared.persistence.database import Database

T = TypeVar("T")

_BATCH_SIZE: Final = 50


class ReservationExpiryJob:
    """Expire overdue reservations and release their stock, periodically and on request.

    Implementation of `ReservationExpiry`.
    """

    def __init__(
        self, database: Database[ReadStore, Store], cache: ProductCache, clock: Clock
    ) -> None:
        self._database = database
        self._cache = cache
        self._clock = clock

    async def run_once(self) -> None:
        """Expire all overdue reservations, in batches."""
        await self.expire_reservations(None)

    async def run_after_expiring(self, work: Callable[[Store], Awaitable[T]]) -> T:
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
        now = self._clock()
        while True:
            async with self._database.transaction() as store:
                expired = await store.expire_reservations(now, _BATCH_SIZE, product_ids)
                await store.release_stock(expired.quantities)
            RESERVATIONS_EXPIRED.inc(expired.count)
            changed_product_ids = [
                stock_quantity.product_id for stock_quantity in expired.quantities
            ]
            self._cache.invalidate(changed_product_ids, pages=False)
            if expired.count < _BATCH_SIZE:
                return
