"""Test SIGKILL at each message to Postgres from the request of a return until its refund.

The client either repeats each request until it is answered, or gives up at the first lost answer.
"""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.abandoned_orders import AbandoningShop, ClientGone, report, wait_until_settled
from tests.e2e.restartable_server import RetryingShop
from tests.e2e.shop import Person, Shop, expect_status
from tests.e2e.test_cart_crash import (
    NO_CRASH,
    Setup,
    crash_points,
    min_crashes,
    open_setup,
)
from tests.e2e.test_crash import BROKEN

STOCK, AMOUNT, ORDERED = 10, 700, 4
# all returned units are restocked, except the scrapped ones
RETURNED, SCRAPPED = 3, 1
LEFT: Final = STOCK - ORDERED

OUTCOME: Final = """
SELECT r.status, r.refund, r.refunded, l.restocked, l.scrapped, p.captured,
  p.refunded AS paid_back, s.on_hand, s.reserved,
  (SELECT count(*) FROM inventory.stock_movement m
   WHERE (m.product_id, m.reason) = (s.product_id, 'returned')) AS movements,
  (SELECT count(*) FROM payments.posting WHERE (payment_id, kind) = (p.payment_id, 'refund'))
    AS refunds
FROM orders."order" o
JOIN orders.order_line ol USING (order_id)
JOIN payments.payment p USING (payment_id)
JOIN inventory.stock s USING (product_id)
LEFT JOIN orders.return r ON r.order_id = o.order_id
LEFT JOIN orders.return_line l USING (return_id)
WHERE o.order_id = $1
"""


@dataclass(frozen=True)
class Delivered:
    """A delivered order of one product, and its buyer."""

    buyer: Person
    order_id: str
    line_id: str


@pytest.fixture
async def setup(scratch: Path, server_url: str, template: str) -> AsyncIterator[Setup]:
    async with open_setup(scratch, server_url, template) as setup:
        yield setup


async def test_return_is_refunded_once_whenever_server_is_killed(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary run kills at a few messages; `make test-crash-recovery` kills at each."""
    restarts, outcomes = setup.shop.restartable.restarts, Counter[str]()
    messages = await count_messages(setup)

    for number in crash_points(messages):
        delivered = await deliver_order(setup.shop)
        setup.kill_at_message(number)
        await return_units(setup.shop, delivered)
        await wait_until_settled(setup.shop)
        setup.proxy.clear_kill_plan()
        outcome = await outcome_of(setup.shop, delivered)
        assert outcome == "closed", f"killed at message {number}: {outcome}"
        outcomes[outcome] += 1

    crashes = setup.shop.restartable.restarts - restarts
    report(capsys, "return with retries", messages, crashes, outcomes)
    assert crashes >= min_crashes(messages)


async def test_return_settles_without_its_client(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client never repeats a request. The server keeps and settles what it has acknowledged."""
    restarts, outcomes = setup.shop.restartable.restarts, Counter[str]()
    messages = await count_messages(setup)

    for number in crash_points(messages):
        delivered = await deliver_order(setup.shop)
        setup.kill_at_message(number)
        try:
            await return_units(AbandoningShop(setup.shop), delivered)
        except ClientGone:
            await setup.shop.restartable.restart()
        await wait_until_settled(setup.shop)
        setup.proxy.clear_kill_plan()
        outcomes[await outcome_of(setup.shop, delivered)] += 1

    crashes = setup.shop.restartable.restarts - restarts
    report(capsys, "return without client", messages, crashes, outcomes)
    assert crashes >= min_crashes(messages)


async def return_units(shop: Shop, delivered: Delivered) -> None:
    """Request a return, approve it, receive its units in two parts, and close it."""
    body: dict[str, Any] = {"lines": [_line(delivered, RETURNED)], "reason": "does not fit"}
    path = f"/orders/{delivered.order_id}/returns"
    made = expect_status(await shop.post(path, delivered.buyer, json=body), 201)
    path = f"/returns/{made['return_id']}"
    expect_status(await shop.post(f"{path}/approve", shop.admin), 200)
    for quantity, disposition in ((RETURNED - SCRAPPED, "restock"), (SCRAPPED, "scrap")):
        line = {**_line(delivered, quantity), "condition": "opened", "disposition": disposition}
        body = {"lines": [line]}
        expect_status(await shop.post(f"{path}/receive", shop.admin, json=body), 200)
    expect_status(await shop.post(f"{path}/close", shop.admin, json={}), 200)


def _line(delivered: Delivered, quantity: int) -> dict[str, Any]:
    return {"line_id": delivered.line_id, "quantity": quantity}


async def deliver_order(shop: RetryingShop) -> Delivered:
    """Deliver an order to a new customer, and wait until the server has no unsettled work."""
    buyer = await shop.customer()
    product_id = (await shop.product(stock=STOCK, amount=AMOUNT))["product_id"]
    order = expect_status(await shop.place(buyer, product_id, ORDERED), 201)
    expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")
    path = f"/orders/{order['order_id']}/fulfilments"
    shipped = expect_status(await shop.post(path, shop.admin, json={}), 201)
    path = f"/fulfilments/{shipped['fulfilment_id']}/deliver"
    expect_status(await shop.post(path, shop.admin), 200)
    await wait_until_settled(shop)
    return Delivered(buyer, order["order_id"], order["lines"][0]["line_id"])


async def count_messages(setup: Setup) -> int:
    """Return the number of messages of a return without a crash."""
    delivered = await deliver_order(setup.shop)
    setup.kill_at_message(NO_CRASH)
    await return_units(setup.shop, delivered)
    await wait_until_settled(setup.shop)
    messages = setup.proxy.count
    setup.proxy.clear_kill_plan()
    assert await outcome_of(setup.shop, delivered) == "closed"
    return messages


async def outcome_of(shop: RetryingShop, delivered: Delivered) -> str:
    """Check that the return, the stock and the money agree. Return the status of the return."""
    database = shop.restartable.database
    assert await database.fetch_all(BROKEN) == []
    found = [dict(row) for row in await database.fetch_all(OUTCOME, delivered.order_id)]
    assert len(found) == 1, found
    row = found[0]
    restocked = row["restocked"] or 0
    assert (row["on_hand"], row["reserved"]) == (LEFT + restocked, 0), row
    assert row["movements"] == (1 if restocked else 0), row
    is_closed = row["status"] == "closed"
    refunded = AMOUNT * RETURNED if is_closed else 0
    assert (row["captured"], row["paid_back"]) == (AMOUNT * ORDERED, refunded), row
    assert row["refunds"] == int(is_closed), row
    if is_closed:
        assert (row["refund"], row["refunded"]) == (refunded, refunded), row
        assert (restocked, row["scrapped"]) == (RETURNED - SCRAPPED, SCRAPPED), row
    return row["status"] or "no return"
