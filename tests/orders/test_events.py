"""The event handlers of orders with duplicate, late, unordered and concurrent events."""

from asyncio import gather
from datetime import timedelta
from itertools import pairwise

import pytest

from markethall.inventory.contract import ReservationStatus
from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.contract import (
    CancelOrder,
    FulfilOrder,
    InvalidTransition,
    OrderPaymentStatus,
    OrderPlaced,
    OrderStatus,
    OrderView,
)
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.service.order_events import cancelled_event, paid_event
from markethall.payments.contract import PaymentRefunded, PaymentStatus, RefundPayment
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from tests.orders.conftest import (
    CANCEL,
    HANDLER_KEYS,
    RESERVATION_TTL,
    SHIP,
    STAFF,
    START,
    OrdersApp,
    attempt_without_key,
    order_command,
)

TWICE = 2


async def assert_consistent(orders_app: OrdersApp, order: OrderView) -> OrderView:
    """Process all events. Assert that stock, payment and timeline then match the order."""
    await orders_app.process_events()
    after = await orders_app.read_order(order)
    net_amount = orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id)
    (product_id,) = (line.product_id for line in order.lines)
    quantity = order.lines[0].quantity
    sold = after.status in {OrderStatus.PROCESSING, OrderStatus.COMPLETED}
    assert net_amount == (order.total.amount if sold else 0)
    assert orders_app.fake_inventory.available(product_id) == orders_app.initial_stock - (
        quantity if sold else 0
    )
    assert (await orders_app.read_timeline(order)).items[-1].status is after.status
    return after


async def placed(orders_app: OrdersApp, quantity: int = 2) -> OrderView:
    return await orders_app.place(orders_app.stock_up(), quantity)


# Capture


