"""Where buyers race: a house on Postgres, near or at the end of a slow line."""

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

# the pool of a hall, with more patience: on a slow line a hundred buyers wait for each other
POOL: Final = PoolSize(min_size=5, max_size=20, timeout=30)


@dataclass
class RaceSetup:
    """`late` are the seconds that every word to the database takes, and every answer."""

    inventory_app: InventoryApp
    driver: "Driver"
    postgres: Postgres
    latency: float

    async def invariants_hold(self) -> bool:
        """O1. Raises AssertionError with what does not hold."""
        if found := await invariant_violations(self.driver):
            raise AssertionError(found)
        return True

    async def reserve(self, *wants: dict[UUID, int]) -> list[ReservationView | OutOfStock]:
        """All of them at once, each a buyer of their own."""
        return await self.reserve_all([self.inventory_app.order(want) for want in wants])

    async def reserve_all(self, orders: Iterable[Reserve]) -> list[ReservationView | OutOfStock]:
        asked = [self.inventory_app.inventory.reserve(ANYONE, order) for order in orders]
        return [_expected_outcome(outcome) for outcome in await run_concurrently(asked)]

    async def commit_and_consume(self, reservation: ReservationView) -> None:
        """Paid for and sent."""
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
    """Raises AssertionError when two have waited for each other."""
    application = f"race-{new_id().hex}"
    async with AsyncExitStack() as stack:
        driver = await asyncpg.connect(plain(database_url))
        stack.push_async_callback(driver.close)
        url = database_url
        if latency:
            url, line = await stack.enter_async_context(slow_connection_to(database_url, latency))
            await line.switch(Mode.DELAY)
        postgres = Postgres(url, POOL, application_name=application)
        before = await deadlocks(driver)
        try:
            yield RaceSetup(build_inventory_app("sql", postgres), driver, postgres, latency)
        finally:
            await postgres.close()
            await wait_until_disconnected(driver, application)
        if met := await deadlocks(driver) - before:
            raise AssertionError(f"{met} deadlocks")


async def run_concurrently(asked: Iterable[Awaitable[Any]]) -> list[Any]:
    """Everybody's outcome: what came back, or what was raised."""
    return await asyncio.gather(*asked, return_exceptions=True)


def successful_reservations(
    outcomes: Sequence[ReservationView | OutOfStock],
) -> list[ReservationView]:
    return [one for one in outcomes if isinstance(one, ReservationView)]


def units_by_product(won: Iterable[ReservationView]) -> Counter[UUID]:
    """By product."""
    total: Counter[UUID] = Counter()
    for reservation in won:
        total.update({line.product_id: line.quantity for line in reservation.lines})
    return total


def _expected_outcome(outcome: Any) -> ReservationView | OutOfStock:
    """Either the goods, or the news that they are gone: there is no third answer."""
    if isinstance(outcome, ReservationView | OutOfStock):
        return outcome
    raise AssertionError(outcome) from outcome


@asynccontextmanager
async def slow_connection_to(database_url: str, latency: float) -> AsyncIterator[tuple[str, Proxy]]:
    """The same database at the end of a line that delays its words once it is switched so."""
    parts = urlsplit(database_url)
    async with Proxy(parts.port or 5432, delay=latency) as line:
        setup = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{line.port}"
        yield urlunsplit(parts._replace(netloc=setup)), line
