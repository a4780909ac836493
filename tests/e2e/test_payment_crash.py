"""Test SIGKILL at any write of a payment, with a client that retries and with one that gives up.

No money is lost, charged twice or refunded twice. In the end, no stock is reserved for an unpaid
order.
"""

import secrets
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.abandoned_orders import (
    RESERVATION_TTL_SECONDS,
    SAMPLE_SIZE,
    AbandonedJourney,
    AbandoningShop,
    report,
)
from tests.e2e.restartable_server import RetryingShop, open_retrying_shop
from tests.e2e.shop import Person, expect_status
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

TOTAL: Final = QUANTITY * AMOUNT
REFUNDS: Final = (600, 700)

OUTCOME: Final = """
SELECT o.status, p.status AS payment_status, p.captured, p.refunded, s.on_hand, s.reserved
FROM inventory.stock s
LEFT JOIN orders.order_line l USING (product_id)
LEFT JOIN orders."order" o USING (order_id)
LEFT JOIN payments.payment p USING (payment_id)
WHERE s.product_id = $1
"""


@pytest.fixture(scope="module")
async def retrying_shop(
    scratch: Path, server_url: str, template: str
) -> AsyncIterator[RetryingShop]:
    async with open_retrying_shop(
        scratch, server_url, template, reservation_ttl_seconds=str(RESERVATION_TTL_SECONDS)
    ) as shop:
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


# With a client that gives up


async def test_payment_settles_without_its_client(
    retrying_shop: RetryingShop, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client never repeats a request. The order is paid, or its stock is released."""
    journey = AbandonedJourney(
        "client gone", pay_and_refund, outcome_of, complete="paid and refunded in part"
    )

    await journey.kill_at_each_write(retrying_shop, capsys)


async def pay_and_refund(shop: AbandoningShop, buyer: Person, product_id: str) -> None:
    order = expect_status(await shop.place(buyer, product_id, QUANTITY), 201)
    payment_id = order["payment"]["payment_id"]
    expect_status(await shop.confirm(buyer, payment_id), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")
    body = {"amount": {"amount": REFUNDS[0], "currency": "EUR"}, "reason": "damaged"}
    path = f"/payments/{payment_id}/refunds"
    expect_status(await shop.post(path, shop.admin, secrets.token_hex(16), json=body), 201)
    await shop.wait_for_status(buyer, order["order_id"], payment_status="partially_refunded")


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
