"""The background task: delivers events, expires overdue orders, and recovers operations."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from typing import Final

import asyncpg

from .event_statements import BATCH, COMMIT_RESERVATIONS, EXPIRE_ORDERS, MARK_PAID, RELAY
from .purchases import Purchases

PERIODIC_SECONDS: Final = 15.0
# much longer than a charge takes
ABANDONED_AFTER: Final = timedelta(seconds=60)


class EventDelivery:
    """Moves events from the outbox to the inboxes, and handles them, a batch per statement.

    The statement of a handler marks the deliveries as done and has their effect, so a crash repeats
    both or none.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        # an inbox may have deliveries of a process that has crashed
        self._has_unfinished = True

    async def deliver_all(self) -> None:
        """Deliver and handle all events, and the events of their handlers."""
        has_unfinished, self._has_unfinished = self._has_unfinished, True
        has_more = True
        while has_more:
            relayed = await self._pool.fetchrow(RELAY)
            assert relayed is not None
            is_captured = relayed["captured"] or has_unfinished
            if is_captured:
                await self._handle_all(MARK_PAID)
            if relayed["paid"] or has_unfinished:
                await self._handle_all(COMMIT_RESERVATIONS)
            # MARK_PAID writes events itself
            has_more = is_captured or relayed["moved"] == BATCH
            has_unfinished = False
        self._has_unfinished = False

    async def _handle_all(self, sql: str) -> None:
        while await self._pool.fetchval(sql) == BATCH:
            pass


class BackgroundTask:
    """Runs when an event was written, and at least every `poll_seconds`."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", poll_seconds: float) -> None:
        self._pool, self._poll_seconds = pool, poll_seconds
        self._events = EventDelivery(pool)
        self._written = asyncio.Event()
        self._next_periodic = 0.0

    def notify(self) -> None:
        self._written.set()

    async def run(self, purchases: Purchases) -> None:
        """Run until cancelled. After an error of the database, try again at the next poll."""
        while True:
            self._written.clear()
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await self._run_once(purchases)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._written.wait()

    async def _run_once(self, purchases: Purchases) -> None:
        await self._events.deliver_all()
        if time.monotonic() >= self._next_periodic:
            self._next_periodic = time.monotonic() + PERIODIC_SECONDS
            await run_periodic_jobs(self._pool, purchases)


async def run_periodic_jobs(
    pool: "asyncpg.Pool[asyncpg.Record]",
    purchases: Purchases,
    abandoned_after: timedelta = ABANDONED_AFTER,
) -> None:
    """Expire overdue orders, and settle abandoned operations."""
    while await pool.fetchval(EXPIRE_ORDERS) == BATCH:
        pass
    await purchases.recover(abandoned_after)
