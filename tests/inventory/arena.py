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

from markethall.inventory.contract import OutOfStock, Reservation, ReservationStatus, Reserve
from markethall.shared.db import PoolSize, Postgres
from markethall.shared.ids import new_id
from tests.conftest import plain
from tests.inventory.conftest import ANYONE, House, build, leaving
from tests.inventory.truth import deadlocks, hung_up, lies
from tests.proxy import Mode, Proxy

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]

# the pool of a hall, with more patience: on a slow line a hundred buyers wait for each other
POOL: Final = PoolSize(least=5, most=20, timeout=30)


@dataclass
class Arena:
    """`late` are the seconds that every word to the database takes, and every answer."""

    house: House
    driver: "Driver"
    postgres: Postgres
    late: float

    async def is_true(self) -> bool:
        """O1. Raises AssertionError with what does not hold."""
        if found := await lies(self.driver):
            raise AssertionError(found)
        return True

    async def reserve(self, *wants: dict[UUID, int]) -> list[Reservation | OutOfStock]:
        """All of them at once, each a buyer of their own."""
        return await self.reserve_all([self.house.order(want) for want in wants])

    async def reserve_all(self, orders: Iterable[Reserve]) -> list[Reservation | OutOfStock]:
        asked = [self.house.inventory.reserve(ANYONE, order) for order in orders]
        return [_served(outcome) for outcome in await at_once(asked)]

    async def sell(self, reservation: Reservation) -> None:
        """Paid for and sent."""
        paid = await self.house.inventory.commit(ANYONE, reservation.reservation_id)
        wants = {line.product_id: line.quantity for line in paid.lines}
        await self.house.inventory.consume(ANYONE, leaving(paid.reservation_id, wants))

    async def status(self, reservation_id: UUID) -> ReservationStatus:
        value = await self.driver.fetchval(
            "SELECT status FROM inventory.reservation WHERE reservation_id = $1", reservation_id
        )
        return ReservationStatus(value)


@asynccontextmanager
async def arena(database_url: str, late: float) -> AsyncIterator[Arena]:
    """Raises AssertionError when two have waited for each other."""
    application = f"race-{new_id().hex}"
    async with AsyncExitStack() as stack:
        driver = await asyncpg.connect(plain(database_url))
        stack.push_async_callback(driver.close)
        url = database_url
        if late:
            url, line = await stack.enter_async_context(line_to(database_url, late))
            await line.switch(Mode.DELAY)
        postgres = Postgres(url, POOL, application=application)
        before = await deadlocks(driver)
        try:
            yield Arena(build("sql", postgres), driver, postgres, late)
        finally:
            await postgres.close()
            await hung_up(driver, application)
        if met := await deadlocks(driver) - before:
            raise AssertionError(f"{met} deadlocks")


async def at_once(asked: Iterable[Awaitable[Any]]) -> list[Any]:
    """Everybody's outcome: what came back, or what was raised."""
    return await asyncio.gather(*asked, return_exceptions=True)


def winners(outcomes: Sequence[Reservation | OutOfStock]) -> list[Reservation]:
    return [one for one in outcomes if isinstance(one, Reservation)]


def units(won: Iterable[Reservation]) -> Counter[UUID]:
    """By product."""
    total: Counter[UUID] = Counter()
    for reservation in won:
        total.update({line.product_id: line.quantity for line in reservation.lines})
    return total


def _served(outcome: Any) -> Reservation | OutOfStock:
    """Either the goods, or the news that they are gone: there is no third answer."""
    if isinstance(outcome, Reservation | OutOfStock):
        return outcome
    raise AssertionError(outcome) from outcome


@asynccontextmanager
async def line_to(database_url: str, late: float) -> AsyncIterator[tuple[str, Proxy]]:
    """The same database at the end of a line that delays its words once it is switched so."""
    parts = urlsplit(database_url)
    async with Proxy(parts.port or 5432, delay=late) as line:
        place = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{line.port}"
        yield urlunsplit(parts._replace(netloc=place)), line
