"""Test SIGKILL at any write of a payment, with a client that retries and with one that gives up.

No money is lost, charged twice or refunded twice. In the end, no stock is reserved for an unpaid
order.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.e2e.dedicated_server import dedicated_database
from tests.e2e.restartable_server import TIMEOUT_SECONDS, RetryingShop, open_restartable_server
from tests.e2e.servers import ADMIN
from tests.e2e.shop import Person, Shop, expect_status
from tests.e2e.test_crash import (
    AMOUNT,
    BROKEN,
    FULL,
    QUANTITY,
    STOCK,
    Journey,
    crash_points,
    evenly_spread,
    record_writes,
    run_with_crash,
)
from tests.progress import progress_limit

TOTAL: Final = QUANTITY * AMOUNT
REFUNDS: Final = (600, 700)
# an unpaid order ends after this time; it is longer than a journey takes
RESERVATION_TTL_SECONDS: Final = 8.0
# the number of crash points that an ordinary run tries
SAMPLE_SIZE: Final = 4

# finds work that a killed server left unfinished; stock reserved for a paid order is not such work
UNSETTLED: Final = """
SELECT 'event not sent' AS what FROM orders.outbox WHERE published_at IS NULL
UNION ALL SELECT 'event not sent' FROM payments.outbox WHERE published_at IS NULL
UNION ALL SELECT 'event not handled: ' || handler || ' ' || error FROM orders.inbox
  WHERE state <> 'done'
UNION ALL SELECT 'operation is ' || status FROM payments.operation
  WHERE status IN ('pending', 'unknown')
UNION ALL SELECT 'payment is ' || status FROM payments.payment
  WHERE status IN ('created', 'processing', 'unknown', 'failed') AND order_id IS NOT NULL
