"""Periodic job of carts: delete carts that have not changed for a long time."""

from datetime import UTC, datetime, timedelta
from typing import Final

from markethall.orders.carts.ports import ReadStore, Store
from markethall.orders.carts.service.editor import CartPolicy
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.database import Database

_BATCH_SIZE: Final = 200
# carts are kept for days, so their deletion may be late by this time
_INTERVAL: Final = timedelta(minutes=10)


class ExpiredCartsJob:
    def __init__(
        self, database: Database[ReadStore, Store], policy: CartPolicy, clock: Clock
    ) -> None:
        self._database = database
        self._policy = policy
        self._clock = clock
        self._next_run = datetime.min.replace(tzinfo=UTC)

    async def run_once(self) -> None:
        """Delete all expired carts, in batches, once per interval. Their orders stay."""
        now = self._clock()
        # if the next run is more than one interval away, the clock was set back: run now
        if now < self._next_run <= now + _INTERVAL:
            return
        while await self._delete_batch(now) == _BATCH_SIZE:
            pass
        self._next_run = now + _INTERVAL

    async def _delete_batch(self, now: datetime) -> int:
        async with self._database.transaction() as store:
            return await store.delete_expired_carts(
                now - self._policy.guest_retention,
                now - self._policy.customer_retention,
                _BATCH_SIZE,
            )
