"""Test SIGKILL at any write of an order that is authorized first, and captured as it is shipped."""

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

SHIPMENTS: Final = (1, 2)
OUTCOME: Final = """
SELECT o.status, p.status AS payment_status, p.captured, p.refunded,
  coalesce(l.fulfilled, 0) AS fulfilled, s.on_hand, s.reserved
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
        scratch, server_url, template, payments_capture="on_fulfilment"
    ) as shop:
        yield shop


@pytest.fixture(scope="module")
async def abandoned_shop(
    scratch: Path, server_url: str, template: str
) -> AsyncIterator[RetryingShop]:
    """Start a server whose abandoned orders end soon.

    Only for tests that abandon orders: on a slow machine, the reservation might expire before a
    client that repeats its requests has paid.
    """
    async with open_retrying_shop(
        scratch,
        server_url,
        template,
        payments_capture="on_fulfilment",
        reservation_ttl_seconds=str(RESERVATION_TTL_SECONDS),
    ) as shop:
        yield shop


async def ship_in_parts(journey: Journey) -> None:
    """Pay an order, and ship it in two parts; each shipment captures its price."""
    order = await journey.place_order()
    await authorize(journey, order)
    await journey.wait_for_status(order, status="processing", payment_status="authorized")
    admin = journey.shop.admin
    for quantity in SHIPMENTS:
        path = f"/orders/{order['order_id']}/fulfilments"
        shipment = await journey.post(path, admin, parcel(order, quantity), 201)
        path = f"/fulfilments/{shipment['fulfilment_id']}/deliver"
        await journey.post(path, admin, None, 200)
    await journey.wait_for_status(order, status="completed", payment_status="paid")
    await journey.assert_final_state(on_hand=STOCK - QUANTITY, refunded=0)


async def authorize(journey: Journey, order: dict[str, Any]) -> None:
    """Pay the order. Pay again if the authorization fails, which may happen after a crash."""
    path = f"/payments/{order['payment']['payment_id']}/confirm"
    status = ""
    while status != "authorized":
        paid = await journey.post(path, journey.buyer, {"payment_method": "sandbox_ok"}, 200)
        status = paid["status"]
        assert status in {"authorized", "failed"}


def parcel(order: dict[str, Any], quantity: int) -> dict[str, Any]:
    line = {"line_id": order["lines"][0]["line_id"], "quantity": quantity}
    return {"carrier": "DHL", "tracking_number": "1", "lines": [line]}


async def test_shipments_are_captured_once_whenever_server_is_killed(
    retrying_shop: RetryingShop, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary run tries a few crash points; `make test-crash-recovery` tries all."""
    buyer, restarts = await retrying_shop.customer(), retrying_shop.restartable.restarts
    points = crash_points(await record_writes(retrying_shop, buyer, ship_in_parts))

    for number, moment in points if FULL else evenly_spread(points, SAMPLE_SIZE):
        await run_with_crash(retrying_shop, buyer, ship_in_parts, number, moment)

    crashes = retrying_shop.restartable.restarts - restarts
    report(capsys, "shipped in parts", len(points), crashes, Counter())
    assert crashes >= (len(points) * 2 // 3 if FULL else SAMPLE_SIZE - 2)


async def test_shipment_is_captured_without_its_client(
    abandoned_shop: RetryingShop, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client repeats no request. The captured amount is the price of the shipped units."""
    journey = AbandonedJourney(
        "client of a shipment gone",
        pay_and_ship,
        outcome_of,
        complete="shipped and captured in part",
    )

    await journey.kill_at_each_write(abandoned_shop, capsys)


async def pay_and_ship(shop: AbandoningShop, buyer: Person, product_id: str) -> None:
    order = expect_status(await shop.place(buyer, product_id, QUANTITY), 201)
    expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")
    path, body = f"/orders/{order['order_id']}/fulfilments", parcel(order, SHIPMENTS[0])
    expect_status(await shop.post(path, shop.admin, json=body), 201)


async def outcome_of(shop: RetryingShop, product_id: str) -> str:
    """Check that the stock and the money of the order agree. Return the outcome in words."""
    database = shop.restartable.database
    assert await database.fetch_all(BROKEN) == []
    found = [tuple(row) for row in await database.fetch_all(OUTCOME, product_id)]
    assert len(found) == 1, found
    status, payment_status, captured, refunded, fulfilled, on_hand, reserved = found[0]
    assert (captured or 0) == fulfilled * AMOUNT, found
    assert not refunded, found
    if status == "processing":
        assert payment_status == "authorized", found
        assert (on_hand, reserved) == (STOCK - fulfilled, QUANTITY - fulfilled), found
        return "shipped and captured in part" if fulfilled else "authorized"
    assert status in {None, "expired", "cancelled"}, found
    assert (on_hand, reserved) == (STOCK, 0), found
    return "ended unpaid" if status else "no order"
