"""Any call of a neighbour may fail, with its effect or without: there is one order in the end."""

from datetime import timedelta
from uuid import UUID

import pytest

from markethall.orders.contract import OrderStatus, OrderView, TotalChanged
from markethall.shared.errors import Unavailable
from markethall.shared.idempotency import InFlight
from tests.orders.conftest import Hall, wanted
from tests.orders.neighbours import Killed

CALLS = ["active", "reserve", "open"]
LEASE = timedelta(seconds=15)


async def there_is_one(hall: Hall, order: OrderView, product_id: UUID) -> None:
    """One order, one hold, one payment, and all three belong together."""
    assert await hall.orders.count() == 1
    assert await hall.seen(order) == order
    (hold,) = hall.shelf.holds_of(order.order_id)
    (payment,) = hall.till.all_payments()
    assert payment.payment_id == order.payment.payment_id
    assert payment.amount == order.total
    assert hold.expires_at > payment.expires_at == order.expires_at
    assert hall.shelf.available(product_id) == 3
    assert await hall.changes(order) == ["placed"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(CALLS) + 1))
async def test_a_retry_after_a_neighbour_was_away_gives_the_one_order(
    hall: Hall, number: int, when: str
) -> None:
    product_id = hall.shelf.stock(5)
    command = wanted(product_id, 2)
    hall.cuts.cut(number, when)

    with pytest.raises(Unavailable) as refusal:
        await hall.place_with_key("key", command)
    answer = await hall.place_with_key("key", command)

    assert (refusal.value.status, refusal.value.retry_after) == (503, 1)
    assert hall.cuts.made == [*CALLS[:number], *CALLS]
    await there_is_one(hall, OrderView.model_validate_json(answer.body), product_id)


@pytest.mark.parametrize("when", ["killed before", "killed after"])
@pytest.mark.parametrize("number", range(1, len(CALLS) + 1))
async def test_a_retry_after_a_crash_waits_for_the_lease_and_gives_the_one_order(
    hall: Hall, number: int, when: str
) -> None:
    product_id = hall.shelf.stock(5)
    command = wanted(product_id, 2)
    hall.cuts.cut(number, when)

    with pytest.raises(Killed):
        await hall.place_with_key("key", command)
    with pytest.raises(InFlight):
        await hall.place_with_key("key", command)
    hall.later(LEASE)
    answer = await hall.place_with_key("key", command)

    await there_is_one(hall, OrderView.model_validate_json(answer.body), product_id)


@pytest.mark.parametrize("first", ["before", "after"])
@pytest.mark.parametrize("second", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(CALLS) + 1))
async def test_two_failures_in_a_row_change_nothing(
    hall: Hall, number: int, first: str, second: str
) -> None:
    product_id = hall.shelf.stock(5)
    command = wanted(product_id, 2)
    hall.cuts.cut(number, first)
    hall.cuts.cut(number * 2, second)

    for _ in range(2):
        with pytest.raises(Unavailable):
            await hall.place_with_key("key", command)
    answer = await hall.place_with_key("key", command)

    await there_is_one(hall, OrderView.model_validate_json(answer.body), product_id)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_refusal_is_the_same_when_letting_go_has_failed_first(
    hall: Hall, when: str
) -> None:
    product_id = hall.shelf.stock(5, amount=1000)
    command = wanted(product_id, expected_total={"amount": 1, "currency": "EUR"})
    hall.cuts.cut(3, when)

    with pytest.raises(Unavailable):
        await hall.place_with_key("key", command)
    with pytest.raises(TotalChanged):
        await hall.place_with_key("key", command)

    assert hall.cuts.made == ["active", "reserve", "release"] * 2
    assert hall.shelf.available(product_id) == 5


async def test_what_an_abandoned_attempt_has_left_ends_by_itself(hall: Hall) -> None:
    product_id = hall.shelf.stock(5)
    hall.cuts.cut(3, "killed after")
    with pytest.raises(Killed):
        await hall.place_with_key("key", wanted(product_id, 2))

    (payment,) = hall.till.all_payments()
    hall.later(timedelta(minutes=15))

    assert payment.expires_at < hall.clock()
    assert hall.shelf.available(product_id) == 5
    assert await hall.orders.count() == 0


async def test_a_sweep_that_failed_half_way_is_finished_by_the_next(hall: Hall) -> None:
    order = await hall.place(hall.shelf.stock(5))
    hall.later(order.expires_at - hall.clock())
    hall.cuts.cut(1, "after")

    await hall.sweep()
    meanwhile = await hall.seen(order)
    await hall.sweep()

    assert meanwhile.status is OrderStatus.PENDING
    assert (await hall.seen(order)).status is OrderStatus.EXPIRED
