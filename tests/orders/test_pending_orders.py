"""The periodic checks of pending orders: which orders, when, and with how many statements."""

from datetime import timedelta
from itertools import pairwise

import pytest

from markethall.orders.contract import OrderStatus
from markethall.orders.domain import CHECK_AGES, due_check_spans
from markethall.shared.observability.metrics import STATEMENTS
from tests.orders.conftest import RESERVATION_TTL, START, OrdersApp

INTERVAL = timedelta(seconds=5)
# the statements of an expiry: list the overdue order, postpone its next check, save the order,
# insert the event, and list the overdue orders again
MAX_STATEMENTS_OF_EXPIRY = 5


async def run_jobs_until_expiry(orders_app: OrdersApp) -> int:
    """Run the jobs every five seconds for 15 minutes. Return the number of statements."""
    before = STATEMENTS._value.get()
    end = orders_app.clock.now + RESERVATION_TTL + INTERVAL
    while orders_app.clock.now < end:
        orders_app.advance_clock(INTERVAL)
        await orders_app.run_periodic_jobs()
    return int(STATEMENTS._value.get() - before)


@pytest.mark.parametrize("orders_app", ["sql"], indirect=True)
async def test_checks_of_a_pending_order_write_nothing(orders_app: OrdersApp) -> None:
    idle = await run_jobs_until_expiry(orders_app)
    order = await orders_app.place(orders_app.stock_up(), 2)

    with_order = await run_jobs_until_expiry(orders_app)

    assert with_order - idle <= MAX_STATEMENTS_OF_EXPIRY
    assert (await orders_app.read_order(order)).status is OrderStatus.EXPIRED


@pytest.mark.parametrize("orders_app", ["sql"], indirect=True)
async def test_idle_jobs_run_two_statements_and_one_for_each_check(orders_app: OrdersApp) -> None:
    await orders_app.run_periodic_jobs()
    before = STATEMENTS._value.get()

    await orders_app.run_periodic_jobs()
    between_checks = STATEMENTS._value.get()
    orders_app.advance_clock(INTERVAL)
    await orders_app.run_periodic_jobs()

    # one statement for overdue orders and one for overdue edits; a third one for the checks of
    # payments
    assert between_checks - before == 2
    assert STATEMENTS._value.get() - between_checks == 3


async def test_all_orders_of_one_age_are_asked_about_in_batches(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(200)
    for _ in range(120):
        await orders_app.place(product_id)
    await orders_app.run_periodic_jobs()
    before = len(orders_app.call_failures.calls)

    asked = []
    for _ in range(6):
        orders_app.advance_clock(INTERVAL)
        await orders_app.run_periodic_jobs()
        asked.append(orders_app.call_failures.calls[before:].count("activate"))

    assert asked == [0, 0, 3, 3, 3, 6]


async def test_orders_are_checked_after_the_clock_was_set_back(orders_app: OrdersApp) -> None:
    await orders_app.run_periodic_jobs()
    orders_app.advance_clock(timedelta(minutes=-10))
    await orders_app.place(orders_app.stock_up())
    before = len(orders_app.call_failures.calls)

    for _ in range(6):
        orders_app.advance_clock(INTERVAL)
        await orders_app.run_periodic_jobs()

    assert orders_app.call_failures.calls[before:].count("activate") >= 1


@pytest.mark.parametrize("seconds", [1, 5, 14, 15, 600])
def test_spans_cover_every_age_once(seconds: int) -> None:
    """An order is due when its age has passed one of CHECK_AGES since the last check."""
    since = START
    now = since + timedelta(seconds=seconds)

    spans = due_check_spans(since, now)

    for age in range(900):
        created_at = now - timedelta(seconds=age)
        found = sum(span.after < created_at <= span.until for span in spans)
        passed = any(created_at + each <= now and created_at + each > since for each in CHECK_AGES)
        assert found <= 1
        assert found or not passed
        assert passed or not found or seconds >= 15


def test_ages_are_at_most_fifty_seconds_apart() -> None:
    gaps = {later - earlier for earlier, later in pairwise(CHECK_AGES)}

    assert max(gaps) == timedelta(seconds=50)
    assert CHECK_AGES[-1] >= RESERVATION_TTL
