"""Test how many round trips to Postgres a purchase and an idle process take, on the wire."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

import asyncpg
import httpx2
import pytest

from bench.wire import RecordingProxy, recording_proxy
from markethall.app import Gateway, create_app
from markethall.event_workers import build_event_workers
from markethall.settings import read_settings
from markethall.shared.messaging.inbox import WorkerConfig
from tests.conftest import plain
from tests.containers import users_of
from tests.test_app import ADMIN

# 21 and 47 are the exact numbers; on a busy machine, events are relayed one by one
MAX_ROUND_TRIPS: Final = 22
MAX_ROUND_TRIPS_OF_CART: Final = 49
STEPS: Final = ("POST /orders", "POST /payments/{id}/confirm", "events")
CART_STEPS: Final = ("POST /carts", "two lines", "address", "checkout", *STEPS[1:])
MAX_IDLE_STATEMENTS_PER_SECOND: Final = 4
# includes one run of the periodic jobs of an idle process
IDLE_SECONDS: Final = 15
PURCHASES: Final = 5

# no poll, heartbeat or periodic job during the test: only what a purchase causes
ONLY_WOKEN: Final = WorkerConfig(
    poll_interval=3600,
    heartbeat_interval=3600,
    periodic_job_interval=3600,
    idle_job_interval=3600,
)
COUNT_UNFINISHED: Final = """
SELECT sum(count) FROM (
  SELECT count(*) FROM orders.outbox WHERE published_at IS NULL
  UNION ALL SELECT count(*) FROM payments.outbox WHERE published_at IS NULL
  UNION ALL SELECT count(*) FROM inventory.outbox WHERE published_at IS NULL
  UNION ALL SELECT count(*) FROM orders.inbox WHERE state <> 'done'
  UNION ALL SELECT count(*) FROM payments.inbox WHERE state <> 'done') AS unfinished
