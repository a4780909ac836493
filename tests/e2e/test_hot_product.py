"""Test one product under high demand, over HTTP, with the default connection pool."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from tests.conftest import plain
from tests.e2e.dedicated_server import dedicated_database, dedicated_server
from tests.e2e.servers import ADMIN
from tests.e2e.shop import Person, Shop, expect_problem
from tests.inventory.race_setup import slow_connection_to
from tests.inventory.stock_invariants import (
    deadlocks,
    invariant_violations,
    wait_until_disconnected,
)
from tests.proxy import Mode

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
BUYERS, STOCK = 500, 200
# the number of concurrent connections; a buyer without a connection waits for a free one
CONNECTIONS = 64


class RetryingClient(Shop):
    """A shop client that repeats requests after a 503, as Retry-After says."""

    async def send(
        self, method: str, path: str, person: Person | None = None, **options: Any
    ) -> httpx2.Response:
        while True:
            answer = await super().send(method, path, person, **options)
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(float(answer.headers["retry-after"]))


@asynccontextmanager
async def open_busy_shop(scratch: Path, url: str) -> AsyncIterator[Shop]:
    limits = httpx2.Limits(max_connections=CONNECTIONS)
    # these are the default timeouts of the application; without them, `spawn` would set longer
    # timeouts for slow machines
    server_context = dedicated_server(
        scratch, "hot", database_url=url, database_timeout="1.8", request_deadline_seconds="5"
    )
    # start the server in a thread: the start blocks, and the server needs the database proxy, which
    # may run on this event loop
    server = await asyncio.to_thread(server_context.__enter__)
    try:
        async with httpx2.AsyncClient(limits=limits, timeout=120) as http:
            shop = RetryingClient(server, http)
            await shop.sign_in_admin(*ADMIN)
            yield shop
    finally:
        await asyncio.to_thread(server_context.__exit__, None, None, None)


async def register_customers(shop: Shop, count: int) -> list[Person]:
    """Register customers, only four at a time, because password hashes take much CPU."""
    slots = asyncio.Semaphore(4)

    async def register() -> Person:
        async with slots:
            return await shop.customer()

    return list(await asyncio.gather(*(register() for _ in range(count))))


async def test_five_hundred_concurrent_buyers_never_oversell(
    scratch: Path, server_url: str, template: str
) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(dedicated_database(server_url, template))
        observer = await asyncpg.connect(plain(url))
        stack.push_async_callback(observer.close)
        async with open_busy_shop(scratch, url) as shop:
            buyers = await register_customers(shop, BUYERS)
            product_id = (await shop.product(stock=STOCK))["product_id"]

            answers = await asyncio.gather(
                *(shop.place_until_final(buyer, product_id) for buyer in buyers)
            )

            assert Counter(answer.status_code for answer in answers) == {
                201: STOCK,
                409: BUYERS - STOCK,
            }
            for answer in answers:
                if answer.status_code == 409:
                    expect_problem(answer, 409, "inventory.out_of_stock")
            assert await shop.available(product_id) == 0
        await wait_until_disconnected(observer, "markethall")
        assert (await invariant_violations(observer), await deadlocks(observer)) == (set(), 0)


async def test_last_unit_is_sold_once_with_slow_database(
    scratch: Path, server_url: str, template: str
) -> None:
    """Every request must end with 201 or 409, after retries."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(dedicated_database(server_url, template))
        observer = await asyncpg.connect(plain(url))
        stack.push_async_callback(observer.close)
        slow_url, proxy = await stack.enter_async_context(slow_connection_to(url, latency=0.02))
        async with open_busy_shop(scratch, slow_url) as shop:
            await proxy.switch(Mode.DELAY)
            buyers = await register_customers(shop, 100)
            for _ in range(20 if FULL else 2):
                product_id = (await shop.product(stock=1))["product_id"]

                answers = await asyncio.gather(
                    *(shop.place_until_final(buyer, product_id) for buyer in buyers)
                )

                assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 99}
                assert await invariant_violations(observer) == set()
        await wait_until_disconnected(observer, "markethall")
        assert await deadlocks(observer) == 0
