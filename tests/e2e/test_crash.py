"""kill -9 at any write: nothing acknowledged is lost, nothing is done twice, nothing hangs."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.dedicated_server import dedicated_database
from tests.e2e.restartable_server import TIMEOUT_SECONDS, RetryingShop, open_restartable_server
from tests.e2e.servers import ADMIN
from tests.e2e.shop import Person, good

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
NEVER = 10**9
STOCK, QUANTITY, AMOUNT = 10, 3, 700

# what must not be left over, anywhere, when all has come to rest
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
# O1 to O4, over the whole database: each row is a broken promise
BROKEN = """
SELECT 'on_hand is not the sum of the movements' AS what FROM inventory.stock s WHERE on_hand <>
  (SELECT coalesce(sum(delta), 0) FROM inventory.stock_movement m
   WHERE (m.product_id, m.warehouse_id) = (s.product_id, s.warehouse_id))
UNION ALL SELECT 'reserved is not the sum of the holds' FROM inventory.stock s WHERE reserved <>
  (SELECT coalesce(sum(l.reserved), 0) FROM inventory.reservation_line l
   WHERE (l.product_id, l.warehouse_id) = (s.product_id, s.warehouse_id))
UNION ALL SELECT 'the provider took another amount' FROM payments.payment p
  WHERE order_id IS NOT NULL AND (captured, refunded) <>
  (SELECT coalesce(sum(c.amount), 0), coalesce(sum(c.refunded), 0) FROM payments.operation o
   JOIN payments.sandbox_charge c USING (operation_id)
   WHERE o.payment_id = p.payment_id AND c.status = 'succeeded')
UNION ALL SELECT 'two charges' FROM payments.operation o
  JOIN payments.sandbox_charge c USING (operation_id)
  WHERE c.status = 'succeeded' GROUP BY o.payment_id HAVING count(*) > 1
UNION ALL SELECT 'a charge that nobody knows' FROM payments.sandbox_charge c
  WHERE NOT EXISTS (SELECT FROM payments.operation o WHERE o.operation_id = c.operation_id)
UNION ALL SELECT 'the total is not the sum' FROM orders."order" o WHERE subtotal <>
  (SELECT sum(total) FROM orders.order_line l WHERE l.order_id = o.order_id)
UNION ALL SELECT 'charged something else' FROM orders."order" o
  JOIN payments.payment p USING (payment_id) WHERE p.amount <> o.total
UNION ALL SELECT 'the ledger does not balance' FROM payments.entry
  GROUP BY posting_id, currency HAVING sum(amount) <> 0
UNION ALL SELECT 'two orders of one key' FROM orders."order" GROUP BY reservation_id
  HAVING count(*) > 1
"""


@dataclass
class Journey:
    """One customer's way with one product, and every answer they got on it."""

    shop: RetryingShop
    buyer: Person
    product_id: str
    answers: list[tuple[str, Person, str, Any, httpx2.Response]] = field(default_factory=list)

    async def asks(self, path: str, who: Person, body: Any, status: int) -> dict[str, Any]:
        key = secrets.token_hex(8)
        answer = await self.shop.post(path, who, key, json=body)
        self.answers.append((path, who, key, body, answer))
        return good(answer, status)

    async def orders(self) -> dict[str, Any]:
        body = {"product_id": self.product_id, "quantity": QUANTITY, "shipping_address": "Market 1"}
        return await self.asks("/orders", self.buyer, body, 201)

    async def pays(self, order: dict[str, Any]) -> None:
        """A charge that died on its way may have been given up for good: then pay again."""
        path = f"/payments/{order['payment']['payment_id']}/confirm"
        status = ""
        while status != "captured":
            paid = await self.asks(path, self.buyer, {"payment_method": "sandbox_ok"}, 200)
            status = paid["status"]
            assert status in {"captured", "failed"}

    async def is_delivered(self) -> None:
        order = await self.orders()
        await self.pays(order)
        await self.reaches(order, status="processing")
        parcel = {"carrier": "DHL", "tracking_number": "1"}
        admin, path = self.shop.admin, f"/orders/{order['order_id']}/fulfilments"
        sent = await self.asks(path, admin, parcel, 201)
        await self.asks(f"/fulfilments/{sent['fulfilment_id']}/deliver", admin, None, 200)
        await self.reaches(order, status="completed")
        await self.has_left(on_hand=STOCK - QUANTITY, refunded=0)

    async def is_refunded(self) -> None:
        order = await self.orders()
        await self.pays(order)
        await self.reaches(order, status="processing")
        await self.is_cancelled(order)

    async def is_refunded_at_once(self) -> None:
        """The order has not heard of the payment yet, or just now."""
        order = await self.orders()
        await self.pays(order)
        await self.is_cancelled(order)

    async def is_cancelled(self, order: dict[str, Any]) -> None:
        await self.asks(f"/orders/{order['order_id']}/cancel", self.buyer, {"reason": "no"}, 200)
        await self.reaches(order, status="cancelled", payment_status="refunded")
        await self.has_left(on_hand=STOCK, refunded=QUANTITY * AMOUNT)

    async def reaches(self, order: dict[str, Any], **expected: str) -> None:
        status: dict[str, Any] = {}
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while any(status.get(name) != value for name, value in expected.items()):
                status = await self.shop.status(self.buyer, order["order_id"])
                await asyncio.sleep(0.02)

    async def has_left(self, *, on_hand: int, refunded: int) -> None:
        """All has come to rest, and is as if nobody had died."""
        database = self.shop.restartable.database
        await at_rest(self.shop)
        assert await database.fetch_all(BROKEN) == []
        shelf = "SELECT on_hand, reserved FROM inventory.stock WHERE product_id = $1"
        assert [tuple(row) for row in await database.fetch_all(shelf, self.product_id)] == [
            (on_hand, 0)
        ]
        till = (
            "SELECT p.captured, p.refunded FROM orders.order_line l"
            ' JOIN orders."order" USING (order_id) JOIN payments.payment p USING (payment_id)'
            " WHERE l.product_id = $1"
        )
        expected = [(QUANTITY * AMOUNT, refunded)]
        assert [tuple(row) for row in await database.fetch_all(till, self.product_id)] == expected

    async def answers_stand(self) -> None:
        """Who asks again with the same key is told the same."""
        for path, who, key, body, first in self.answers:
            again = await self.shop.post(path, who, key, json=body)
            assert (again.status_code, again.text) == (first.status_code, first.text)
            assert again.headers["idempotency-replayed"] == "true"
            assert again.headers.get("location") == first.headers.get("location")


