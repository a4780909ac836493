"""The order follows the status of its payment, whatever the sequence of the events."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import permutations

import pytest

from markethall.orders.contract import OrderPaymentStatus, OrderStatus, OrderView
from markethall.payments.contract import PaymentFailed, PaymentStatus, RefundPayment
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Event
from tests.orders.conftest import CANCEL, RESERVATION_TTL, STAFF, OrdersApp, attempt_without_key

TWICE = 2
S, P = PaymentStatus, OrderPaymentStatus

# maps the status of a payment to the `payment_status` of its order, for orders not paid before
PAYMENT_STATUSES = {
    S.CREATED: P.NONE,
    S.PROCESSING: P.NONE,
    S.REQUIRES_ACTION: P.NONE,
    S.UNKNOWN: P.NONE,
    S.AUTHORIZED: P.AUTHORIZED,
    S.CAPTURED: P.PAID,
    S.FAILED: P.FAILED,
    S.VOIDED: P.VOIDED,
    S.CANCELLED: P.NONE,
    S.EXPIRED: P.NONE,
}


def change_payment(orders_app: OrdersApp, order: OrderView, status: PaymentStatus) -> Event:
    """Set the status of the payment. Return the event that reports the status."""
    payment_id = order.payment.payment_id
    match status:
        case S.CAPTURED:
            return orders_app.fake_payments.capture(payment_id)
        case S.FAILED:
            return orders_app.fake_payments.decline(payment_id)
    return orders_app.fake_payments.change_status(payment_id, status)


def payment_of(order: OrderView) -> tuple[str, OrderPaymentStatus]:
    return order.payment.status, order.payment_status


async def placed(orders_app: OrdersApp) -> OrderView:
    return await orders_app.place(orders_app.stock_up(), 2)


def test_table_has_every_status() -> None:
    assert set(PAYMENT_STATUSES) == set(PaymentStatus)


@pytest.mark.parametrize("status", PAYMENT_STATUSES)
async def test_order_has_the_status_of_its_payment(
    orders_app: OrdersApp, status: PaymentStatus
) -> None:
    order = await placed(orders_app)

    if status is not S.CREATED:
        change_payment(orders_app, order, status)
    await orders_app.process_events(TWICE)

    after = await orders_app.read_order(order)
    assert payment_of(after) == (status.value, PAYMENT_STATUSES[status])
    changes = {S.CREATED: [], S.CAPTURED: ["paid"]}.get(status, [f"payment_{status}"])
    assert await orders_app.changes(order) == ["placed", *changes]


@pytest.mark.parametrize("status", PAYMENT_STATUSES)
async def test_check_of_pending_order_finds_status_without_event(
    orders_app: OrdersApp, status: PaymentStatus
) -> None:
    order = await placed(orders_app)
    if status is not S.CREATED:
        change_payment(orders_app, order, status)
    late_events = orders_app.fake_payments.pending_events
    orders_app.fake_payments.pending_events = []

    orders_app.advance_clock(timedelta(seconds=15))
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()
    before_the_events = await orders_app.read_order(order)
    orders_app.fake_payments.pending_events += late_events
    await orders_app.process_events(TWICE)

    assert payment_of(before_the_events) == (status.value, PAYMENT_STATUSES[status])
    assert await orders_app.read_order(order) == before_the_events


@pytest.mark.parametrize(
    "statuses",
    [
        (S.PROCESSING, S.REQUIRES_ACTION),
        (S.REQUIRES_ACTION, S.FAILED),
        (S.FAILED, S.REQUIRES_ACTION, S.FAILED),
        (S.PROCESSING, S.UNKNOWN, S.FAILED),
        (S.PROCESSING, S.REQUIRES_ACTION, S.EXPIRED),
        (S.UNKNOWN, S.REQUIRES_ACTION, S.CAPTURED),
        (S.AUTHORIZED, S.VOIDED),
        (S.AUTHORIZED, S.CAPTURED),
    ],
    ids="-".join,
)
async def test_events_in_any_sequence_give_the_last_status(
    orders_app: OrdersApp, statuses: tuple[PaymentStatus, ...]
) -> None:
    for numbers in permutations(range(len(statuses))):
        order = await placed(orders_app)
        events = [change_payment(orders_app, order, status) for status in statuses]
        orders_app.fake_payments.pending_events = []

        for number in (*numbers, *numbers):
            await orders_app.receive_event(events[number])
            await orders_app.process_events(TWICE)

        after = await orders_app.read_order(order)
        assert payment_of(after) == (statuses[-1].value, PAYMENT_STATUSES[statuses[-1]]), numbers


async def test_refunds_change_payment_status_only(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.stock_up(), 2)
    half = Money(amount=order.total.amount // 2, currency="EUR")
    found = []

    for _ in range(2):
        command = RefundPayment(
            payment_id=order.payment.payment_id, refund_id=new_id(), amount=half
        )
        await orders_app.fake_payments.refund(STAFF, command)
        await orders_app.process_events(TWICE)
        found.append(payment_of(await orders_app.read_order(order)))

    assert found == [("captured", P.PARTIALLY_REFUNDED), ("captured", P.REFUNDED)]


async def test_ended_authorization_is_voided(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    for status in (S.AUTHORIZED, S.EXPIRED):
        change_payment(orders_app, order, status)
        await orders_app.process_events(TWICE)

    assert payment_of(await orders_app.read_order(order)) == ("expired", P.VOIDED)


async def expire(orders_app: OrdersApp, order: OrderView) -> None:
    orders_app.advance_clock(RESERVATION_TTL)
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()


async def cancel(orders_app: OrdersApp, order: OrderView) -> None:
    await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events()


@pytest.mark.parametrize("end", [expire, cancel])
async def test_late_event_does_not_reopen_the_payment_of_an_ended_order(
    orders_app: OrdersApp, end: Callable[[OrdersApp, OrderView], Awaitable[None]]
) -> None:
    order = await placed(orders_app)
    late = change_payment(orders_app, order, S.REQUIRES_ACTION)
    change_payment(orders_app, order, S.FAILED)
    orders_app.fake_payments.pending_events = []
    await end(orders_app, order)
    ended = await orders_app.read_order(order)

    await orders_app.receive_event(late)
    await orders_app.process_events(TWICE)

    assert ended.payment.status == "cancelled"
    assert await orders_app.read_order(order) == ended


async def test_order_shows_that_its_payment_has_expired(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    change_payment(orders_app, order, S.EXPIRED)
    await orders_app.process_events()

    await expire(orders_app, order)

    after = await orders_app.read_order(order)
    assert (after.status, after.payment.status) == (OrderStatus.EXPIRED, "expired")
    assert await orders_app.changes(order) == ["placed", "payment_expired", "expired"]


async def test_failure_reported_by_an_older_release_is_applied(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    event = PaymentFailed(
        payment_id=order.payment.payment_id, order_id=order.order_id, failure_code="declined"
    )

    await orders_app.receive_event(event)
    await orders_app.process_events(TWICE)

    assert payment_of(await orders_app.read_order(order)) == ("failed", P.FAILED)