async def test_captured_payment_commits_stock_once(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events(TWICE)

    after = await assert_consistent(orders_app, order)
    assert (after.status, after.payment_status) == (OrderStatus.PROCESSING, OrderPaymentStatus.PAID)
    assert after.payment.status == "captured"
    assert await orders_app.changes(order) == ["placed", "paid"]
    (reservation,) = orders_app.fake_inventory.reservations_of(order.order_id)
    assert reservation.status is ReservationStatus.COMMITTED


async def test_duplicate_event_in_two_envelopes_is_applied_once(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    event = orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.receive_event(event)
    await orders_app.process_events()

    await assert_consistent(orders_app, order)
    assert await orders_app.changes(order) == ["placed", "paid"]


async def test_a_decline_leaves_the_order_payable(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)

    orders_app.fake_payments.decline(order.payment.payment_id)
    await orders_app.process_events(TWICE)
    failed = await orders_app.read_order(order)
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events(TWICE)

    assert (failed.status, failed.payment_status) == (
        OrderStatus.PENDING,
        OrderPaymentStatus.FAILED,
    )
    after = await assert_consistent(orders_app, order)
    assert (after.status, after.payment_status) == (OrderStatus.PROCESSING, OrderPaymentStatus.PAID)
    assert await orders_app.changes(order) == ["placed", "payment_failed", "paid"]
    assert (await orders_app.read_timeline(order)).items[1].reason == "declined"


async def test_late_decline_does_not_change_paid_order(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    declined = orders_app.fake_payments.decline(order.payment.payment_id)
    captured = orders_app.fake_payments.capture(order.payment.payment_id)
    orders_app.fake_payments.pending_events = [captured]
    await orders_app.process_events()

    await orders_app.receive_event(declined)
    await orders_app.process_events()

    after = await assert_consistent(orders_app, order)
    assert after.payment_status is OrderPaymentStatus.PAID


async def test_backordered_units_are_consumed_after_receipt(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(2)
    order = await orders_app.paid(product_id, 2)
    orders_app.fake_inventory.remove_stock(product_id, 1)
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    for _ in range(20):
        await orders_app.process_events()
        orders_app.advance_clock(timedelta(minutes=1))
    before = orders_app.fake_inventory.on_hand(product_id)

    orders_app.fake_inventory.receive_stock(product_id, 1)
    await orders_app.process_events()

    assert (before, orders_app.fake_inventory.on_hand(product_id)) == (1, 0)
    (reservation,) = orders_app.fake_inventory.reservations_of(order.order_id)
    assert reservation.status is ReservationStatus.CONSUMED


async def test_refunds_do_not_wait_for_goods_that_are_not_on_hand(orders_app: OrdersApp) -> None:
    product_id, other_id = orders_app.stock_up(3), orders_app.stock_up(1)
    lines = [{"product_id": product_id, "quantity": 3}, {"product_id": other_id, "quantity": 1}]
    order = await orders_app.place(product_id, lines=lines)
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()
    orders_app.fake_inventory.remove_stock(product_id, 3)
    line_id = order.lines[0].line_id
    shipped = FulfilOrder.model_validate({"lines": [{"line_id": line_id, "quantity": 2}]})
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, shipped, attempt_without_key())
    await orders_app.process_events(TWICE)

    cancelled = CancelOrder.model_validate(
        {"reason": "x", "lines": [{"line_id": line_id, "quantity": 1}]}
    )
    await orders_app.orders.cancel(STAFF, order.order_id, cancelled, attempt_without_key())
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    await orders_app.process_events(TWICE)

    paid = orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id)
    assert order.total.amount - paid == order.lines[0].unit_price.amount
    assert orders_app.fake_inventory.on_hand(other_id) == 0
    orders_app.fake_inventory.receive_stock(product_id, 3)
    orders_app.advance_clock(timedelta(hours=1))
    await orders_app.process_events(TWICE)
    assert orders_app.fake_inventory.on_hand(product_id) == 1


async def test_refund_before_capture_event_commits_nothing(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    captured = orders_app.fake_payments.capture(order.payment.payment_id)
    refund = RefundPayment(payment_id=order.payment.payment_id, refund_id=new_id())
    await orders_app.fake_payments.refund(STAFF, refund)
    (refunded,) = (
        event
        for event in orders_app.fake_payments.pending_events
        if isinstance(event, PaymentRefunded)
    )
    orders_app.fake_payments.pending_events = [refunded]
    await orders_app.process_events(TWICE)

    await orders_app.receive_event(captured)
    await orders_app.process_events(TWICE)

    after = await assert_consistent(orders_app, order)
    assert (after.status, after.payment_status) == (
        OrderStatus.CANCELLED,
        OrderPaymentStatus.REFUNDED,
    )


async def test_order_with_lost_response_can_be_paid(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up()
    orders_app.call_failures.fail_call(4, "after")
    with pytest.raises(Unavailable):
        await orders_app.place_with_key("key", order_command(product_id, 2))
    (payment,) = orders_app.fake_payments.all_payments()
    orders_app.fake_payments.capture(payment.payment_id)
    await orders_app.process_events()

    response = await orders_app.place_with_key("key", order_command(product_id, 2))

    order = OrderView.model_validate_json(response.body)
    after = await assert_consistent(orders_app, order)
    assert after.status is OrderStatus.PROCESSING


async def test_capture_without_order_is_refunded(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up()
    orders_app.call_failures.fail_call(3, "after")
    with pytest.raises(Unavailable):
        await orders_app.place_with_key("key", order_command(product_id, 2))
    (payment,) = orders_app.fake_payments.all_payments()
    orders_app.fake_payments.activated.add(payment.payment_id)
    orders_app.fake_payments.capture(payment.payment_id)

    await orders_app.process_events(TWICE)
    orders_app.advance_clock(RESERVATION_TTL)

    assert orders_app.fake_payments.captured_minus_refunded(payment.payment_id) == 0
    assert orders_app.fake_inventory.available(product_id) == orders_app.initial_stock
    assert await orders_app.claim() == []


# Missing stock


async def test_paid_order_without_stock_is_cancelled_and_refunded(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.fake_payments.capture(order.payment.payment_id)
    orders_app.advance_clock(RESERVATION_TTL)
    orders_app.fake_inventory.remove_stock(order.lines[0].product_id, orders_app.initial_stock)
    orders_app.initial_stock = 0

    await orders_app.process_events(TWICE)

    after = await assert_consistent(orders_app, order)
    assert (after.status, after.payment_status) == (
        OrderStatus.CANCELLED,
        OrderPaymentStatus.REFUNDED,
    )
    assert await orders_app.changes(order) == ["placed", "paid", "cancelled", "payment_refunded"]
    assert (await orders_app.read_timeline(order)).items[2].reason == "out of stock"


async def test_shipment_event_consumes_stock_once(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.stock_up(), 2)
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())

    await orders_app.process_events(TWICE)

    assert (
        orders_app.fake_inventory.on_hand(order.lines[0].product_id) == orders_app.initial_stock - 2
    )


# Expiry


async def test_unpaid_order_expires_and_releases_stock(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.advance_clock(order.expires_at - orders_app.clock())

    await orders_app.run_periodic_jobs()
    await orders_app.run_periodic_jobs()
    await orders_app.process_events(TWICE)

    after = await assert_consistent(orders_app, order)
    assert after.status is OrderStatus.EXPIRED
    assert after.payment.status == "cancelled"
    assert (
        orders_app.fake_payments.payment(order.payment.payment_id).status is PaymentStatus.CANCELLED
    )
    assert await orders_app.changes(order) == ["placed", "expired"]
    assert (await orders_app.read_timeline(order)).items[1].actor == "system:orders.expire"


async def test_an_order_does_not_expire_early(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.advance_clock(order.expires_at - orders_app.clock() - timedelta(microseconds=1))

    await orders_app.run_periodic_jobs()

    assert (await orders_app.read_order(order)).status is OrderStatus.PENDING


async def test_order_with_captured_payment_is_not_expired(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.fake_payments.capture(order.payment.payment_id)
    orders_app.advance_clock(RESERVATION_TTL)

    await orders_app.run_periodic_jobs()
    before_the_event = await orders_app.read_order(order)

    assert before_the_event.status is OrderStatus.PROCESSING
    assert await orders_app.changes(order) == ["placed", "paid"]
    assert (await assert_consistent(orders_app, order)).status is OrderStatus.PROCESSING


async def test_expiry_is_deferred_while_payment_is_processing(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.fake_payments.start_processing(order.payment.payment_id)
    orders_app.advance_clock(RESERVATION_TTL)

    await orders_app.run_periodic_jobs()
    meanwhile = await orders_app.read_order(order)
    orders_app.fake_payments.decline(order.payment.payment_id)
    orders_app.advance_clock(timedelta(seconds=30))
    await orders_app.run_periodic_jobs()

    assert meanwhile.status is OrderStatus.PENDING
    assert (await assert_consistent(orders_app, order)).status is OrderStatus.EXPIRED


async def test_expiry_failure_of_one_order_does_not_stop_others(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(200)
    placed_at_once = [await orders_app.place(product_id) for _ in range(60)]
    # all orders expire at the same time, so the job takes them in the order of their ids
    orders = sorted(placed_at_once, key=lambda order: order.order_id)
    stuck = orders[::7]
    for order in stuck:
        orders_app.fake_payments.start_processing(order.payment.payment_id)
    orders_app.advance_clock(RESERVATION_TTL)
    # call 1 asks payments about the whole first batch; calls 3 and 6 are about one order each
    orders_app.call_failures.fail_call(3, "before")
    orders_app.call_failures.fail_call(6, "after")

    await orders_app.run_periodic_jobs()

    states = [(await orders_app.read_order(order)).status for order in orders]
    assert states.count(OrderStatus.PENDING) == len(stuck) + 2
    orders_app.advance_clock(timedelta(seconds=30))
    await orders_app.run_periodic_jobs()
    states = [(await orders_app.read_order(order)).status for order in orders]
    assert states.count(OrderStatus.PENDING) == len(stuck)


async def test_each_pending_order_is_asked_about_ever_less_often(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    asked_at = []

    for second in range(int((order.expires_at - START).total_seconds())):
        orders_app.clock.now = START + timedelta(seconds=second)
        before = len(orders_app.call_failures.calls)
        await orders_app.run_periodic_jobs()
        asked_at += [second] * (len(orders_app.call_failures.calls) - before)

    assert asked_at[:4] == [15, 30, 60, 110]
    gaps = {later - earlier for earlier, later in pairwise(asked_at[3:])}
    assert gaps == {50}


@pytest.mark.parametrize("refunded", [0, 500, 2000])
async def test_captured_payment_is_applied_without_its_event(
    orders_app: OrdersApp, refunded: int
) -> None:
    order = await placed(orders_app)
    payment_id = order.payment.payment_id
    orders_app.fake_payments.capture(payment_id)
    if refunded:
        amount = Money(amount=refunded, currency="EUR")
        command = RefundPayment(payment_id=payment_id, refund_id=new_id(), amount=amount)
        await orders_app.fake_payments.refund(system_context("test"), command)
    late_events = orders_app.fake_payments.pending_events
    orders_app.fake_payments.pending_events = []

    orders_app.advance_clock(timedelta(seconds=15))
    await orders_app.run_periodic_jobs()
    await orders_app.process_events(TWICE)
    before_the_events = await orders_app.read_order(order)
    orders_app.fake_payments.pending_events += late_events
    await orders_app.process_events(TWICE)

    assert (before_the_events.status, before_the_events.payment_status) == {
        0: (OrderStatus.PROCESSING, OrderPaymentStatus.PAID),
        500: (OrderStatus.PROCESSING, OrderPaymentStatus.PARTIALLY_REFUNDED),
        2000: (OrderStatus.CANCELLED, OrderPaymentStatus.REFUNDED),
    }[refunded]
    assert await orders_app.read_order(order) == before_the_events


# Late capture


async def capture_cancelled_payment(orders_app: OrdersApp, order: OrderView) -> None:
    """Capture a cancelled payment, as if the provider had not received the cancellation."""
    orders_app.fake_payments.reopen(order.payment.payment_id)
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events(TWICE)


async def test_late_capture_reinstates_expired_order(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.advance_clock(RESERVATION_TTL)
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()

    await capture_cancelled_payment(orders_app, order)

    after = await assert_consistent(orders_app, order)
    assert (after.status, after.payment_status) == (OrderStatus.PROCESSING, OrderPaymentStatus.PAID)
    assert await orders_app.changes(order) == ["placed", "expired", "revived"]
    old, new = orders_app.fake_inventory.reservations_of(order.order_id)
    assert (old.status, new.status) == (ReservationStatus.RELEASED, ReservationStatus.COMMITTED)


async def test_reinstated_order_can_be_shipped(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.advance_clock(RESERVATION_TTL)
    await orders_app.run_periodic_jobs()
    await capture_cancelled_payment(orders_app, order)

    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    await orders_app.fulfilments.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())
    await orders_app.process_events(TWICE)

    assert (await orders_app.read_order(order)).status is OrderStatus.COMPLETED
    assert (
        orders_app.fake_inventory.on_hand(order.lines[0].product_id) == orders_app.initial_stock - 2
    )


async def test_late_capture_without_stock_is_refunded(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.advance_clock(RESERVATION_TTL)
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()
    orders_app.fake_inventory.remove_stock(order.lines[0].product_id, orders_app.initial_stock - 1)
    orders_app.initial_stock = 1

    await capture_cancelled_payment(orders_app, order)

    after = await assert_consistent(orders_app, order)
    assert (after.status, after.payment_status) == (
        OrderStatus.EXPIRED,
        OrderPaymentStatus.REFUNDED,
    )
    assert await orders_app.changes(order) == [
        "placed",
        "expired",
        "late_payment",
        "payment_refunded",
    ]
    assert (await orders_app.read_timeline(order)).items[
        2
    ].reason == "out of stock by now: refunded"


async def test_capture_of_cancelled_order_is_refunded(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    await orders_app.orders.cancel(orders_app.buyer, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events()

    await capture_cancelled_payment(orders_app, order)

    after = await assert_consistent(orders_app, order)
    assert (after.status, after.payment_status) == (
        OrderStatus.CANCELLED,
        OrderPaymentStatus.REFUNDED,
    )
    assert (await orders_app.changes(order))[-2:] == ["late_payment", "payment_refunded"]


async def test_cancel_during_payment_refunds_capture(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.fake_payments.start_processing(order.payment.payment_id)
    await orders_app.orders.cancel(orders_app.buyer, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events()

    orders_app.fake_payments.capture(order.payment.payment_id)
    orders_app.advance_clock(timedelta(seconds=2))
    await orders_app.process_events(TWICE)

    after = await assert_consistent(orders_app, order)
    assert (after.status, after.payment_status) == (
        OrderStatus.CANCELLED,
        OrderPaymentStatus.REFUNDED,
    )


async def test_cancel_during_failed_payment_closes_payment(
    orders_app: OrdersApp,
) -> None:
    order = await placed(orders_app)
    orders_app.fake_payments.start_processing(order.payment.payment_id)
    await orders_app.orders.cancel(orders_app.buyer, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events()

    orders_app.fake_payments.decline(order.payment.payment_id)
    orders_app.advance_clock(timedelta(seconds=2))
    await orders_app.process_events(TWICE)

    await assert_consistent(orders_app, order)
    assert (
        orders_app.fake_payments.payment(order.payment.payment_id).status is PaymentStatus.CANCELLED
    )


# Races


@pytest.mark.parametrize("round_", range(4))
async def test_cancel_and_pay_race_has_one_outcome(orders_app: OrdersApp, round_: int) -> None:
    order = await placed(orders_app)
    await orders_app.receive_event(orders_app.fake_payments.capture(order.payment.payment_id))
    orders_app.fake_payments.pending_events.clear()
    (delivery,) = await orders_app.claim()
    cancel = orders_app.orders.cancel(
        orders_app.buyer, order.order_id, CANCEL, attempt_without_key()
    )
    pay = orders_app.handle(delivery)

    await gather(*((cancel, pay) if round_ % 2 else (pay, cancel)))

    after = await assert_consistent(orders_app, order)
    assert after.status is OrderStatus.CANCELLED
    assert after.payment_status is OrderPaymentStatus.REFUNDED


@pytest.mark.parametrize("round_", range(4))
async def test_expiry_and_pay_race_has_one_outcome(orders_app: OrdersApp, round_: int) -> None:
    order = await placed(orders_app)
    orders_app.advance_clock(RESERVATION_TTL)
    await orders_app.receive_event(orders_app.fake_payments.capture(order.payment.payment_id))
    orders_app.fake_payments.pending_events.clear()
    (delivery,) = await orders_app.claim()
    expire = orders_app.run_periodic_jobs()
    pay = orders_app.handle(delivery)

    await gather(*((expire, pay) if round_ % 2 else (pay, expire)))

    after = await assert_consistent(orders_app, order)
    assert (after.status, after.payment_status) == (OrderStatus.PROCESSING, OrderPaymentStatus.PAID)


async def test_cancel_and_expiry_race_has_one_outcome(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.advance_clock(RESERVATION_TTL)

    await gather(
        orders_app.run_periodic_jobs(),
        orders_app.orders.cancel(orders_app.buyer, order.order_id, CANCEL, attempt_without_key()),
        return_exceptions=True,
    )
    await orders_app.process_events(TWICE)

    after = await assert_consistent(orders_app, order)
    assert after.status in {OrderStatus.CANCELLED, OrderStatus.EXPIRED}


async def test_ship_and_cancel_race_has_one_outcome(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.stock_up(), 2)

    shipped, cancelled = await gather(
        orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key()),
        orders_app.orders.cancel(orders_app.buyer, order.order_id, CANCEL, attempt_without_key()),
        return_exceptions=True,
    )
    await orders_app.process_events(TWICE)

    assert [isinstance(response, InvalidTransition) for response in (shipped, cancelled)].count(
        True
    ) == 1
    await assert_consistent(orders_app, order)


async def test_concurrent_handler_runs_have_one_effect(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    await orders_app.receive_event(orders_app.fake_payments.capture(order.payment.payment_id))
    orders_app.fake_payments.pending_events.clear()
    (delivery,) = await orders_app.claim()

    await gather(*(orders_app.handle(delivery) for _ in range(5)))

    await assert_consistent(orders_app, order)
    assert await orders_app.changes(order) == ["placed", "paid"]


async def test_handled_order_is_saved_with_its_events_or_not_at_all(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    await orders_app.receive_event(orders_app.fake_payments.capture(order.payment.payment_id))
    (delivery,) = await orders_app.claim()
    database, audit = orders_app.container.database(), AuditInfo("test", orders_app.clock())
    stale, other = await load_order(orders_app, order), await load_order(orders_app, order)
    other.cancel(audit)
    async with database.transaction() as store:
        await store.save_order(other)
    stale.pay(audit)

    with pytest.raises(ConcurrentUpdate):
        async with database.autocommit() as store:
            await store.save_handled_order(delivery, stale, [paid_event(stale)])
    assert await published_after_placing(orders_app) == []
    latest = await load_order(orders_app, order)
    latest.record_late_payment(audit)
    events = [cancelled_event(latest, "first"), cancelled_event(latest, "second")]
    async with database.autocommit() as store:
        assert await store.save_handled_order(delivery, latest, events)
    latest = await load_order(orders_app, order)
    latest.record_late_payment(audit)
    async with database.autocommit() as store:
        assert not await store.save_handled_order(delivery, latest, events)

    assert await published_after_placing(orders_app) == [
        event.model_dump_json() for event in events
    ]
    assert (await load_order(orders_app, order)).version == latest.version - 1


async def load_order(orders_app: OrdersApp, order: OrderView) -> Order:
    async with orders_app.container.database().read_session() as store:
        loaded = await store.get_order(order.order_id)
    assert loaded is not None
    return loaded


async def published_after_placing(orders_app: OrdersApp) -> list[str]:
    """Return the payloads of the published events, without OrderPlaced."""
    later = orders_app.clock() + timedelta(hours=1)
    envelopes = await orders_app.persistence.outbox.list_unpublished(later, None, 100)
    return [envelope.payload for envelope in envelopes if envelope.type != OrderPlaced.type]


# Outages of other contexts


# maps the ending of an order to the calls to other contexts that its last events cause
CALLS_BY_ENDING = {
    "paid": ["commit"],
    "cancelled": ["release", "cancel"],
    "paid and cancelled": ["release", "cancel", "refund"],
    "expired": ["release"],
    "late": ["reserve", "commit"],
    "late and cancelled": ["refund"],
}


async def bring_to_ending(orders_app: OrdersApp, ending: str) -> OrderView:
    """Place an order and bring it to this ending. Its last events stay unprocessed."""
    order = await placed(orders_app)
    if ending in {"late", "late and cancelled", "expired"}:
        orders_app.advance_clock(RESERVATION_TTL)
        if ending == "late and cancelled":
            await orders_app.orders.cancel(
                orders_app.buyer, order.order_id, CANCEL, attempt_without_key()
            )
        else:
            await orders_app.run_periodic_jobs()
        if ending != "expired":
            await orders_app.process_events()
            orders_app.fake_payments.reopen(order.payment.payment_id)
    if ending.startswith(("paid", "late")):
        orders_app.fake_payments.capture(order.payment.payment_id)
    if ending == "paid and cancelled":
        await orders_app.process_events()
    if ending in {"cancelled", "paid and cancelled"}:
        await orders_app.orders.cancel(
            orders_app.buyer, order.order_id, CANCEL, attempt_without_key()
        )
    return order


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("ending", "number"),
    [
        (ending, number)
        for ending, calls in CALLS_BY_ENDING.items()
        for number in range(1, len(calls) + 1)
    ],
)
async def test_unavailable_context_delays_expiry_without_changing_outcome(
    orders_app: OrdersApp, ending: str, number: int, when: str
) -> None:
    order = await bring_to_ending(orders_app, ending)
    orders_app.call_failures.fail_call(number, when)
    made = len(orders_app.call_failures.calls)

    await orders_app.process_events()
    for _ in range(3):
        orders_app.advance_clock(timedelta(seconds=2))
        await orders_app.process_events()

    assert set(CALLS_BY_ENDING[ending]) <= set(orders_app.call_failures.calls[made:])
    after = await assert_consistent(orders_app, order)
    assert after.status is {
        "paid": OrderStatus.PROCESSING,
        "late": OrderStatus.PROCESSING,
        "expired": OrderStatus.EXPIRED,
    }.get(ending, OrderStatus.CANCELLED)


def test_every_subscription_of_the_manifest_has_a_handler(orders_app: OrdersApp) -> None:
    keys = {key for keys in HANDLER_KEYS.values() for key in keys}

    assert set(orders_app.handlers) == keys
    # two handlers subscribe to the event about a fulfilment
    assert len(keys) == len(HANDLER_KEYS) + 1


async def test_dispute_is_on_the_timeline_and_changes_no_status(orders_app: OrdersApp) -> None:
    order = await placed(orders_app)
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()

    for status in ("needs_response", "won"):
        orders_app.fake_payments.dispute(order.payment.payment_id, status)
        await orders_app.process_events(TWICE)

    after = await assert_consistent(orders_app, order)
    assert (after.status, after.payment_status) == (
        OrderStatus.PROCESSING,
        OrderPaymentStatus.PAID,
    )
    entries = (await orders_app.read_timeline(order)).items[-2:]
    assert [(one.change, one.reason) for one in entries] == [
        ("payment_disputed", "needs_response: fraudulent"),
        ("payment_disputed", "won: fraudulent"),
    ]
