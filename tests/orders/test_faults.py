"""A call to another context fails before or after its effect. A retry creates exactly one order."""

from datetime import timedelta
from uuid import UUID

import pytest

from markethall.orders.contract import OrderStatus, OrderView, TotalChanged
from markethall.shared.idempotency.records import InFlight
from markethall.shared.kernel.errors import Unavailable
from tests.orders.conftest import OrdersApp, order_command
from tests.orders.fakes import Killed

CALLS = ["get_active_customer", "reserve", "open", "activate"]
LEASE = timedelta(seconds=15)


async def assert_one_order(orders_app: OrdersApp, order: OrderView, product_id: UUID) -> None:
    """Assert one order, one reservation and one payment that belong together."""
    assert await orders_app.orders.count() == 1
    assert await orders_app.orders.get_order(orders_app.buyer, order.order_id) == order
    (reservation,) = orders_app.fake_inventory.reservations_of(order.order_id)
    (payment,) = orders_app.fake_payments.all_payments()
    assert payment.payment_id == order.payment.payment_id
    assert payment.amount == order.total
    assert reservation.expires_at > payment.expires_at == order.expires_at
    assert orders_app.fake_inventory.available(product_id) == 3
    assert await orders_app.changes(order) == ["placed"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(CALLS) + 1))
async def test_retry_after_unavailable_context_gives_one_order(
    orders_app: OrdersApp, number: int, when: str
) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    command = order_command(product_id, 2)
    orders_app.call_failures.fail_call(number, when)

    with pytest.raises(Unavailable) as error:
        await orders_app.place_with_key("key", command)
    response = await orders_app.place_with_key("key", command)

    assert (error.value.status, error.value.retry_after) == (503, 1)
    assert orders_app.call_failures.calls == [*CALLS[:number], *CALLS]
    await assert_one_order(orders_app, OrderView.model_validate_json(response.body), product_id)


@pytest.mark.parametrize("when", ["killed before", "killed after"])
@pytest.mark.parametrize("number", range(1, len(CALLS) + 1))
async def test_retry_after_crash_waits_for_lease_and_gives_one_order(
    orders_app: OrdersApp, number: int, when: str
) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    command = order_command(product_id, 2)
    orders_app.call_failures.fail_call(number, when)

    with pytest.raises(Killed):
        await orders_app.place_with_key("key", command)
    with pytest.raises(InFlight):
        await orders_app.place_with_key("key", command)
    orders_app.advance_clock(LEASE)
    response = await orders_app.place_with_key("key", command)

    await assert_one_order(orders_app, OrderView.model_validate_json(response.body), product_id)


@pytest.mark.parametrize("first", ["before", "after"])
@pytest.mark.parametrize("second", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(CALLS) + 1))
async def test_two_failures_in_a_row_change_nothing(
    orders_app: OrdersApp, number: int, first: str, second: str
) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    command = order_command(product_id, 2)
    orders_app.call_failures.fail_call(number, first)
    orders_app.call_failures.fail_call(number * 2, second)

    for _ in range(2):
        with pytest.raises(Unavailable):
            await orders_app.place_with_key("key", command)
    response = await orders_app.place_with_key("key", command)

    await assert_one_order(orders_app, OrderView.model_validate_json(response.body), product_id)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_rejection_is_same_after_failed_release(orders_app: OrdersApp, when: str) -> None:
    product_id = orders_app.fake_inventory.add_product(5, amount=1000)
    command = order_command(product_id, expected_total={"amount": 1, "currency": "EUR"})
    orders_app.call_failures.fail_call(3, when)

    with pytest.raises(Unavailable):
        await orders_app.place_with_key("key", command)
    with pytest.raises(TotalChanged):
        await orders_app.place_with_key("key", command)

    assert orders_app.call_failures.calls == ["get_active_customer", "reserve", "release"] * 2
    assert orders_app.fake_inventory.available(product_id) == 5


async def test_abandoned_attempt_is_cleaned_up(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    orders_app.call_failures.fail_call(3, "killed after")
    with pytest.raises(Killed):
        await orders_app.place_with_key("key", order_command(product_id, 2))

    (payment,) = orders_app.fake_payments.all_payments()
    orders_app.advance_clock(timedelta(minutes=15))

    assert payment.expires_at < orders_app.clock()
    assert orders_app.fake_inventory.available(product_id) == 5
    assert await orders_app.orders.count() == 0


async def test_payment_is_activated_only_after_order_is_committed(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    orders_app.call_failures.fail_call(4, "killed before")

    with pytest.raises(Killed):
        await orders_app.place_with_key("key", order_command(product_id, 2))
    at_commit = set(orders_app.fake_payments.activated)
    with pytest.raises(InFlight):
        await orders_app.place_with_key("key", order_command(product_id, 2))
    orders_app.advance_clock(timedelta(seconds=15))
    await orders_app.run_periodic_jobs()

    (payment,) = orders_app.fake_payments.all_payments()
    assert await orders_app.orders.count() == 1
    assert at_commit == set()
    assert orders_app.fake_payments.activated == {payment.payment_id}


async def test_interrupted_expiry_job_is_completed_by_next_run(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))
    orders_app.advance_clock(order.expires_at - orders_app.clock())
    orders_app.call_failures.fail_call(2, "after")

    await orders_app.run_periodic_jobs()
    meanwhile = await orders_app.read_order(order)
    orders_app.advance_clock(timedelta(seconds=1))
    await orders_app.run_periodic_jobs()

    assert meanwhile.status is OrderStatus.PENDING
    assert (await orders_app.read_order(order)).status is OrderStatus.EXPIRED
