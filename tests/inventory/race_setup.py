"""The setup of race tests: inventory on Postgres, with a direct or a slow connection."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg

from markethall.inventory.contract import (
    OutOfStock,
    ReservationStatus,
    ReservationView,
    Reserve,
)
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.conftest import plain
from tests.inventory.conftest import ANYONE, InventoryApp, build_inventory_app, consume_command
from tests.inventory.stock_invariants import (
    deadlocks,
    invariant_violations,
    wait_until_disconnected,
)
from tests.proxy import Mode, Proxy

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]

# The pool sizes of the application. The timeout is longer (30 s), because a hundred buyers wait for
# twenty connections, and the test machine may be slow.
POOL: Final = PoolSize(min_size=5, max_size=20, timeout=30)


@dataclass
class RaceSetup:
    """Inventory on Postgres. `latency` is the delay in each direction, in seconds."""

    inventory_app: InventoryApp
    driver: "Driver"
    postgres: Postgres
    latency: float

    async def invariants_hold(self) -> bool:
        """Return True, or raise AssertionError with the names of the violated invariants."""
        if violations := await invariant_violations(self.driver):
            raise AssertionError(violations)
        return True

    async def reserve(self, *requests: dict[UUID, int]) -> list[ReservationView | OutOfStock]:
        """Reserve all requests concurrently, each for a different customer."""
        return await self.reserve_all([self.inventory_app.order(request) for request in requests])

    async def reserve_all(self, orders: Iterable[Reserve]) -> list[ReservationView | OutOfStock]:
        calls = [self.inventory_app.inventory.reserve(ANYONE, order) for order in orders]
        return [_expected_outcome(outcome) for outcome in await run_concurrently(calls)]

    async def commit_and_consume(self, reservation: ReservationView) -> None:
        paid = await self.inventory_app.inventory.commit(ANYONE, reservation.reservation_id)
        requested = {line.product_id: line.quantity for line in paid.lines}
        await self.inventory_app.inventory.consume(
            ANYONE, consume_command(paid.reservation_id, requested)
        )

    async def status(self, reservation_id: UUID) -> ReservationStatus:
        value = await self.driver.fetchval(
            "SELECT status FROM inventory.reservation WHERE reservation_id = $1", reservation_id
        )
        return ReservationStatus(value)


@asynccontextmanager
async def open_race_setup(database_url: str, latency: float) -> AsyncIterator[RaceSetup]:
    """Open a setup. Raises AssertionError after the block if a deadlock occurred during it."""
    application = f"race-{new_id().hex}"
    async with AsyncExitStack() as stack:
        driver = await asyncpg.connect(plain(database_url))
        stack.push_async_callback(driver.close)
        url = database_url
        if latency:
            url, proxy = await stack.enter_async_context(slow_connection_to(database_url, latency))
            await proxy.switch(Mode.DELAY)
        postgres = Postgres(url, POOL, application_name=application)
        before = await deadlocks(driver)
        try:
            yield RaceSetup(build_inventory_app("sql", postgres), driver, postgres, latency)
        finally:
            await postgres.close()
            await wait_until_disconnected(driver, application)
        if deadlock_count := await deadlocks(driver) - before:
            raise AssertionError(f"{deadlock_count} deadlocks")


async def run_concurrently(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Run the calls concurrently. Return the result or the exception of each call."""
    return await asyncio.gather(*calls, return_exceptions=True)


def successful_reservations(
    outcomes: Sequence[ReservationView | OutOfStock],
) -> list[ReservationView]:
    return [outcome for outcome in outcomes if isinstance(outcome, ReservationView)]


def units_by_product(reservations: Iterable[ReservationView]) -> Counter[UUID]:
    total: Counter[UUID] = Counter()
    for reservation in reservations:
        total.update({line.product_id: line.quantity for line in reservation.lines})
    return total


def _expected_outcome(outcome: Any) -> ReservationView | OutOfStock:
    """Return a reservation or OutOfStock. Raises AssertionError for any other outcome."""
    if isinstance(outcome, ReservationView | OutOfStock):
        return outcome
    raise AssertionError(outcome) from outcome


@asynccontextmanager
async def slow_connection_to(database_url: str, latency: float) -> AsyncIterator[tuple[str, Proxy]]:
    """Open a proxy to the database, and yield the database URL through the proxy, and the proxy.

    In the mode DELAY, the proxy delays each direction by `latency` seconds.
    """
    parts = urlsplit(database_url)
    async with Proxy(parts.port or 5432, delay=latency) as proxy:
        address = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
        yield urlunsplit(parts._replace(netloc=address)), proxy