async def at_rest(shop: RetryingShop) -> None:
    """Sooner or later nothing is left to do; a hall that dies meanwhile is started again."""
    left: list[Any] = [None]
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while left or shop.restartable.has_exited:
                await shop.get("/health")
                left = [
                    row["what"] for row in await shop.restartable.database.fetch_all(UNFINISHED)
                ]
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"hangs: {left}") from None


WAYS: dict[str, tuple[Callable[[Journey], Awaitable[None]], int]] = {
    "delivered": (Journey.is_delivered, 5),
    "refunded": (Journey.is_refunded, 4),
    "refunded at once": (Journey.is_refunded_at_once, 3),
}


@pytest.fixture(scope="module")
async def retrying_shop(
    scratch: Path, server_url: str, template: str
) -> AsyncIterator[RetryingShop]:
    async with (
        dedicated_database(server_url, template) as url,
        open_restartable_server(scratch, url) as restartable,
        httpx2.AsyncClient(timeout=20) as http,
    ):
        shop = RetryingShop(restartable, http)
        await shop.sign_in_admin(*ADMIN)
        yield shop


@pytest.mark.parametrize("way", WAYS)
async def test_order_completes_whenever_server_is_killed(
    retrying_shop: RetryingShop, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary run tries a few points, `make test-crash-recovery` all of them."""
    goes, few = WAYS[way]
    buyer, deaths = await retrying_shop.customer(), retrying_shop.restartable.restarts
    writes = await undisturbed(retrying_shop, buyer, goes)

    points = all_points(writes)
    for number, moment in points if FULL else spread(points, few):
        # in a full run the leases of handlers that died are waited for, 30 s each
        retrying_shop.restartable.short_ttl_shop = not (
            FULL and writes[number - 1] == "orders.inbox"
        )
        await killed_once(retrying_shop, buyer, goes, number, moment)

    tried = retrying_shop.restartable.restarts - deaths
    with capsys.disabled():
        print(f"\n{way}: {len(writes)} writes, {len(points)} crash points, {tried} crashes")  # noqa: T201 - for the report
    # events overtake each other: the last points of one run may not come in the next
    assert tried >= (len(points) * 2 // 3 if FULL else few - 2)


async def undisturbed(
    shop: RetryingShop, buyer: Person, goes: Callable[[Journey], Awaitable[None]]
) -> list[str]:
    """Everything that is written on the way, in its order."""
    journey = await prepared(shop, buyer)
    shop.restartable.kill_at_write(NEVER, "after")
    await goes(journey)
    writes = shop.restartable.written_since_plan()
    shop.restartable.clear_kill_plan()
    await journey.answers_stand()
    return writes


async def killed_once(
    shop: RetryingShop,
    buyer: Person,
    goes: Callable[[Journey], Awaitable[None]],
    number: int,
    moment: str,
) -> None:
    journey = await prepared(shop, buyer)
    shop.restartable.kill_at_write(number, moment)
    try:
        await goes(journey)
        shop.restartable.clear_kill_plan()
        await journey.answers_stand()
    except BaseException as error:
        error.add_note(f"killed {moment} write {number} of {shop.restartable.written_since_plan()}")
        raise


async def prepared(shop: RetryingShop, buyer: Person) -> Journey:
    """A product of its own, and nothing else going on."""
    product = await shop.product(stock=STOCK, amount=AMOUNT)
    await at_rest(shop)
    return Journey(shop, buyer, product["product_id"])


def all_points(writes: list[str]) -> list[tuple[int, str]]:
    """After each write, and before each commit."""
    return [
        (number, moment)
        for number, what in enumerate(writes, start=1)
        for moment in ("before", "after")
        if moment == "after" or what.endswith("COMMIT")
    ]


def spread(points: list[tuple[int, str]], few: int) -> list[tuple[int, str]]:
    """So many of them, from the first to the last."""
    step = (len(points) - 1) / (few - 1)
    return [points[round(step * index)] for index in range(few)]
