"""Test that Postgres or a check finds wrong rows of the hand-written purchase."""

from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest

from bench.hand_written import books
from bench.hand_written.purchases import Limits
from tests.conftest import plain
from tests.hand_written_shop import HandWrittenShop, open_shop


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[HandWrittenShop]:
    async with open_shop(plain(database_url), Limits()) as shop:
        yield shop


# by a change that makes the books wrong, a check that must find it
WRONG_BOOKS: Final = {
    "UPDATE stock SET reserved = reserved - 1": (
        "the reserved stock is that of the orders that are not shipped"
    ),
    "UPDATE reservations SET status = 'held'": (
        "an unpaid order has a held reservation, a paid one a committed reservation"
    ),
    "UPDATE reservations SET quantity = 2": "a reservation has the units of its order",
    "UPDATE customers SET unpaid_orders = 1": "the unpaid orders of a customer are counted",
    "UPDATE unpaid_units SET units = units + 1": "the unpaid units of a customer are counted",
    "UPDATE orders SET total = total + 1": (
        "the total of an order is that of its lines, and is the amount of its payment"
    ),
    "UPDATE orders SET status = 'pending', payment_status = 'none'": (
        "a payment is captured if, and only if, its order is processing"
    ),
    "UPDATE operations SET status = 'failed'": (
        "a captured payment has one succeeded charge, others have none"
    ),
    "UPDATE operations SET status = 'pending', settled_at = NULL": (
        "no operation is pending, and each request has its answer"
    ),
    "DELETE FROM entries": "the entries of a posting sum to zero",
    "UPDATE entries SET amount = amount * 2": "the entries of a captured payment are its amount",
    "DELETE FROM invoices": "a paid order has an invoice, others have none",
    "UPDATE invoices SET number = number + 1": "the numbers of invoices have no gap",
    "DELETE FROM timeline WHERE version = 2": (
        "the timeline of an order has each version, and ends with its status"
    ),
}


@pytest.mark.parametrize("change", WRONG_BOOKS)
async def test_wrong_books_are_found(shop: HandWrittenShop, change: str) -> None:
    await shop.buy()
    assert await shop.violations() == {}

    await shop.database.execute(change)

    assert WRONG_BOOKS[change] in await shop.violations()


async def test_unhandled_events_are_found(shop: HandWrittenShop) -> None:
    await shop.buy()
    assert await shop.violations() == {}

    # a handler that does not exist
    await shop.database.execute("UPDATE inbox SET done_at = NULL, handler = 'other'")

    violations = await books.find_violations(shop.url, max_wait_seconds=0)
    assert "all events are handled" in violations


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE stock SET reserved = on_hand + 1",
        "UPDATE entries SET amount = 7 WHERE amount > 0",
        "UPDATE payments SET captured = captured + 1",
        "UPDATE order_lines SET total = total + 1",
        "UPDATE customers SET unpaid_orders = -1",
        "UPDATE postings SET operation_id = gen_random_uuid()",
        "DELETE FROM orders",
    ],
)
async def test_database_rejects_wrong_rows(shop: HandWrittenShop, change: str) -> None:
    await shop.buy()

    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await shop.database.execute(change)
