"""Test that the metrics count each order, reservation and amount once, on each storage."""

from collections.abc import Callable

import pytest

from markethall.orders.contract import InvalidTransition
from tests.metric_values import metric_growth, metric_value
from tests.orders.conftest import CANCEL, RESERVATION_TTL, SHIP, STAFF, attempt_without_key
from tests.orders.test_with_real_contexts import ContextsApp, contexts_app, settings

__all__ = ["contexts_app", "settings"]  # fixtures
CHANGES = ("placed", "paid", "cancelled", "expired", "completed")
Growth = Callable[[], dict[str, float]]


@pytest.fixture
def orders() -> Growth:
    """The numbers of orders that were counted since the start of the test, without zeros."""
    growth = {change: metric_growth("markethall_orders_total", change=change) for change in CHANGES}
    return lambda: {change: count() for change, count in growth.items() if count()}


def money(kind: str) -> Callable[[], tuple[float, float]]:
    """Return a function that returns the count and the sum of captures or refunds since now."""
    count = metric_growth("markethall_payment_movements_total", kind=kind, currency="EUR")
    amount = metric_growth("markethall_payment_amount_minor_units_total", kind=kind, currency="EUR")
    return lambda: (count(), amount())


async def test_completed_order_is_counted_once_at_each_step(
    contexts_app: ContextsApp, orders: Growth
) -> None:
    captured, refunded = money("capture"), money("refund")

    order = await contexts_app.place(await contexts_app.product(stock=5, price=1999))
    placed = orders()
    await contexts_app.confirm(order)
    await contexts_app.process_events()
    shipped = await contexts_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    await contexts_app.process_events()
    await contexts_app.fulfilments.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())

    assert placed == {"placed": 1}
    assert orders() == {"placed": 1, "paid": 1, "completed": 1}
    assert (captured(), refunded()) == ((1, 3998), (0, 0))


async def test_revenue_is_captured_minus_refunded(
    contexts_app: ContextsApp, orders: Growth
) -> None:
    captured, refunded = money("capture"), money("refund")
    order = await contexts_app.place(await contexts_app.product(stock=5, price=1999))
    await contexts_app.confirm(order)
    await contexts_app.process_events()

    await contexts_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await contexts_app.process_events()

    assert orders() == {"placed": 1, "paid": 1, "cancelled": 1}
    assert (captured(), refunded()) == ((1, 3998), (1, 3998))


async def test_refused_command_counts_nothing(contexts_app: ContextsApp, orders: Growth) -> None:
    order = await contexts_app.place(await contexts_app.product(stock=5))
    await contexts_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())

    with pytest.raises(InvalidTransition):
        await contexts_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())

    assert orders() == {"placed": 1, "cancelled": 1}


async def test_expired_order_and_its_reservation_are_counted(
    contexts_app: ContextsApp, orders: Growth
) -> None:
    reservations = metric_growth("markethall_reservations_expired_total")
    product_id = await contexts_app.product(stock=5)
    await contexts_app.place(product_id)

    contexts_app.clock.now += 2 * RESERVATION_TTL
    await contexts_app.run_periodic_jobs()
    await contexts_app.process_events()
    await contexts_app.run_periodic_jobs()

    assert orders() == {"placed": 1, "expired": 1}
    assert reservations() == 1


async def test_refunds_of_a_currency_exist_as_soon_as_it_has_captures(
    contexts_app: ContextsApp,
) -> None:
    order = await contexts_app.place(await contexts_app.product(stock=5))
    await contexts_app.confirm(order)

    labels = {"kind": "refund", "currency": "EUR"}
    assert metric_value("markethall_payment_amount_minor_units_total", **labels) is not None
