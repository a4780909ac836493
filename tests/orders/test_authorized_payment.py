"""Orders whose payment is authorized first, and captured as their goods are shipped."""

from datetime import timedelta
from itertools import permutations
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from markethall.inventory.contract import ReservationStatus
from markethall.orders.contract import (
    CancelOrder,
    FulfilOrder,
    InvalidTransition,
    OrderPaymentStatus,
    OrderStatus,
    OrderView,
)
from markethall.payments.contract import PaymentStatus
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Event
from tests.orders.conftest import (
    CANCEL,
    RESERVATION_TTL,
    SHIP,
    STAFF,
    OrdersApp,
    attempt_without_key,
)
from tests.orders.fakes import Killed

TWICE = 2
S, P = OrderStatus, OrderPaymentStatus


async def authorized(orders_app: OrdersApp, quantity: int = 3) -> OrderView:
    """Place an order, authorize its payment and process the events."""
    order = await orders_app.place(orders_app.stock_up(), quantity)
    orders_app.fake_payments.authorize(order.payment.payment_id)
    await orders_app.process_events(TWICE)
    return await orders_app.read_order(order)


async def ship(orders_app: OrdersApp, order: OrderView, quantity: int | None = None) -> OrderView:
    command = SHIP
    if quantity:
        line = {"line_id": order.lines[0].line_id, "quantity": quantity}
        command = FulfilOrder.model_validate({**SHIP.model_dump(), "lines": [line]})
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, command, attempt_without_key())
    await orders_app.process_events(TWICE)
    return await orders_app.read_order(order)


async def cancel_units(orders_app: OrdersApp, order: OrderView, quantity: int) -> OrderView:
    line = {"line_id": order.lines[0].line_id, "quantity": quantity}
    command = CancelOrder.model_validate({"reason": "changed my mind", "lines": [line]})
    await orders_app.orders.cancel(STAFF, order.order_id, command, attempt_without_key())
    await orders_app.process_events(TWICE)
    return await orders_app.read_order(order)


def statuses(order: OrderView) -> tuple[str, str]:
    return order.status.value, order.payment_status.value


def amounts(orders_app: OrdersApp, order: OrderView) -> tuple[str, int, int, int]:
    """Return (status, authorized, captured, refunded) of the payment."""
    payment = orders_app.fake_payments.payment(order.payment.payment_id)
    money = (payment.authorized, payment.captured, payment.refunded)
    return payment.status.value, *(amount.amount for amount in money)  # type: ignore[return-value]  # three amounts


def reservation_status(orders_app: OrdersApp, order: OrderView) -> ReservationStatus:
    return orders_app.fake_inventory.reservations_of(order.order_id)[-1].status


async def test_authorized_payment_pays_the_order(orders_app: OrdersApp) -> None:
    order = await authorized(orders_app)

    assert statuses(order) == ("processing", "authorized")
    assert reservation_status(orders_app, order) is ReservationStatus.COMMITTED
    assert await orders_app.changes(order) == ["placed", "payment_authorized"]


async def test_each_shipment_captures_its_part(orders_app: OrdersApp) -> None:
    order = await authorized(orders_app)

    first = await ship(orders_app, order, 1)
    after_first = amounts(orders_app, order)
    last = await ship(orders_app, order)

    assert statuses(first) == ("processing", "authorized")
    assert after_first == ("authorized", 3000, 1000, 0)
    assert statuses(last) == ("processing", "paid")
    assert amounts(orders_app, order) == ("captured", 3000, 3000, 0)
    changes = (await orders_app.changes(order))[2:]
    assert changes == [
        "fulfilled",
        "payment_partially_captured",
        "fulfilled",
        "payment_captured",
    ]


async def test_first_shipment_captures_all_where_the_provider_captures_once(
    orders_app: OrdersApp,
) -> None:
    orders_app.fake_payments.captures_several_times = False
    order = await authorized(orders_app)

    first = await ship(orders_app, order, 1)
    last = await ship(orders_app, order)

    assert statuses(first) == statuses(last) == ("processing", "paid")
    assert amounts(orders_app, order) == ("captured", 3000, 3000, 0)


async def test_cancelled_order_is_voided(orders_app: OrdersApp) -> None:
    order = await authorized(orders_app)

    await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events(TWICE)

    assert statuses(await orders_app.read_order(order)) == ("cancelled", "voided")
    assert amounts(orders_app, order)[0] == "voided"
    assert reservation_status(orders_app, order) is ReservationStatus.RELEASED


