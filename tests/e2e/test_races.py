"""Test concurrent requests over HTTP, on one process and on several."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from markethall.payments.domain.operation import Succeeded
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks
from tests.conftest import url_of
from tests.e2e.dedicated_server import DatabaseReader, database_of
from tests.e2e.servers import RunningServer
from tests.e2e.shop import TIMEOUT_SECONDS, Person, Shop, expect_problem, expect_status
from tests.e2e.test_crash import BROKEN
from tests.partitions.partitions import HALVES
from tests.progress import progress_limit

CHARGES = """
SELECT c.status, c.amount, c.refunded FROM payments.sandbox_charge c
JOIN payments.operation o USING (operation_id) WHERE o.payment_id = $1
"""
POSTINGS = "SELECT kind FROM payments.posting WHERE payment_id = $1"

# one process, two workers, and two services that exchange the calls and events of an order
TOPOLOGIES = ["postgres", "workers", HALVES]
pytestmark = pytest.mark.parametrize("server", TOPOLOGIES, indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest, server_url: str) -> DatabaseReader:
    """The database of the server under test."""
    topology_name = request.node.callspec.params["server"]
    return DatabaseReader(url_of(server_url, database_of(topology_name)))


@pytest.fixture
async def buyers(shop: Shop) -> list[Person]:
    return list(await asyncio.gather(*(shop.customer() for _ in range(50))))


async def until_final(send: Any, pause: Callable[[httpx2.Response], float]) -> httpx2.Response:
    """Repeat a request until its response is final.

    `pause` returns the seconds to wait after a response that is not final.
    """
    async with progress_limit(TIMEOUT_SECONDS) as limit:
        while True:
            answer: httpx2.Response = await send()
            limit.note(answer.status_code)
            if answer.status_code < 400 or not answer.json()["retryable"]:
                return answer
            await asyncio.sleep(pause(answer))


async def retry_conflicts(send: Any) -> httpx2.Response:
    """Repeat a request after each retryable 409; a 5xx fails the test."""

    def short_pause(answer: httpx2.Response) -> float:
        assert answer.status_code < 500, answer.text
        return 0.01

    return await until_final(send, short_pause)


async def retry_all(send: Any) -> httpx2.Response:
    """Repeat a request after each retryable 409 or 503, after the time in Retry-After."""
    return await until_final(send, lambda answer: float(answer.headers["retry-after"]))


@pytest.mark.parametrize("stock", [1, 7])
async def test_fifty_concurrent_buyers_never_oversell(
    shop: Shop, database: DatabaseReader, buyers: list[Person], stock: int
) -> None:
    product_id = (await shop.product(stock=stock))["product_id"]

    answers = await asyncio.gather(*(shop.place(buyer, product_id) for buyer in buyers))

    assert Counter(answer.status_code for answer in answers) == {201: stock, 409: 50 - stock}
    for answer in answers:
        if answer.status_code == 409:
            expect_problem(answer, 409, "inventory.out_of_stock")
    assert await shop.available(product_id) == 0
    assert await database.fetch_all(BROKEN) == []


async def test_carts_in_opposite_order_do_not_deadlock(
    shop: Shop, server: RunningServer, database: DatabaseReader, buyers: list[Person]
) -> None:
    """Detect a deadlock by its log line, not by a 503, which a slow machine may also cause."""
    one, other = [(await shop.product(stock=500))["product_id"] for _ in range(2)]
    carts = [(one, other), (other, one)] * 50

    answers = await asyncio.gather(
        *(place_until_final(shop, buyers[n % 50], cart) for n, cart in enumerate(carts))
    )

    assert Counter(answer.status_code for answer in answers) == {201: 100}
    assert not server.has_logged("database.deadlock")
    assert await shop.available(one) == await shop.available(other) == 400
    assert await database.fetch_all(BROKEN) == []


async def place_cart(
    shop: Shop, buyer: Person, cart: tuple[str, ...], key: str | None = None
) -> httpx2.Response:
    lines = [{"product_id": product_id, "quantity": 1} for product_id in cart]
    body = {"lines": lines, "shipping_address": "Market 1"}
    return await shop.post("/orders", buyer, key, json=body)


async def place_until_final(shop: Shop, buyer: Person, cart: tuple[str, ...]) -> httpx2.Response:
    """Repeat POST /orders with the same idempotency key until the response is final."""
    key = secrets.token_hex(16)
    return await retry_all(lambda: place_cart(shop, buyer, cart, key))


async def test_carts_in_opposite_order_sell_all_remaining_stock(
    shop: Shop, buyers: list[Person]
) -> None:
    one, other = [(await shop.product(stock=10))["product_id"] for _ in range(2)]

    answers = await asyncio.gather(
        *(
            place_cart(shop, buyer, (one, other) if n % 2 else (other, one))
            for n, buyer in enumerate(buyers)
        )
    )

    assert Counter(answer.status_code for answer in answers) == {201: 10, 409: 40}
    assert await shop.available(one) == await shop.available(other) == 0


async def test_same_key_twenty_times_gives_same_response(
    shop: Shop, database: DatabaseReader
) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=50)
    key = secrets.token_hex(16)

    answers = await asyncio.gather(
        *(
            retry_conflicts(lambda: shop.place(buyer, product["product_id"], key=key))
            for _ in range(20)
        )
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert await shop.available(product["product_id"]) == 49
    count = 'SELECT count(*) FROM orders."order" WHERE user_id = $1'
    assert await database.fetch_value(count, UUID(buyer.user_id)) == 1


async def test_ten_concurrent_confirmations_charge_once(
    shop: Shop, database: DatabaseReader
) -> None:
    buyer, order = await place_new_order(shop)
    payment_id = order["payment"]["payment_id"]
    methods = ["sandbox_ok", "sandbox_webhook_first"] * 5

    answers = await asyncio.gather(
        *(
            retry_conflicts(lambda m=method: shop.confirm(buyer, payment_id, m))
            for method in methods
        )
    )

    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 9}
    for answer in answers:
        if answer.status_code == 409:
            expect_problem(answer, 409, "payments.invalid_transition")
    await shop.wait_for_status(buyer, order["order_id"], status="processing", payment_status="paid")
    await assert_charged_once(database, order)


async def test_same_key_ten_concurrent_confirmations_charge_once(
    shop: Shop, database: DatabaseReader
) -> None:
    buyer, order = await place_new_order(shop)
    payment_id, key = order["payment"]["payment_id"], secrets.token_hex(16)

    answers = await asyncio.gather(
        *(
            retry_conflicts(lambda: shop.confirm(buyer, payment_id, "sandbox_webhook_first", key))
            for _ in range(10)
        )
    )

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    await assert_charged_once(database, order)


async def test_webhook_races_with_provider_response(
    shop: Shop, database: DatabaseReader, server: RunningServer
) -> None:
    """Send ten copies of the webhook before the response of the provider, and one after it."""
    buyer, order = await place_new_order(shop)
    payment_id = order["payment"]["payment_id"]
    confirming = asyncio.create_task(shop.confirm(buyer, payment_id, "sandbox_slow"))
    headers, body = build_webhook(server, await operation_of(shop, buyer, payment_id))

    first = await asyncio.gather(*(send_webhook(shop, headers, body) for _ in range(10)))
    await shop.wait_for_status(buyer, order["order_id"], status="processing", payment_status="paid")
    confirmed = await confirming
    last = await send_webhook(shop, headers, body)

    assert [answer.status_code for answer in (*first, last)] == [200] * 11
    assert sum(not answer.json()["duplicate"] for answer in (*first, last)) == 1
    assert expect_status(confirmed, 200)["status"] == "captured"
    await assert_charged_once(database, order)


async def operation_of(shop: Shop, buyer: Person, payment_id: str) -> UUID:
    """Poll until the payment has an operation, and return its id. Raises TimeoutError."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            page = expect_status(await shop.get(f"/payments/{payment_id}/operations", buyer), 200)
            if page["items"]:
                return UUID(page["items"][0]["operation_id"])


