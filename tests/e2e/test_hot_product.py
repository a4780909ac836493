"""One product that everybody wants, over HTTP, on a hall with its usual pool."""

import asyncio
import os
import secrets
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
from tests.e2e.shop import Person, Shop, refused
from tests.inventory.race_setup import slow_connection_to
from tests.inventory.stock_invariants import (
    deadlocks,
    invariant_violations,
    wait_until_disconnected,
)
from tests.proxy import Mode

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
BUYERS, STOCK = 500, 200
# the other buyers wait at the door: so many ask at once
CONNECTIONS = 64


class Insisting(Shop):
    """A busy machine may say 503; it says then when to come again."""

    async def send(
        self, method: str, path: str, who: Person | None = None, **options: Any
    ) -> httpx2.Response:
        while True:
            answer = await super().send(method, path, who, **options)
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(float(answer.headers["retry-after"]))


@asynccontextmanager
async def crowded(scratch: Path, url: str) -> AsyncIterator[Shop]:
    limits = httpx2.Limits(max_connections=CONNECTIONS)
    # as long as in production
    opening = dedicated_server(
        scratch, "hot", database_url=url, database_timeout="1.8", request_deadline_seconds="5"
    )
    # in a thread: the line to the database may be one of this loop
    server = await asyncio.to_thread(opening.__enter__)
    try:
        async with httpx2.AsyncClient(limits=limits, timeout=120) as http:
            shop = Insisting(server, http)
            await shop.sign_in_admin(*ADMIN)
            yield shop
    finally:
        await asyncio.to_thread(opening.__exit__, None, None, None)


async def crowd(shop: Shop, size: int) -> list[Person]:
    """A few at a time: a new customer costs a password hash, and that is not the question here."""
    door = asyncio.Semaphore(4)

    async def enter() -> Person:
        async with door:
            return await shop.customer()

    return list(await asyncio.gather(*(enter() for _ in range(size))))


async def test_five_hundred_concurrent_buyers_never_oversell(
    scratch: Path, server_url: str, template: str
) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(dedicated_database(server_url, template))
        driver = await asyncpg.connect(plain(url))
        stack.push_async_callback(driver.close)
        async with crowded(scratch, url) as shop:
            buyers = await crowd(shop, BUYERS)
            product_id = (await shop.product(stock=STOCK))["product_id"]

            answers = await asyncio.gather(
                *(persistent(shop, buyer, product_id) for buyer in buyers)
            )

            assert Counter(answer.status_code for answer in answers) == {
                201: STOCK,
                409: BUYERS - STOCK,
            }
            for answer in answers:
                if answer.status_code == 409:
                    refused(answer, 409, "inventory.out_of_stock")
            assert await shop.available(product_id) == 0
        await wait_until_disconnected(driver, "markethall")
        assert (await invariant_violations(driver), await deadlocks(driver)) == (set(), 0)


async def test_last_unit_is_sold_once_with_slow_database(
    scratch: Path, server_url: str, template: str
) -> None:
    """Who is told to come again comes again; nobody is told anything worse."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(dedicated_database(server_url, template))
        driver = await asyncpg.connect(plain(url))
        stack.push_async_callback(driver.close)
        far, line = await stack.enter_async_context(slow_connection_to(url, latency=0.02))
        async with crowded(scratch, far) as shop:
            await line.switch(Mode.DELAY)
            buyers = await crowd(shop, 100)
            for _ in range(20 if FULL else 2):
                product_id = (await shop.product(stock=1))["product_id"]

                answers = await asyncio.gather(
                    *(persistent(shop, buyer, product_id) for buyer in buyers)
                )

                assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 99}
                assert await invariant_violations(driver) == set()
        await wait_until_disconnected(driver, "markethall")
        assert await deadlocks(driver) == 0


async def persistent(shop: Shop, buyer: Person, product_id: str) -> httpx2.Response:
    """With one key, until there is a last word."""
    key = secrets.token_hex(8)
    while True:
        answer = await shop.place(buyer, product_id, key=key)
        if not is_in_flight(answer):
            return answer
        await asyncio.sleep(float(answer.headers["retry-after"]))


def is_in_flight(answer: httpx2.Response) -> bool:
    return answer.status_code == 409 and answer.json()["code"] == "idempotency.in_flight"