async def test_rejected_void_is_logged(orders_app: OrdersApp) -> None:
    orders_app.fake_payments.rejects_voids = True
    order = await authorized(orders_app)

    with capture_logs() as logs:
        await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
        await orders_app.process_events()
    orders_app.fake_payments.change_status(order.payment.payment_id, PaymentStatus.EXPIRED)
    await orders_app.process_events()

    assert "order.void_failed" in [entry["event"] for entry in logs]
    assert statuses(await orders_app.read_order(order)) == ("cancelled", "voided")


@pytest.mark.parametrize("captures_several_times", [True, False])
async def test_cancelled_units_are_never_captured(
    orders_app: OrdersApp, captures_several_times: bool
) -> None:
    orders_app.fake_payments.captures_several_times = captures_several_times
    order = await authorized(orders_app)

    await cancel_units(orders_app, order, 1)
    after_cancellation = amounts(orders_app, order)
    shipped = await ship(orders_app, order)

    assert after_cancellation == ("authorized", 3000, 0, 0)
    assert statuses(shipped) == ("processing", "paid")
    assert amounts(orders_app, order) == ("captured", 2000, 2000, 0)


async def test_rest_is_released_when_the_last_units_are_cancelled(orders_app: OrdersApp) -> None:
    order = await authorized(orders_app)
    await ship(orders_app, order, 1)

    cancelled = await cancel_units(orders_app, order, 2)

    assert statuses(cancelled) == ("processing", "paid")
    assert amounts(orders_app, order) == ("captured", 1000, 1000, 0)


async def test_units_that_are_cancelled_after_the_capture_are_refunded(
    orders_app: OrdersApp,
) -> None:
    orders_app.fake_payments.captures_several_times = False
    order = await authorized(orders_app)
    await ship(orders_app, order, 1)

    cancelled = await cancel_units(orders_app, order, 1)

    assert statuses(cancelled) == ("processing", "partially_refunded")
    assert amounts(orders_app, order) == ("captured", 3000, 3000, 1000)


async def test_price_of_units_cancelled_before_a_whole_capture_is_refunded_once(
    orders_app: OrdersApp,
) -> None:
    """The provider cannot capture a part of the authorized amount."""
    order = await authorized(orders_app)
    await cancel_units(orders_app, order, 1)
    orders_app.fake_payments.capture(order.payment.payment_id)

    await orders_app.process_events(TWICE)

    after = await orders_app.read_order(order)
    assert statuses(after) == ("processing", "partially_refunded")
    assert amounts(orders_app, order)[2:] == (3000, 1000)
    shipped = await ship(orders_app, order)
    assert amounts(orders_app, shipped)[2:] == (3000, 1000)


async def test_rejected_capture_is_visible(orders_app: OrdersApp) -> None:
    order = await authorized(orders_app)
    orders_app.fake_payments.rejects_captures = True

    with capture_logs() as logs:
        shipped = await ship(orders_app, order, 1)

    assert statuses(shipped) == ("processing", "authorized")
    last = (await orders_app.read_timeline(order)).items[-1]
    assert (last.change, last.reason) == ("payment_capture_failed", "expired_card")
    failed = [entry for entry in logs if entry["event"] == "order.capture_failed"]
    assert [entry["reason"] for entry in failed] == ["expired_card"]


async def test_next_shipment_captures_what_was_rejected(orders_app: OrdersApp) -> None:
    order = await authorized(orders_app)
    orders_app.fake_payments.rejects_captures = True
    await ship(orders_app, order, 1)
    orders_app.fake_payments.rejects_captures = False

    await ship(orders_app, order, 1)

    assert amounts(orders_app, order) == ("authorized", 3000, 2000, 0)


@pytest.mark.parametrize("failure", ["before", "after", "killed before", "killed after"])
async def test_shipment_is_captured_once_after_a_lost_call(
    orders_app: OrdersApp, failure: str
) -> None:
    order = await authorized(orders_app)
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    await orders_app.relay()
    (delivery,) = [one for one in await orders_app.claim() if "capture" in one.handler]
    orders_app.call_failures.fail_call(1, failure)

    with pytest.raises(Killed if "killed" in failure else Unavailable):
        await orders_app.handle(delivery)
    await orders_app.handle(delivery)
    await orders_app.process_events(TWICE)

    assert amounts(orders_app, order) == ("captured", 3000, 3000, 0)
    assert statuses(await orders_app.read_order(order)) == ("processing", "paid")