def build_webhook(server: RunningServer, operation_id: UUID) -> tuple[dict[str, str], bytes]:
    secret = server.secret or Path(server.log.parent, "keys", "secret").read_text()
    charge = Succeeded(f"ch_{operation_id.hex}")
    return SandboxWebhooks(secret.encode()).build_signed_event(
        operation_id, charge, datetime.now(UTC)
    )


async def send_webhook(shop: Shop, headers: dict[str, str], body: bytes) -> httpx2.Response:
    return await shop.send("POST", "/payments/webhooks/sandbox", headers=headers, content=body)


@pytest.mark.parametrize("method", ["sandbox_ok", "sandbox_webhook_first"])
async def test_cancel_races_with_payment(shop: Shop, database: DatabaseReader, method: str) -> None:
    """The stock must be released and the money refunded, in either order of the requests."""
    orders = await asyncio.gather(*(place_new_order(shop) for _ in range(10)))

    await asyncio.gather(*(pay_and_cancel(shop, buyer, order, method) for buyer, order in orders))

    for buyer, order in orders:
        await shop.wait_for_status(buyer, order["order_id"], status="cancelled")
        await shop.wait_for_available(order["lines"][0]["product_id"], 10)
        await wait_until_refunded(database, UUID(order["payment"]["payment_id"]))
    assert await database.fetch_all(BROKEN) == []


async def pay_and_cancel(shop: Shop, buyer: Person, order: dict[str, Any], method: str) -> None:
    path = f"/orders/{order['order_id']}/cancel"
    paid, cancelled = await asyncio.gather(
        retry_conflicts(lambda: shop.confirm(buyer, order["payment"]["payment_id"], method)),
        retry_conflicts(lambda: shop.post(path, buyer, json={"reason": "too slow"})),
    )
    assert paid.status_code in {200, 409}
    expect_status(cancelled, 200)


async def wait_until_refunded(database: DatabaseReader, payment_id: UUID) -> None:
    """Wait until asynchronous refunds have returned all money. Raises TimeoutError."""
    captured: Any = None
    async with progress_limit(TIMEOUT_SECONDS) as limit:
        while captured != 0:
            limit.note(captured)
            charges = await database.fetch_all(CHARGES, payment_id)
            captured = sum(
                c["amount"] - c["refunded"] for c in charges if c["status"] == "succeeded"
            )
            await asyncio.sleep(0.01)


async def place_new_order(shop: Shop) -> tuple[Person, dict[str, Any]]:
    buyer, product = await shop.customer(), await shop.product(stock=10)
    return buyer, expect_status(await shop.place(buyer, product["product_id"]), 201)


async def assert_charged_once(database: DatabaseReader, order: dict[str, Any]) -> None:
    payment_id = UUID(order["payment"]["payment_id"])
    charges = [tuple(row) for row in await database.fetch_all(CHARGES, payment_id)]
    postings = [row["kind"] for row in await database.fetch_all(POSTINGS, payment_id)]
    assert charges == [("succeeded", order["total"]["amount"], 0)]
    assert postings == ["capture"]
    assert await database.fetch_all(BROKEN) == []
