"""Test that four processes sell without Redis, and that no paid order stays pending afterwards."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import UUID

import httpx2
import pytest

from tests.e2e.dedicated_server import DatabaseReader, dedicated_database, open_shop
from tests.e2e.faults import FaultSetup, RedisKilled, fault_setup
from tests.e2e.load import AMOUNT, CUSTOMERS, LoadGenerator, Sale
from tests.e2e.shop import Person
from tests.e2e.test_crash import BROKEN
from tests.e2e.test_split_faults import (
    DEADLINE,
    FULL,
    PAYMENT_AMOUNTS,
    SLACK,
    STOCK,
    STOCK_ROW,
    unexpected_responses,
)
from tests.progress import progress_limit

OUTAGE_SECONDS = 600.0 if FULL else 5.0
SECONDS_BETWEEN_PURCHASES = 1.0 if FULL else 0.2
# every paid order is marked as paid within this time, with Redis or without it
MARKED_WITHIN_SECONDS = 60.0
IDLE_TIMEOUT_SECONDS = 60.0

PENDING = """
SELECT order_id FROM orders."order" WHERE status = 'pending' AND order_id = ANY($1::uuid[])
"""
OLD_PENDING = "AND created_at < now() - make_interval(secs => $2)"
UNDELIVERED_EVENTS = """
SELECT count(*) FROM (
  SELECT FROM payments.outbox WHERE published_at IS NULL
  UNION ALL SELECT FROM orders.outbox WHERE published_at IS NULL
  UNION ALL SELECT FROM orders.inbox WHERE state <> 'done'
) AS undelivered
"""


@pytest.fixture
async def url(server_url: str, template: str) -> AsyncIterator[str]:
    async with dedicated_database(server_url, template) as url:
        yield url


@pytest.fixture
async def server(url: str, scratch: Path) -> AsyncIterator[FaultSetup]:
    async with fault_setup(scratch / "redis-outage", url, token_ttl="86400") as server:
        yield server


@pytest.fixture
async def load(server: FaultSetup) -> AsyncIterator[LoadGenerator]:
    async with open_shop(server.split.server) as shop:
        shop.http.timeout = httpx2.Timeout(DEADLINE + 2 * SLACK)
        yield LoadGenerator(shop, [await shop.customer() for _ in range(CUSTOMERS)])


async def test_orders_paid_without_redis_are_marked_as_paid_soon_after_its_return(
    server: FaultSetup, load: LoadGenerator, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    database, redis = DatabaseReader(url), RedisKilled("redis", "killed and empty")
    await load.start_round(STOCK)

    await redis.inject(server)
    stopped_at = time.monotonic()
    await buy_until(load, stopped_at + OUTAGE_SECONDS)
    still_pending = await pending(database, load.sales)
    late = await pending(database, load.sales, older_than=MARKED_WITHIN_SECONDS + SLACK)
    await redis.repair(server)
    returned_at = time.monotonic()
    async with asyncio.timeout(MARKED_WITHIN_SECONDS):
        while await pending(database, load.sales):
            await asyncio.sleep(0.05)
    seconds = time.monotonic() - returned_at

    with capsys.disabled():
        print(
            f"\n{OUTAGE_SECONDS:.0f} s without Redis: {len(load.sales)} orders paid, "
            f"{still_pending} of them pending at its return, none {seconds:.1f} s later"
        )
    assert late == 0
    assert unexpected_responses(load.responses, redis, stopped_at, returned_at) == []
    await wait_until_events_are_delivered(database)
    assert await database.fetch_all(BROKEN) == []
    await assert_every_sale_is_paid_once(load, database)


async def buy_until(load: LoadGenerator, ends_at: float) -> None:
    """Let all customers buy until this time, by time.monotonic()."""

    async def buy(buyer: Person) -> None:
        while time.monotonic() < ends_at:
            await load.buy(buyer)
            await asyncio.sleep(SECONDS_BETWEEN_PURCHASES)

    await asyncio.gather(*(buy(buyer) for buyer in load.buyers))


async def pending(
    database: DatabaseReader, sales: Sequence[Sale], older_than: float | None = None
) -> int:
    """Return the number of pending orders, or only of those older than `older_than` seconds."""
    order_ids = [UUID(sale.order_id) for sale in sales]
    if older_than is None:
        return len(await database.fetch_all(PENDING, order_ids))
    return len(await database.fetch_all(PENDING + OLD_PENDING, order_ids, older_than))


async def wait_until_events_are_delivered(database: DatabaseReader) -> None:
    async with progress_limit(IDLE_TIMEOUT_SECONDS) as limit:
        while count := await database.fetch_value(UNDELIVERED_EVENTS):
            limit.note(count)
            await asyncio.sleep(0.05)


async def assert_every_sale_is_paid_once(load: LoadGenerator, database: DatabaseReader) -> None:
    product, sold = UUID(load.product_id), len(load.sales)
    amounts = Counter(tuple(row) for row in await database.fetch_all(PAYMENT_AMOUNTS, product))
    assert amounts == {(AMOUNT, 0): sold}
    stock = [tuple(row) for row in await database.fetch_all(STOCK_ROW, product)]
    assert stock == [(STOCK, sold)]
