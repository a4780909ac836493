"""Test SIGKILL at any write: acknowledged work is finished, and is neither lost nor duplicated."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.restartable_server import TIMEOUT_SECONDS, RetryingShop, open_retrying_shop
from tests.e2e.shop import Person, expect_status
from tests.progress import progress_limit

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
NO_CRASH = 10**9
STOCK, QUANTITY, AMOUNT = 10, 3, 700

# finds unfinished work; the server is idle when there is none
UNFINISHED = """
SELECT 'event not sent' AS what FROM orders.outbox WHERE published_at IS NULL
UNION ALL SELECT 'event not sent' FROM payments.outbox WHERE published_at IS NULL
UNION ALL SELECT 'event not handled: ' || handler || ' ' || error FROM orders.inbox
  WHERE state <> 'done'
UNION ALL SELECT 'operation is ' || status FROM payments.operation
  WHERE status IN ('pending', 'unknown')
UNION ALL SELECT 'payment is ' || status FROM payments.payment
  WHERE status IN ('created', 'processing', 'unknown') AND order_id IS NOT NULL
UNION ALL SELECT 'reservation is ' || status FROM inventory.reservation
  WHERE status IN ('held', 'committed')
UNION ALL SELECT 'record has no response' FROM orders.idempotency_record WHERE response IS NULL
UNION ALL SELECT 'record has no response' FROM payments.idempotency_record WHERE response IS NULL
"""
# checks invariants of the whole database; each row is a violation
BROKEN = """
SELECT 'on_hand is not the sum of the movements' AS what FROM inventory.stock s WHERE on_hand <>
  (SELECT coalesce(sum(delta), 0) FROM inventory.stock_movement m
   WHERE (m.product_id, m.warehouse_id) = (s.product_id, s.warehouse_id))
UNION ALL SELECT 'reserved is not the sum of the reservations' FROM inventory.stock s WHERE
reserved <>
  (SELECT coalesce(sum(l.reserved), 0) FROM inventory.reservation_line l
   WHERE (l.product_id, l.warehouse_id) = (s.product_id, s.warehouse_id))
UNION ALL SELECT 'captured differs from the amount at the provider' FROM payments.payment p
  WHERE order_id IS NOT NULL AND (captured, refunded) <>
  (SELECT coalesce(sum(c.captured), 0), coalesce(sum(c.refunded), 0) FROM payments.operation o
   JOIN payments.sandbox_charge c USING (operation_id) WHERE o.payment_id = p.payment_id)
UNION ALL SELECT 'two charges' FROM payments.operation o
  JOIN payments.sandbox_charge c USING (operation_id)
  WHERE c.captured > 0 OR c.status = 'authorized' GROUP BY o.payment_id HAVING count(*) > 1
UNION ALL SELECT 'a charge without an operation' FROM payments.sandbox_charge c
  WHERE NOT EXISTS (SELECT FROM payments.operation o WHERE o.operation_id = c.operation_id)
UNION ALL SELECT 'the total is not the sum' FROM orders."order" o WHERE subtotal <>
  (SELECT sum(total) FROM orders.order_line l WHERE l.order_id = o.order_id)
UNION ALL SELECT 'payment amount differs from the order total' FROM orders."order" o
  JOIN payments.payment p USING (payment_id) WHERE p.amount <> o.total
UNION ALL SELECT 'the ledger does not balance' FROM payments.entry
  GROUP BY posting_id, currency HAVING sum(amount) <> 0
UNION ALL SELECT 'two orders of one key' FROM orders."order" GROUP BY reservation_id
  HAVING count(*) > 1
UNION ALL SELECT 'the numbers of invoices have a gap' FROM orders.invoice
  GROUP BY kind HAVING (min(number), max(number)) <> (1, count(*))
UNION ALL SELECT 'the last number is not that of an invoice' FROM orders.invoice_counter c
  WHERE last_number <> (SELECT count(*) FROM orders.invoice i WHERE i.kind = c.kind)
UNION ALL SELECT 'a paid order has no invoice' FROM orders."order" o
  WHERE status IN ('processing', 'completed')
  AND NOT EXISTS (SELECT FROM orders.invoice i
                  WHERE (i.kind, i.source_id) = ('invoice', o.order_id))
