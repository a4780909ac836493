"""A pending order and its reservation expire at the deadline of their payment."""

from datetime import timedelta

import pytest

from markethall.inventory.contract import ReservationStatus
from markethall.orders.contract import OrderStatus, OrderView
from markethall.payments.contract import PaymentStatus
from tests.orders.conftest import RESERVATION_TTL, OrdersApp

DAYS = timedelta(days=7)
TWICE = 2


async def await_transfer(orders_app: OrdersApp, order: OrderView) -> None:
    """Let the customer choose a payment method with a deadline of a week."""
    orders_app.fake_payments.change_status(
        order.payment.payment_id,
        PaymentStatus.REQUIRES_ACTION,
        expires_at=order.created_at + DAYS,
    )


async def placed(orders_app: OrdersApp) -> OrderView:
    return await orders_app.place(orders_app.stock_up(), 2)


def reservation_of(orders_app: OrdersApp, order: OrderView) -> ReservationStatus:
    (reservation,) = orders_app.fake_inventory.reservations_of(order.order_id)
    return reservation.status


@pytest.mark.parametrize("by_event", [True, False])
async def test_order_is_extended_to_deadline_of_payment(
    orders_app: OrdersApp, by_event: bool
) -> None:
    order = await placed(orders_app)
    await await_transfer(orders_app, order)
    late_events = orders_app.fake_payments.pending_events
    if not by_event:
        orders_app.fake_payments.pending_events = []
        orders_app.advance_clock(timedelta(seconds=15))
        await orders_app.run_periodic_jobs()
    orders_app.fake_payments.pending_events = late_events
    await orders_app.process_events(TWICE)

    orders_app.advance_clock(DAYS - timedelta(seconds=30))
    await orders_app.run_periodic_jobs()
    waiting = await orders_app.read_order(order)

    assert waiting.expires_at == order.created_at + DAYS
    assert waiting.status is OrderStatus.PENDING
    assert reservation_of(orders_app, order) is ReservationStatus.HELD
    changes = await orders_app.changes(order)
    assert sorted(changes) == ["deadline_extended", "payment_requires_action", "placed"]


async def test_order_expires_at_deadline_of_payment(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    await await_transfer(orders_app, order)
    await orders_app.process_events()

    orders_app.advance_clock(DAYS + timedelta(seconds=1))
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()

    assert (await orders_app.read_order(order)).status is OrderStatus.EXPIRED
    assert reservation_of(orders_app, order) is ReservationStatus.RELEASED
    payment = orders_app.fake_payments.payment(order.payment.payment_id)
    assert payment.status is PaymentStatus.CANCELLED


async def test_order_whose_reservation_has_expired_is_cancelled(orders_app: OrdersApp) -> None:
    """The event with the new deadline arrives after the reservation has expired.

    The stock may be sold by then, so the order and its payment are cancelled.
    """
    order = await placed(orders_app)
    await await_transfer(orders_app, order)
    orders_app.advance_clock(RESERVATION_TTL + timedelta(minutes=1))

    await orders_app.process_events(TWICE)

    assert (await orders_app.read_order(order)).status is OrderStatus.CANCELLED
    payment = orders_app.fake_payments.payment(order.payment.payment_id)
    assert payment.status is PaymentStatus.CANCELLED


async def test_paid_order_is_not_extended(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    await await_transfer(orders_app, order)
    orders_app.fake_payments.capture(order.payment.payment_id)
    late_events = orders_app.fake_payments.pending_events

    orders_app.fake_payments.pending_events = late_events[::-1]
    await orders_app.process_events(TWICE)

    paid = await orders_app.read_order(order)
    assert (paid.status, paid.expires_at) == (OrderStatus.PROCESSING, order.expires_at)
    assert await orders_app.changes(order) == ["placed", "paid"]


@pytest.mark.parametrize("status", [PaymentStatus.CANCELLED, PaymentStatus.EXPIRED])
@pytest.mark.parametrize("by_event", [True, False])
async def test_order_is_not_extended_to_deadline_of_ended_payment(
    orders_app: OrdersApp, status: PaymentStatus, by_event: bool
) -> None:
    order = await placed(orders_app)
    await await_transfer(orders_app, order)
    late_event = orders_app.fake_payments.pending_events.pop()
    orders_app.fake_payments.change_status(order.payment.payment_id, status)
    if by_event:
        await orders_app.process_events()
        orders_app.fake_payments.pending_events = [late_event]
    else:
        orders_app.fake_payments.pending_events = []
        orders_app.advance_clock(timedelta(seconds=15))
        await orders_app.run_periodic_jobs()
    await orders_app.process_events()

    orders_app.advance_clock(RESERVATION_TTL)
    await orders_app.run_periodic_jobs()

    ended = await orders_app.read_order(order)
    assert (ended.status, ended.expires_at) == (OrderStatus.EXPIRED, order.expires_at)
    assert "deadline_extended" not in await orders_app.changes(order)