UNION ALL SELECT 'order is pending' FROM orders."order" WHERE status = 'pending'
UNION ALL SELECT 'reservation is held' FROM inventory.reservation WHERE status = 'held'
"""
OUTCOME: Final = """
SELECT o.status, p.status AS payment_status, p.captured, p.refunded, s.on_hand, s.reserved
FROM inventory.stock s
LEFT JOIN orders.order_line l USING (product_id)
LEFT JOIN orders."order" o USING (order_id)
LEFT JOIN payments.payment p USING (payment_id)
WHERE s.product_id = $1
"""


class ClientGone(Exception):
    """Signals that the client has got no answer and sends no more requests."""


class AbandoningShop(Shop):
    """A shop client that gives up at the first request without an answer."""

    def __init__(self, retrying: RetryingShop) -> None:
        super().__init__(retrying.server, retrying.http)
        self.admin, self.restartable = retrying.admin, retrying.restartable

    async def send(
        self, method: str, path: str, person: Person | None = None, **options: Any
    ) -> httpx2.Response:
        try:
            return await super().send(method, path, person, **options)
        except httpx2.TransportError:
            raise ClientGone from None


@pytest.fixture(scope="module")
async def retrying_shop(
    scratch: Path, server_url: str, template: str
) -> AsyncIterator[RetryingShop]:
    async with (
        dedicated_database(server_url, template) as url,
        open_restartable_server(
            scratch,
            url,
            reservation_ttl_seconds=str(RESERVATION_TTL_SECONDS),
        ) as restartable,
        httpx2.AsyncClient(timeout=20) as http,
    ):
        shop = RetryingShop(restartable, http)
        await shop.sign_in_admin(*ADMIN)
        yield shop


# With a client that retries


async def refund_after_delivery(journey: Journey) -> None:
    """Deliver an order. Then staff refund two parts of its payment."""
    order = await journey.place_order()
    await journey.pay(order)
    await journey.wait_for_status(order, status="processing")
    admin, path = journey.shop.admin, f"/orders/{order['order_id']}/fulfilments"
    parcel = {"carrier": "DHL", "tracking_number": "1"}
    fulfilment = await journey.post(path, admin, parcel, 201)
    await journey.post(f"/fulfilments/{fulfilment['fulfilment_id']}/deliver", admin, None, 200)
    await journey.wait_for_status(order, status="completed")
    for amount in REFUNDS:
        await refund(journey, order, amount)
    await journey.wait_for_status(order, payment_status="partially_refunded")
    await journey.assert_final_state(on_hand=STOCK - QUANTITY, refunded=sum(REFUNDS))


async def refund(journey: Journey, order: dict[str, Any], amount: int) -> None:
    path = f"/payments/{order['payment']['payment_id']}/refunds"
    body = {"amount": {"amount": amount, "currency": "EUR"}, "reason": "damaged"}
    made = await journey.post(path, journey.shop.admin, body, 201)
    assert made["status"] == "succeeded"


async def test_refunds_are_made_once_whenever_server_is_killed(
    retrying_shop: RetryingShop, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary run tries a few crash points; `make test-crash-recovery` tries all."""
    buyer, restarts = await retrying_shop.customer(), retrying_shop.restartable.restarts
    writes = await record_writes(retrying_shop, buyer, refund_after_delivery)
    # Skip the writes before the first refund: test_crash.py kills the server at the same writes in
    # its journey `delivered`. The refund begins at the first commit of payments.payment after the
    # last write of inventory.
    first = writes.index("payments.payment COMMIT", last_index(writes, "inventory."))
    points = [point for point in crash_points(writes) if point[0] > first]

    for number, moment in points if FULL else evenly_spread(points, SAMPLE_SIZE):
        await run_with_crash(retrying_shop, buyer, refund_after_delivery, number, moment)

    crashes = retrying_shop.restartable.restarts - restarts
    report(capsys, "refunded in parts", len(points), crashes, Counter())
    assert crashes >= (len(points) * 2 // 3 if FULL else SAMPLE_SIZE - 2)


# With a client that is gone


async def test_payment_settles_without_its_client(
    retrying_shop: RetryingShop, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client never repeats a request. The order ends paid, or with its stock released."""
    buyer, restarts = await retrying_shop.customer(), retrying_shop.restartable.restarts
    writes = await record_abandoned_writes(retrying_shop, buyer)
    points, outcomes = crash_points(writes), Counter[str]()

    for number, moment in points if FULL else evenly_spread(points, SAMPLE_SIZE):
        product_id = await new_product(retrying_shop)
        retrying_shop.restartable.kill_at_write(number, moment)
        await run_abandoned(retrying_shop, buyer, product_id)
        await wait_until_settled(retrying_shop)
        retrying_shop.restartable.clear_kill_plan()
        try:
            outcomes[await outcome_of(retrying_shop, product_id)] += 1
        except AssertionError as error:
            error.add_note(f"killed {moment} write {number}: {writes[number - 1]}")
            raise

    crashes = retrying_shop.restartable.restarts - restarts
    report(capsys, "client gone", len(points), crashes, outcomes)
    assert crashes >= (len(points) * 2 // 3 if FULL else SAMPLE_SIZE - 2)


async def record_abandoned_writes(shop: RetryingShop, buyer: Person) -> list[str]:
    product_id = await new_product(shop)
    shop.restartable.kill_at_write(10**9, "after")
    await run_abandoned(shop, buyer, product_id)
    await wait_until_settled(shop)
    writes = shop.restartable.written_since_plan()
    shop.restartable.clear_kill_plan()
    assert await outcome_of(shop, product_id) == "paid and refunded in part"
    return writes


async def new_product(shop: RetryingShop) -> str:
    """Create a product, on a server without unsettled work, and return its id."""
    product = await shop.product(stock=STOCK, amount=AMOUNT)
    await wait_until_settled(shop)
    return str(product["product_id"])


async def run_abandoned(retrying: RetryingShop, buyer: Person, product_id: str) -> None:
    """Place an order, pay it and refund a part. Stop at the first request without an answer."""
    shop = AbandoningShop(retrying)
    try:
        order = expect_status(await shop.place(buyer, product_id, QUANTITY), 201)
        payment_id = order["payment"]["payment_id"]
        expect_status(await shop.confirm(buyer, payment_id), 200)
        await shop.wait_for_status(buyer, order["order_id"], status="processing")
        body = {"amount": {"amount": REFUNDS[0], "currency": "EUR"}, "reason": "damaged"}
        key = secrets.token_hex(8)
        path = f"/payments/{payment_id}/refunds"
        expect_status(await shop.post(path, shop.admin, key, json=body), 201)
        await shop.wait_for_status(buyer, order["order_id"], payment_status="partially_refunded")
    except ClientGone:
        await retrying.restartable.restart()


async def wait_until_settled(shop: RetryingShop) -> None:
    """Wait until no work is left. If the server is killed during the wait, restart it.

    Raises TimeoutError when there is no progress.
    """
    unsettled: list[str] = [""]
    async with progress_limit(TIMEOUT_SECONDS) as limit:
        while unsettled or shop.restartable.has_exited:
            await shop.get("/health")
            rows = await shop.restartable.database.fetch_all(UNSETTLED)
            unsettled = [row["what"] for row in rows]
            limit.note(unsettled)
            await asyncio.sleep(0.02)


async def outcome_of(shop: RetryingShop, product_id: str) -> str:
    """Check that the stock and the money of the order agree. Return the outcome in words."""
    database = shop.restartable.database
    assert await database.fetch_all(BROKEN) == []
    found = [tuple(row) for row in await database.fetch_all(OUTCOME, product_id)]
    assert len(found) == 1, found
    status, _, captured, refunded, on_hand, reserved = found[0]
    assert on_hand == STOCK
    if status == "processing":
        assert (captured, reserved) == (TOTAL, QUANTITY), found
        assert refunded in {0, REFUNDS[0]}, found
        return "paid and refunded in part" if refunded else "paid"
    assert status in {None, "expired", "cancelled"}, found
    assert reserved == 0, found
    assert captured == refunded, found
    return "ended unpaid" if status else "no order"


def last_index(writes: list[str], prefix: str) -> int:
    return max(number for number, write in enumerate(writes) if write.startswith(prefix))


def report(
    capsys: pytest.CaptureFixture[str],
    name: str,
    points: int,
    crashes: int,
    outcomes: Counter[str],
) -> None:
    with capsys.disabled():
        counts = ", ".join(f"{what}: {count}" for what, count in outcomes.items())
        print(f"\n{name}: {points} crash points, {crashes} crashes. {counts}")