"""


@dataclass
class Journey:
    """The requests for one order, by its customer and by the admin, with all responses."""

    shop: RetryingShop
    buyer: Person
    product_id: str
    responses: list[tuple[str, Person, str, Any, httpx2.Response]] = field(default_factory=list)

    async def post(self, path: str, person: Person, body: Any, status: int) -> dict[str, Any]:
        key = secrets.token_hex(16)
        answer = await self.shop.post(path, person, key, json=body)
        self.responses.append((path, person, key, body, answer))
        return expect_status(answer, status)

    async def place_order(self) -> dict[str, Any]:
        body = {"product_id": self.product_id, "quantity": QUANTITY, "shipping_address": "Market 1"}
        return await self.post("/orders", self.buyer, body, 201)

    async def pay(self, order: dict[str, Any]) -> None:
        """Pay the order. Pay again if the charge fails, which may happen after a crash."""
        path = f"/payments/{order['payment']['payment_id']}/confirm"
        status = ""
        while status != "captured":
            paid = await self.post(path, self.buyer, {"payment_method": "sandbox_ok"}, 200)
            status = paid["status"]
            assert status in {"captured", "failed"}

    async def run_to_delivery(self) -> None:
        order = await self.place_order()
        await self.pay(order)
        await self.wait_for_status(order, status="processing")
        parcel = {"carrier": "DHL", "tracking_number": "1"}
        admin, path = self.shop.admin, f"/orders/{order['order_id']}/fulfilments"
        fulfilment = await self.post(path, admin, parcel, 201)
        await self.post(f"/fulfilments/{fulfilment['fulfilment_id']}/deliver", admin, None, 200)
        await self.wait_for_status(order, status="completed")
        await self.assert_final_state(on_hand=STOCK - QUANTITY, refunded=0)

    async def run_to_refund(self) -> None:
        order = await self.place_order()
        await self.pay(order)
        await self.wait_for_status(order, status="processing")
        await self.cancel(order)

    async def cancel_right_after_payment(self) -> None:
        """Pay an order and cancel it, without waiting until the payment event is processed."""
        order = await self.place_order()
        await self.pay(order)
        await self.cancel(order)

    async def cancel(self, order: dict[str, Any]) -> None:
        await self.post(f"/orders/{order['order_id']}/cancel", self.buyer, {"reason": "no"}, 200)
        await self.wait_for_status(order, status="cancelled", payment_status="refunded")
        await self.assert_final_state(on_hand=STOCK, refunded=QUANTITY * AMOUNT)

    async def wait_for_status(self, order: dict[str, Any], **expected: str) -> None:
        status: dict[str, Any] = {}
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while any(status.get(name) != value for name, value in expected.items()):
                status = await self.shop.status(self.buyer, order["order_id"])
                limit.note(status)
                await asyncio.sleep(0.02)

    async def assert_final_state(self, *, on_hand: int, refunded: int) -> None:
        """Wait until idle, then check that stock and payment are the same as without a crash."""
        database = self.shop.restartable.database
        await wait_until_idle(self.shop)
        assert await database.fetch_all(BROKEN) == []
        stock_query = "SELECT on_hand, reserved FROM inventory.stock WHERE product_id = $1"
        assert [tuple(row) for row in await database.fetch_all(stock_query, self.product_id)] == [
            (on_hand, 0)
        ]
        payment_query = (
            "SELECT p.captured, p.refunded FROM orders.order_line l"
            ' JOIN orders."order" USING (order_id) JOIN payments.payment p USING (payment_id)'
            " WHERE l.product_id = $1"
        )
        expected = [(QUANTITY * AMOUNT, refunded)]
        assert [
            tuple(row) for row in await database.fetch_all(payment_query, self.product_id)
        ] == expected

    async def assert_responses_are_replayed(self) -> None:
        """Check that repeated requests with the same idempotency keys get the same responses."""
        for path, person, key, body, first in self.responses:
            again = await self.shop.post(path, person, key, json=body)
            assert (again.status_code, again.text) == (first.status_code, first.text)
            assert again.headers["idempotency-replayed"] == "true"
            assert again.headers.get("location") == first.headers.get("location")


async def wait_until_idle(shop: RetryingShop) -> None:
    """Wait until no work is unfinished. If the server is killed during the wait, restart it.

    Raises AssertionError when there is no progress.
    """
    unfinished: list[Any] = [None]
    try:
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while unfinished or shop.restartable.has_exited:
                await shop.get("/health")
                rows = await shop.restartable.database.fetch_all(UNFINISHED)
                unfinished = [row["what"] for row in rows]
                limit.note(unfinished)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not finished: {unfinished}") from None


# maps a name to the journey, and to the number of crash points that an ordinary run tries
JOURNEYS: dict[str, tuple[Callable[[Journey], Awaitable[None]], int]] = {
    "delivered": (Journey.run_to_delivery, 5),
    "refunded": (Journey.run_to_refund, 4),
    "refunded at once": (Journey.cancel_right_after_payment, 3),
}


@pytest.fixture(scope="module")
async def retrying_shop(
    scratch: Path, server_url: str, template: str
) -> AsyncIterator[RetryingShop]:
    async with open_retrying_shop(scratch, server_url, template) as shop:
        yield shop


@pytest.mark.parametrize("journey_name", JOURNEYS)
async def test_order_completes_whenever_server_is_killed(
    retrying_shop: RetryingShop, journey_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary run tries a few crash points; `make test-crash-recovery` tries all."""
    run, sample_size = JOURNEYS[journey_name]
    buyer, restarts_before = await retrying_shop.customer(), retrying_shop.restartable.restarts
    writes = await record_writes(retrying_shop, buyer, run)

    points = crash_points(writes)
    for number, moment in points if FULL else evenly_spread(points, sample_size):
        # After a kill, the event of the killed handler is made due at once. Only after a kill at a
        # write to orders.inbox, a full run waits 30 s instead, until the handler's lease ends.
        retrying_shop.restartable.makes_retries_due = not (
            FULL and writes[number - 1] == "orders.inbox"
        )
        await run_with_crash(retrying_shop, buyer, run, number, moment)

    crashes = retrying_shop.restartable.restarts - restarts_before
    with capsys.disabled():
        counts = f"{len(writes)} writes, {len(points)} crash points, {crashes} crashes"
        print(f"\n{journey_name}: {counts}")
    # the number of writes varies with the order of events, so a run may end before the planned
    # crash point
    assert crashes >= (len(points) * 2 // 3 if FULL else sample_size - 2)


async def record_writes(
    shop: RetryingShop, buyer: Person, run: Callable[[Journey], Awaitable[None]]
) -> list[str]:
    """Run without a crash and return the writes in order."""
    journey = await new_journey(shop, buyer)
    shop.restartable.kill_at_write(NO_CRASH, "after")
    await run(journey)
    writes = shop.restartable.written_since_plan()
    shop.restartable.clear_kill_plan()
    await journey.assert_responses_are_replayed()
    return writes


async def run_with_crash(
    shop: RetryingShop,
    buyer: Person,
    run: Callable[[Journey], Awaitable[None]],
    number: int,
    moment: str,
) -> None:
    journey = await new_journey(shop, buyer)
    shop.restartable.kill_at_write(number, moment)
    try:
        await run(journey)
        shop.restartable.clear_kill_plan()
        await journey.assert_responses_are_replayed()
    except BaseException as error:
        error.add_note(f"killed {moment} write {number} of {shop.restartable.written_since_plan()}")
        raise


async def new_journey(shop: RetryingShop, buyer: Person) -> Journey:
    """Return a journey with a new product, on an idle server."""
    product = await shop.product(stock=STOCK, amount=AMOUNT)
    await wait_until_idle(shop)
    return Journey(shop, buyer, product["product_id"])


def crash_points(writes: list[str]) -> list[tuple[int, str]]:
    """Return a crash point after each write and before each commit."""
    return [
        (number, moment)
        for number, write in enumerate(writes, start=1)
        for moment in ("before", "after")
        if moment == "after" or write.endswith("COMMIT")
    ]


def evenly_spread(points: list[tuple[int, str]], sample_size: int) -> list[tuple[int, str]]:
    """Return `sample_size` of the points, evenly spread from the first to the last."""
    step = (len(points) - 1) / (sample_size - 1)
    return [points[round(step * index)] for index in range(sample_size)]