async def test_repeated_capture_is_no_failure_when_more_was_shipped_meanwhile(
    orders_app: OrdersApp,
) -> None:
    order = await authorized(orders_app)
    line = {"line_id": order.lines[0].line_id, "quantity": 1}
    one_unit = FulfilOrder.model_validate({**SHIP.model_dump(), "lines": [line]})
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, one_unit, attempt_without_key())
    await orders_app.relay()
    (delivery,) = [one for one in await orders_app.claim() if "capture" in one.handler]
    orders_app.call_failures.fail_call(1, "after")
    with pytest.raises(Unavailable):
        await orders_app.handle(delivery)

    await orders_app.fulfilments.fulfil(STAFF, order.order_id, one_unit, attempt_without_key())
    await orders_app.handle(delivery)
    await orders_app.process_events(TWICE)

    assert amounts(orders_app, order) == ("authorized", 3000, 2000, 0)
    assert "payment_capture_failed" not in await orders_app.changes(order)


@pytest.mark.parametrize("end", [PaymentStatus.VOIDED, PaymentStatus.EXPIRED])
async def test_order_without_shipment_is_cancelled_when_its_authorization_ends(
    orders_app: OrdersApp, end: PaymentStatus
) -> None:
    order = await authorized(orders_app)

    orders_app.fake_payments.change_status(order.payment.payment_id, end)
    await orders_app.process_events(TWICE)

    ended = await orders_app.read_order(order)
    assert statuses(ended) == ("cancelled", "voided")
    assert reservation_status(orders_app, order) is ReservationStatus.RELEASED
    assert (await orders_app.changes(order))[2:] == [f"payment_{end}", "cancelled"]


async def test_shipped_order_stays_when_its_authorization_ends(orders_app: OrdersApp) -> None:
    order = await authorized(orders_app)
    orders_app.fake_payments.rejects_captures = True
    await ship(orders_app, order, 1)

    with capture_logs() as logs:
        orders_app.fake_payments.change_status(order.payment.payment_id, PaymentStatus.EXPIRED)
        await orders_app.process_events()

    assert statuses(await orders_app.read_order(order)) == ("processing", "voided")
    assert "order.shipped_unpaid" in [entry["event"] for entry in logs]
    with pytest.raises(InvalidTransition):
        await ship(orders_app, order)


async def test_units_are_cancelled_after_the_authorization_has_ended(
    orders_app: OrdersApp,
) -> None:
    order = await authorized(orders_app)
    orders_app.fake_payments.rejects_captures = True
    await ship(orders_app, order, 1)
    orders_app.fake_payments.change_status(order.payment.payment_id, PaymentStatus.EXPIRED)
    await orders_app.process_events()

    cancelled = await cancel_units(orders_app, order, 2)

    assert statuses(cancelled) == ("processing", "voided")
    assert amounts(orders_app, order)[2:] == (0, 0)


async def test_completed_order_whose_authorization_ends_is_logged_as_unpaid(
    orders_app: OrdersApp,
) -> None:
    order = await authorized(orders_app)
    orders_app.fake_payments.rejects_captures = True
    fulfilment = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    await orders_app.process_events(TWICE)
    await orders_app.fulfilments.deliver(STAFF, fulfilment.fulfilment_id, attempt_without_key())

    with capture_logs() as logs:
        orders_app.fake_payments.change_status(order.payment.payment_id, PaymentStatus.EXPIRED)
        await orders_app.process_events()

    assert statuses(await orders_app.read_order(order)) == ("completed", "voided")
    assert "order.shipped_unpaid" in [entry["event"] for entry in logs]


async def test_release_by_staff_leaves_a_shipped_order_paid(orders_app: OrdersApp) -> None:
    order = await authorized(orders_app)
    await ship(orders_app, order, 1)

    with capture_logs() as logs:
        orders_app.fake_payments._end(order.payment.payment_id, Money(amount=1000, currency="EUR"))
        await orders_app.process_events()

    assert statuses(await orders_app.read_order(order)) == ("processing", "paid")
    assert "order.underpaid" in [entry["event"] for entry in logs]


