"""Test SIGKILL at any message to Postgres between an empty cart and a paid order.

A proxy in front of Postgres counts the messages. The client either repeats each request until it
is answered, or gives up at the first lost answer.
"""

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.e2e.abandoned_orders import (
    RESERVATION_TTL_SECONDS,
    AbandoningShop,
    ClientGone,
    report,
    wait_until_settled,
)
from tests.e2e.dedicated_server import dedicated_database
from tests.e2e.message_proxy import MessageProxy, message_proxy
from tests.e2e.restartable_server import RetryingShop, open_restartable_server
from tests.e2e.servers import ADMIN
from tests.e2e.shop import Person, Shop, expect_status
from tests.e2e.test_crash import BROKEN, FULL

STOCK: Final = 10
# the quantities and the prices of the two lines of the cart
LINES: Final = ((2, 700), (3, 250))
TOTAL: Final = sum(quantity * price for quantity, price in LINES)
NO_CRASH: Final = 10**9
# the number of messages at which an ordinary run kills the server
SAMPLE_SIZE: Final = 6

OUTCOME: Final = """
SELECT c.status AS cart_status, o.status, p.captured, p.refunded,
  (SELECT count(*) FROM orders."order" x WHERE x.cart_id = c.cart_id) AS orders
FROM orders.cart c
LEFT JOIN orders."order" o USING (cart_id)
LEFT JOIN payments.payment p USING (payment_id)
WHERE c.user_id = $1
"""
RESERVED: Final = "SELECT on_hand, reserved FROM inventory.stock WHERE product_id = $1"


@dataclass(frozen=True)
class Setup:
    shop: RetryingShop
    proxy: MessageProxy

    def kill_at_message(self, number: int) -> None:
        self.proxy.kill_at_message(number, self.shop.restartable.server.pids[0])


@pytest.fixture
async def setup(scratch: Path, server_url: str, template: str) -> AsyncIterator[Setup]:
    """A server whose reservations outlive the test, so that a repeated request still finds them."""
    async with open_setup(scratch, server_url, template) as setup:
        yield setup


@pytest.fixture
async def setup_with_short_reservations(
    scratch: Path, server_url: str, template: str
) -> AsyncIterator[Setup]:
    ttl = str(RESERVATION_TTL_SECONDS)
    async with open_setup(scratch, server_url, template, reservation_ttl_seconds=ttl) as setup:
        yield setup


@asynccontextmanager
async def open_setup(
    scratch: Path, server_url: str, template: str, **settings: str
) -> AsyncIterator[Setup]:
    async with (
        dedicated_database(server_url, template) as url,
        message_proxy(url) as (proxy, proxied_url),
        open_restartable_server(
            scratch, url, server_database_url=proxied_url, **settings
        ) as restartable,
        httpx2.AsyncClient(timeout=20) as http,
    ):
        shop = RetryingShop(restartable, http)
        await shop.sign_in_admin(*ADMIN)
        yield Setup(shop, proxy)


