"""Test that expensive requests of some clients do not stop the requests of others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import httpx2

from markethall.app import Gateway, create_app
from markethall.settings import read_settings
from tests.conftest import plain
from tests.shared.cache_fixtures import until
from tests.test_app import ADMIN

PRICE = {"amount": 1999, "currency": "EUR"}


@asynccontextmanager
async def serving(database_url: str, folder: Any, **settings: Any) -> AsyncIterator[Gateway]:
    defaults = {
        "database_pool_min": 1,
        # seconds; longer than a test holds its lock, so that no timeout ends the waiting searches
        "database_timeout": 60,
        "request_deadline_seconds": 60,
    }
    app = create_app(
        read_settings(**defaults, database_url=database_url, data_dir=folder, **settings, **ADMIN)
    )
    async with app.lifespan():
        yield app


@asynccontextmanager
async def client_of(app: Gateway, **user: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client with the token of the user, or without a token."""
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as http:
        if user:
            token = (await http.post("/token", data=user)).json()["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
        yield http


@asynccontextmanager
async def staff_of(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    user = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
    async with client_of(app, **user) as http:
        yield http


@asynccontextmanager
async def customer_of(app: Gateway, number: int) -> AsyncIterator[httpx2.AsyncClient]:
    """Register a customer, and yield a client with the access token of this customer."""
    user = {"username": f"customer-{number}", "password": "a quiet sentence"}
    async with client_of(app) as http:
        await http.post("/users", json={**user, "email": f"customer-{number}@example.com"})
    async with client_of(app, **user) as http:
        yield http


async def stocked_product(http: httpx2.AsyncClient, sku: str = "TEA") -> str:
    product = (
        await http.post("/products", json={"sku": sku, "name": "Tea", "price": PRICE})
    ).json()
    path = f"/products/{product['product_id']}/stock-adjustments"
    receipt = {"delta": 1000, "reason": "received"}
    await http.post(path, json=receipt, headers={"Idempotency-Key": f"stock-{sku}"})
    return str(product["product_id"])


async def place_order(http: httpx2.AsyncClient, product_id: str, key: str) -> httpx2.Response:
    body = {"product_id": product_id, "quantity": 1, "shipping_address": "Market 1"}
    return await http.post("/orders", json=body, headers={"Idempotency-Key": key})


@asynccontextmanager
async def holding_lock(
    database_url: str, lock: str
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Execute the SQL statement `lock` on a new connection, and hold its lock during the block."""
    connection = await asyncpg.connect(plain(database_url))
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(lock)
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


def hanging_searches(database_url: str) -> Any:
    """Make each search without matches wait, by locking the table of spelling suggestions.

    A search with matches does not read this table.
    """
    return holding_lock(database_url, "LOCK TABLE inventory.search_word IN ACCESS EXCLUSIVE MODE")


async def count_hanging(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Return the number of statements that wait for a lock."""
    return int(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


async def wait_until_hanging(connection: "asyncpg.Connection[asyncpg.Record]", count: int) -> None:
    async with asyncio.timeout(60):
        while await count_hanging(connection) != count:
            await asyncio.sleep(0.01)


async def search(http: httpx2.AsyncClient, text: str) -> httpx2.Response:
    return await http.get("/products", params={"q": text})


async def test_hanging_searches_do_not_stop_orders(database_url: str, tmp_path: Any) -> None:
    async with (
        serving(database_url, tmp_path, database_pool_max=4) as app,
        staff_of(app) as http,
    ):
        product_id = await stocked_product(http)
        async with hanging_searches(database_url) as connection:
            searches = [
                asyncio.create_task(search(http, f"kettel{number}")) for number in range(24)
            ]
            # one search waits for the lock and holds the only slot, four wait for the slot, and
            # the other 19 are refused
            await until(lambda: sum(each.done() for each in searches) >= 19)

            order = await place_order(http, product_id, "order")

            hanging = await count_hanging(connection)
        statuses = [(await each).status_code for each in searches]
    assert order.status_code == 201
    assert hanging == 1
    assert set(statuses) == {200, 503}


async def test_search_without_token_is_cancelled_in_postgres(
    database_url: str, tmp_path: Any
) -> None:
    settings = {"database_pool_max": 8, "anonymous_statement_timeout_seconds": 0.2}
    async with (
        serving(database_url, tmp_path, **settings) as app,
        staff_of(app) as staff,
        client_of(app) as anonymous,
    ):
        async with hanging_searches(database_url) as connection:
            hanging = asyncio.create_task(search(staff, "kettel"))
            await wait_until_hanging(connection, 1)

            refused = await search(anonymous, "another")

            # the search of the staff still waits for the lock
            assert await count_hanging(connection) == 1
        answer = await hanging
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["code"] == "system.unavailable"
    assert answer.status_code == 200


async def test_cancelled_searches_leave_their_connection_usable(
    database_url: str, tmp_path: Any
) -> None:
    settings = {"database_pool_max": 4, "anonymous_statement_timeout_seconds": 0.2}
    opened = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE backend_type = $1"
    async with serving(database_url, tmp_path, **settings) as app, client_of(app) as anonymous:
        await search(anonymous, "tea")
        async with hanging_searches(database_url) as connection:
            await search(anonymous, "kettel")
            before = await connection.fetchval(opened, "client backend")
            statuses = [
                (await search(anonymous, f"kettel{number}")).status_code for number in range(4)
            ]
            after = await connection.fetchval(opened, "client backend")
    assert statuses == [503] * 4
    assert after == before


async def test_burst_of_one_customer_leaves_slots_to_orders_of_others(
    database_url: str, tmp_path: Any
) -> None:
    settings = {"database_pool_max": 20, "rate_limits": "on"}
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(serving(database_url, tmp_path, **settings))
        staff = await stack.enter_async_context(staff_of(app))
        locked, other = await stocked_product(staff), await stocked_product(staff, "COFFEE")
        buyer, *others = [await stack.enter_async_context(customer_of(app, n)) for n in range(10)]
        lock = f"SELECT FROM inventory.stock WHERE product_id = '{locked}' FOR UPDATE"
        async with holding_lock(database_url, lock):
            burst = [
                asyncio.create_task(place_order(buyer, locked, f"burst-{number:03}"))
                for number in range(500)
            ]
            # 16 requests run, which is the limit of one client; the others are refused
            await until(lambda: sum(each.done() for each in burst) == 500 - 16)
            refused = [each.result() for each in burst if each.done()]

            orders = await asyncio.gather(
                *(place_order(each, other, f"other-{n:03}") for n, each in enumerate(others))
            )
        await asyncio.gather(*burst)
    assert {(each.status_code, each.headers["retry-after"]) for each in refused} == {(429, "1")}
    assert [each.status_code for each in orders] == [201] * 9


async def test_scrapes_and_probes_take_no_slots_of_orders(database_url: str, tmp_path: Any) -> None:
    async with (
        serving(database_url, tmp_path, database_pool_max=4) as app,
        staff_of(app) as staff,
        client_of(app) as anonymous,
    ):
        product_id = await stocked_product(staff)
        paths = ["/metrics", "/ready", "/health"] * 100
        storm = [asyncio.create_task(anonymous.get(path)) for path in paths]
        orders = await asyncio.gather(
            *(place_order(staff, product_id, f"order-{number:03}") for number in range(4))
        )
        answers = await asyncio.gather(*storm)
    assert [each.status_code for each in orders] == [201] * 4
    assert {each.status_code for each in answers} == {200}