async def test_order_that_is_underpaid_before_its_authorization_is_known_is_logged(
    orders_app: OrdersApp,
) -> None:
    for place in (pending, expired):
        order = await place(orders_app)

        with capture_logs() as logs:
            payment_id = order.payment.payment_id
            orders_app.fake_payments._end(payment_id, Money(amount=1000, currency="EUR"))
            await orders_app.process_events()

        assert statuses(await orders_app.read_order(order)) == ("processing", "paid")
        underpaid = [entry for entry in logs if entry["event"] == "order.underpaid"]
        assert [(entry["order_id"], entry["missing"]) for entry in underpaid] == [
            (str(order.order_id), 2000)
        ], place


async def test_late_capture_that_is_refunded_is_not_logged_as_underpaid(
    orders_app: OrdersApp,
) -> None:
    order = await expired(orders_app)
    orders_app.fake_inventory.remove_stock(order.lines[0].product_id, 5)

    with capture_logs() as logs:
        payment_id = order.payment.payment_id
        orders_app.fake_payments._end(payment_id, Money(amount=1000, currency="EUR"))
        await orders_app.process_events()

    assert amounts(orders_app, order)[2:] == (1000, 1000)
    assert "order.underpaid" not in [entry["event"] for entry in logs]


async def pending(orders_app: OrdersApp) -> OrderView:
    return await orders_app.place(orders_app.stock_up(), 3)


async def expired(orders_app: OrdersApp) -> OrderView:
    order = await orders_app.place(orders_app.stock_up(), 3)
    orders_app.advance_clock(RESERVATION_TTL)
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()
    return order


async def test_late_authorization_reinstates_an_expired_order(orders_app: OrdersApp) -> None:
    order = await expired(orders_app)

    orders_app.fake_payments.authorize(order.payment.payment_id)
    await orders_app.process_events(TWICE)

    assert statuses(await orders_app.read_order(order)) == ("processing", "authorized")
    assert reservation_status(orders_app, order) is ReservationStatus.COMMITTED
    await ship(orders_app, order)
    assert amounts(orders_app, order)[:3] == ("captured", 3000, 3000)


async def test_late_authorization_is_voided_without_stock(orders_app: OrdersApp) -> None:
    order = await expired(orders_app)
    orders_app.fake_inventory.remove_stock(order.lines[0].product_id, 5)

    orders_app.fake_payments.authorize(order.payment.payment_id)
    await orders_app.process_events(TWICE)

    assert (await orders_app.read_order(order)).status is S.EXPIRED
    assert amounts(orders_app, order)[0] == "voided"


async def test_late_authorization_of_a_cancelled_order_is_voided(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.stock_up(), 3)
    await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events()

    orders_app.fake_payments.authorize(order.payment.payment_id)
    await orders_app.process_events(TWICE)

    assert statuses(await orders_app.read_order(order))[0] == "cancelled"
    assert amounts(orders_app, order)[0] == "voided"


async def test_check_of_pending_order_finds_an_authorization_without_event(
    orders_app: OrdersApp,
) -> None:
    order = await orders_app.place(orders_app.stock_up(), 3)
    orders_app.fake_payments.authorize(order.payment.payment_id)
    orders_app.fake_payments.pending_events = []

    orders_app.advance_clock(timedelta(seconds=15))
    await orders_app.run_periodic_jobs()
    await orders_app.process_events(TWICE)

    assert statuses(await orders_app.read_order(order)) == ("processing", "authorized")
    assert reservation_status(orders_app, order) is ReservationStatus.COMMITTED


async def test_events_about_captures_in_any_sequence_give_the_same_order(
    orders_app: OrdersApp,
) -> None:
    for numbers in permutations(range(3)):
        order = await orders_app.place(orders_app.stock_up(), 3)
        payment_id = order.payment.payment_id
        events = [
            orders_app.fake_payments.authorize(payment_id),
            await part_captured(orders_app, payment_id),
            orders_app.fake_payments.capture(payment_id),
        ]
        orders_app.fake_payments.pending_events = []

        for number in (*numbers, *numbers):
            await orders_app.receive_event(events[number])
            await orders_app.process_events(TWICE)

        assert statuses(await orders_app.read_order(order)) == ("processing", "paid"), numbers


async def part_captured(orders_app: OrdersApp, payment_id: UUID) -> Event:
    payment = orders_app.fake_payments.payment(payment_id)
    orders_app.fake_payments._capture_part(payment, payment_id, Money(amount=1, currency="EUR"))
    return orders_app.fake_payments.pending_events[-1]