async def test_cart_becomes_one_paid_order_whenever_server_is_killed(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary run kills at a few messages; `make test-crash-recovery` kills at each."""
    restarts, outcomes = setup.shop.restartable.restarts, Counter[str]()
    messages = await _count_messages(setup)

    for number in crash_points(messages):
        buyer, products = await _new_buyer(setup.shop)
        setup.kill_at_message(number)
        await buy(setup.shop, buyer, products)
        await wait_until_settled(setup.shop)
        setup.proxy.clear_kill_plan()
        outcome = await _outcome_of(setup.shop, buyer, products)
        assert outcome == "paid", f"killed at message {number}: {outcome}"
        outcomes[outcome] += 1

    crashes = setup.shop.restartable.restarts - restarts
    report(capsys, "cart to paid order", messages, crashes, outcomes)
    assert crashes >= min_crashes(messages)


async def test_cart_settles_without_its_client(
    setup_with_short_reservations: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client never repeats a request. The order is paid, or its stock is released."""
    setup = setup_with_short_reservations
    restarts, outcomes = setup.shop.restartable.restarts, Counter[str]()
    messages = await _count_messages(setup)

    for number in crash_points(messages):
        buyer, products = await _new_buyer(setup.shop)
        setup.kill_at_message(number)
        try:
            await buy(AbandoningShop(setup.shop), buyer, products)
        except ClientGone:
            await setup.shop.restartable.restart()
        await wait_until_settled(setup.shop)
        setup.proxy.clear_kill_plan()
        outcomes[await _outcome_of(setup.shop, buyer, products)] += 1

    crashes = setup.shop.restartable.restarts - restarts
    report(capsys, "cart without client", messages, crashes, outcomes)
    assert crashes >= min_crashes(messages)


async def buy(shop: Shop, buyer: Person, products: Sequence[str]) -> None:
    """Fill a cart, check it out, pay the order and wait until it is processed."""
    cart = expect_status(await shop.post("/carts", buyer, json={}), 201)
    path = f"/carts/{cart['cart_id']}"
    for product_id, (quantity, _) in zip(products, LINES, strict=True):
        body: dict[str, Any] = {"quantity": quantity}
        expect_status(await shop.send("PUT", f"{path}/lines/{product_id}", buyer, json=body), 200)
    address = {"shipping_address": "Keizersgracht 1, Amsterdam"}
    expect_status(await shop.send("PUT", path, buyer, json=address), 200)
    key = secrets.token_hex(16)
    order = expect_status(await shop.post(f"{path}/checkout", buyer, key, json={}), 201)
    payment_id = order["payment"]["payment_id"]
    status = ""
    while status != "captured":
        # a charge may fail after a crash; the customer then pays again
        paid = expect_status(await shop.confirm(buyer, payment_id), 200)
        status = paid["status"]
        assert status in {"captured", "failed"}
    await shop.wait_for_status(buyer, order["order_id"], status="processing")


async def _count_messages(setup: Setup) -> int:
    """Buy without a crash. Return the number of messages."""
    buyer, products = await _new_buyer(setup.shop)
    setup.kill_at_message(NO_CRASH)
    await buy(setup.shop, buyer, products)
    await wait_until_settled(setup.shop)
    messages = setup.proxy.count
    setup.proxy.clear_kill_plan()
    assert await _outcome_of(setup.shop, buyer, products) == "paid"
    return messages


def crash_points(messages: int) -> Sequence[int]:
    if FULL:
        return range(1, messages + 1)
    step = (messages - 1) / (SAMPLE_SIZE - 1)
    return [1 + round(step * index) for index in range(SAMPLE_SIZE)]


def min_crashes(messages: int) -> int:
    # the number of messages varies, because idle processes send some too, so a journey may end
    # before the planned message
    return messages * 2 // 3 if FULL else SAMPLE_SIZE - 2


async def _new_buyer(shop: RetryingShop) -> tuple[Person, list[str]]:
    """Create a customer and two products, on a server without unsettled work."""
    buyer = await shop.customer()
    products = [
        str((await shop.product(stock=STOCK, amount=price))["product_id"]) for _, price in LINES
    ]
    await wait_until_settled(shop)
    return buyer, products


async def _outcome_of(shop: RetryingShop, buyer: Person, products: Sequence[str]) -> str:
    """Check that the cart, the stock and the money agree. Return the outcome in words."""
    database = shop.restartable.database
    assert await database.fetch_all(BROKEN) == []
    stock = [tuple((await database.fetch_all(RESERVED, product))[0]) for product in products]
    carts = [dict(row) for row in await database.fetch_all(OUTCOME, buyer.user_id)]
    assert len(carts) <= 1, carts
    if not carts:
        assert stock == [(STOCK, 0)] * 2
        return "no cart"
    cart = carts[0]
    assert cart["orders"] == (1 if cart["cart_status"] == "checked_out" else 0), cart
    if cart["status"] == "processing":
        assert (cart["captured"], cart["refunded"]) == (TOTAL, 0), cart
        assert stock == [(STOCK, quantity) for quantity, _ in LINES], cart
        return "paid"
    assert cart["status"] in {None, "expired", "cancelled"}, cart
    assert stock == [(STOCK, 0)] * 2, cart
    assert (cart["captured"] or 0) == (cart["refunded"] or 0), cart
    return "ended unpaid" if cart["status"] else "no order"
