"""Vouchers and inventory under requests that arrive together, over real sockets.

`make test-acidrain` runs all rounds with the database 0 and 200 ms away.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.acidrain.last_byte import RawRequest, RawResponse, send_together
from tests.e2e.servers import ADMIN, running
from tests.e2e.shop import Shop, expect_status
from tests.inventory.race_setup import slow_connection_to
from tests.proxy import Mode

FULL: Final = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
RACERS: Final = 20 if FULL else 10
ROUNDS: Final = 5 if FULL else 1
LIMIT: Final = 3
# the delay of each direction in seconds, and the round trip to the database in milliseconds
DELAYS: Final = {0: 0.0, 200: 0.1} if FULL else {0: 0.0}


@pytest.fixture(params=DELAYS, ids=lambda milliseconds: f"{milliseconds}ms")
async def far_database_url(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[str]:
    """The URL of the database behind a proxy that delays each direction."""
    async with slow_connection_to(database_url, DELAYS[request.param]) as (url, proxy):
        if DELAYS[request.param]:
            await proxy.switch(Mode.DELAY)
        yield url


@pytest.fixture
async def shop(far_database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    environment = {
        "MARKETHALL_DATABASE_URL": far_database_url,
        "MARKETHALL_DATA_DIR": str(tmp_path),
    }
    serving = running(tmp_path, environment)
    # in a thread, because the proxy to the database runs in this event loop
    server = await asyncio.to_thread(serving.__enter__)
    try:
        async with httpx2.AsyncClient(timeout=60) as http:
            shop = Shop(server, http)
            await shop.sign_in_admin(*ADMIN)
            yield shop
    finally:
        await asyncio.to_thread(serving.__exit__, None, None, None)


def port_of(shop: Shop) -> int:
    return urlsplit(shop.server.url("/orders")).port or 0


async def send_until_final(port: int, requests: Sequence[RawRequest]) -> list[RawResponse]:
    """Send the requests together, and those again that the server was too busy to answer."""
    answers = await send_together(port, requests)
    for index, request in enumerate(requests):
        while is_unfinished(answers[index]):
            await asyncio.sleep(0.2)
            (answers[index],) = await send_together(port, [request])
    return answers


def is_unfinished(answer: RawResponse) -> bool:
    return answer.status == 503 or answer.body.get("code") == "idempotency.in_flight"


def created(answers: Sequence[RawResponse]) -> list[dict[str, Any]]:
    unexpected = [answer for answer in answers if answer.status not in {201, 409}]
    assert unexpected == []
    return [answer.body for answer in answers if answer.status == 201]


async def list_guest_tokens(shop: Shop) -> list[str]:
    answers = [await shop.post("/guests") for _ in range(RACERS)]
    return [expect_status(answer, 201)["access_token"] for answer in answers]


def order_requests(product_id: str, tokens: Sequence[str], **fields: Any) -> list[RawRequest]:
    body = {
        "lines": [{"product_id": product_id, "quantity": 1}],
        "shipping_address": "Market 1",
        "email": "ada@example.com",
        **fields,
    }
    return [RawRequest("POST", "/orders", body, token) for token in tokens]


async def test_voucher_is_used_as_often_as_its_limit_allows(shop: Shop) -> None:
    product_id = (await shop.product(stock=500))["product_id"]
    tokens = await list_guest_tokens(shop)
    for number in range(ROUNDS):
        voucher = {"name": "Spring", "kind": "percent", "percent": "10", "code": f"CODE-{number}"}
        body = voucher | {"usage_limit": LIMIT}
        made = expect_status(await shop.post("/promotions", shop.admin, json=body), 201)

        requests = order_requests(product_id, tokens, voucher_code=voucher["code"])
        orders = created(await send_until_final(port_of(shop), requests))

        assert len(orders) == LIMIT
        assert {order["discount"]["amount"] for order in orders} == {200}
        path = f"/promotions/{made['promotion_id']}"
        assert expect_status(await shop.get(path, shop.admin), 200)["used"] == LIMIT


async def test_no_more_units_are_sold_than_there_are(shop: Shop) -> None:
    tokens = await list_guest_tokens(shop)
    for _ in range(ROUNDS):
        product_id = (await shop.product(stock=LIMIT))["product_id"]

        requests = order_requests(product_id, tokens)
        orders = created(await send_until_final(port_of(shop), requests))

        assert len(orders) == LIMIT
        assert await shop.available(product_id) == 0
