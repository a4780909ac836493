"""Test that expensive requests of some clients do not stop the requests of others."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2
import pytest

from markethall.app import Gateway, create_app
from markethall.settings import read_settings
from tests.conftest import plain
from tests.shared.cache_fixtures import until
from tests.test_app import ADMIN

PRICE = {"amount": 1999, "currency": "EUR"}


@pytest.fixture
async def app(database_url: str, tmp_path: Any) -> AsyncIterator[Gateway]:
    app = create_app(
        read_settings(
            database_url=database_url,
            data_dir=tmp_path,
            database_pool_min=1,
            database_pool_max=4,
            # longer than a lock is held, so that only the test ends the searches
            database_timeout=60,
            request_deadline_seconds=60,
            **ADMIN,
        )
    )
    async with app.lifespan():
        yield app


@pytest.fixture
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as http:
        form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
        token = (await http.post("/token", data=form)).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


async def stocked_product(http: httpx2.AsyncClient) -> str:
    product = (
        await http.post("/products", json={"sku": "TEA", "name": "Tea", "price": PRICE})
    ).json()
    path = f"/products/{product['product_id']}/stock-adjustments"
    receipt = {"delta": 100, "reason": "received"}
    await http.post(path, json=receipt, headers={"Idempotency-Key": "stock"})
    return str(product["product_id"])


async def test_hanging_searches_do_not_stop_orders(
    app: Gateway, http: httpx2.AsyncClient, database_url: str
) -> None:
    product_id = await stocked_product(http)
    connection = await asyncpg.connect(plain(database_url))
    transaction = connection.transaction()
    await transaction.start()
    # only the spelling suggestions of a search read this table
    await connection.execute("LOCK TABLE inventory.search_word IN ACCESS EXCLUSIVE MODE")
    searches = [
        asyncio.create_task(http.get("/products", params={"q": f"kettel{number}"}))
        for number in range(24)
    ]
    # one search hangs with its connection, and four wait for its slot
    await until(lambda: sum(search.done() for search in searches) >= 19)

    order = await http.post(
        "/orders",
        json={"product_id": product_id, "quantity": 1, "shipping_address": "Market 1"},
        headers={"Idempotency-Key": "order"},
    )

    hanging = await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
    await transaction.rollback()
    await connection.close()
    statuses = [(await search).status_code for search in searches]
    assert order.status_code == 201
    assert hanging == 1
    assert set(statuses) == {200, 503}