"""


@dataclass(frozen=True)
class Shop:
    app: Gateway
    http: httpx2.AsyncClient
    proxy: RecordingProxy
    database: "asyncpg.Connection[asyncpg.Record]"
    product_id: str
    other_product_id: str


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """The application behind the proxy, without its lifespan, so that no background work runs."""
    database = await asyncpg.connect(plain(database_url))
    async with recording_proxy(database_url) as (proxy, url):
        # one connection, so that each statement is prepared by the first purchase
        pool = {"database_pool_min": 1, "database_pool_max": 1, "database_timeout": 30}
        settings = read_settings(
            database_url=url, data_dir=tmp_path, request_deadline_seconds=60, **pool, **ADMIN
        )
        app = create_app(settings)
        await users_of(app.container).accounts().create_first_admin(*ADMIN.values())
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app") as http:
            await _sign_in(http)
            products = [await _create_product(http, sku) for sku in ("TEA", "CUP")]
            yield Shop(app, http, proxy, database, *products)
        await app.container.close()
    await database.close()


async def _sign_in(http: httpx2.AsyncClient) -> None:
    form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
    token = (await http.post("/token", data=form)).json()["access_token"]
    http.headers["Authorization"] = f"Bearer {token}"


async def _create_product(http: httpx2.AsyncClient, sku: str) -> str:
    body = {"sku": sku, "name": "Tea", "price": {"amount": 1999, "currency": "EUR"}}
    product = (await http.post("/products", json=body)).raise_for_status().json()
    path = f"/products/{product['product_id']}/stock-adjustments"
    receipt = {"delta": 1000, "reason": "received"}
    headers = {"Idempotency-Key": f"stock-{sku}"}
    (await http.post(path, json=receipt, headers=headers)).raise_for_status()
    return str(product["product_id"])


@asynccontextmanager
async def _background_work(app: Gateway, config: WorkerConfig) -> AsyncIterator[None]:
    workers = build_event_workers(app.container, app.settings, config)
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _buy(shop: Shop, number: int) -> list[int]:
    """Place an order, pay it, and wait for its events. Return the round trips after each step."""
    steps = [shop.proxy.round_trips]
    body = {"product_id": shop.product_id, "quantity": 2, "shipping_address": "Market 1"}
    order = await _post(shop, "/orders", body, f"order {number}")
    return [*steps, *await _pay(shop, order, f"payment {number}")]


async def _buy_from_cart(shop: Shop, number: int) -> list[int]:
    """Buy from a cart with two lines and an address. The other steps are those of `_buy`."""
    steps = [shop.proxy.round_trips]
    cart = f"/carts/{(await _post(shop, '/carts', {}, f'cart {number}'))['cart_id']}"
    steps.append(shop.proxy.round_trips)
    for product_id in (shop.product_id, shop.other_product_id):
        await _put(shop, f"{cart}/lines/{product_id}", {"quantity": 1})
    steps.append(shop.proxy.round_trips)
    await _put(shop, cart, {"shipping_address": "Market 1"})
    steps.append(shop.proxy.round_trips)
    order = await _post(shop, f"{cart}/checkout", {}, f"checkout {number}")
    return [*steps, *await _pay(shop, order, f"payment of cart {number}")]


async def _pay(shop: Shop, order: dict[str, Any], key: str) -> list[int]:
    """Pay the order and wait for its events. Return the round trips before and after each."""
    steps = [shop.proxy.round_trips]
    path = f"/payments/{order['payment']['payment_id']}/confirm"
    payment = await _post(shop, path, {"payment_method": "sandbox_ok"}, key)
    steps.append(shop.proxy.round_trips)
    assert payment["status"] == "captured"
    await _wait_until_processing(shop, order["order_id"])
    steps.append(shop.proxy.round_trips)
    return steps


async def _put(shop: Shop, path: str, body: dict[str, Any]) -> None:
    response = await shop.http.put(path, json=body)
    assert response.is_success, response.text


async def _post(shop: Shop, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
    headers = {"Idempotency-Key": key.replace(" ", "-")}
    response = await shop.http.post(path, json=body, headers=headers)
    assert response.is_success, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def _wait_until_processing(shop: Shop, order_id: str) -> None:
    """Wait until the order is processing and all events are handled. Raises TimeoutError."""
    status = "SELECT status FROM orders.order WHERE order_id = $1"
    async with asyncio.timeout(60):
        while await shop.database.fetchval(
            status, order_id
        ) != "processing" or await shop.database.fetchval(COUNT_UNFINISHED):
            await asyncio.sleep(0.01)
    committed = "SELECT status FROM inventory.reservation WHERE order_id = $1"
    assert await shop.database.fetchval(committed, order_id) == "committed"


async def test_purchase_takes_few_round_trips(shop: Shop) -> None:
    await _assert_few_round_trips(shop, _buy, STEPS, MAX_ROUND_TRIPS)


async def test_purchase_from_a_cart_takes_few_round_trips(shop: Shop) -> None:
    await _assert_few_round_trips(shop, _buy_from_cart, CART_STEPS, MAX_ROUND_TRIPS_OF_CART)


async def _assert_few_round_trips(
    shop: Shop,
    buy: Callable[[Shop, int], Awaitable[list[int]]],
    names: tuple[str, ...],
    max_round_trips: int,
) -> None:
    async with _background_work(shop.app, ONLY_WOKEN):
        await buy(shop, 0)  # this first purchase also prepares the statements
        purchases = [await buy(shop, number) for number in range(1, PURCHASES + 1)]
    # each purchase starts after the last statement of the previous one, so `pairwise` counts all
    # statements
    totals = [
        _count_round_trips(shop.proxy, earlier[0], later[0])
        for earlier, later in pairwise(purchases)
    ]

    table = _describe(shop.proxy, names, [*purchases[-2][:-1], purchases[-1][0]])
    print(table)
    # the median, because background work may run during one of the purchases
    assert median(totals) <= max_round_trips, (totals, table)


def _count_round_trips(proxy: RecordingProxy, start: int, stop: int) -> int:
    """Count all statements, except reads of the settings of the shop, which are cached."""
    return sum("orders.configuration" not in sql for sql in proxy.statements[start:stop])


def _describe(proxy: RecordingProxy, names: tuple[str, ...], steps: list[int]) -> str:
    """Return a table of the statements of one purchase by step."""
    lines = []
    for name, (start, stop) in zip(names, pairwise(steps), strict=True):
        lines.append(f"{name}: {stop - start} round trips")
        lines.extend(f"    {_shorten(sql)}" for sql in proxy.statements[start:stop])
    return "\n".join(lines)


def _shorten(sql: str) -> str:
    """Return the commands of a statement with their tables."""
    pattern = r"\b(?:INSERT INTO|UPDATE|DELETE FROM|FROM|JOIN) \w+\.\"?\w+|\w+\.\w+\("
    found = list(dict.fromkeys(re.findall(pattern, sql)))
    return (
        f"{sql.split(maxsplit=1)[0]} {', '.join(found)}" if found else " ".join(sql.split())[:100]
    )


async def test_idle_process_sends_few_statements(shop: Shop) -> None:
    async with shop.app.lifespan():
        await asyncio.sleep(2)  # elections and first runs of the periodic jobs
        before = shop.proxy.round_trips
        await asyncio.sleep(IDLE_SECONDS)
        sent = shop.proxy.statements[before:]

    table = "\n".join(sorted({f"{sent.count(sql):4} {_shorten(sql)}" for sql in sent}))
    print(table)
    assert len(sent) <= MAX_IDLE_STATEMENTS_PER_SECOND * IDLE_SECONDS, table
