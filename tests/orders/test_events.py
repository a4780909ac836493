"""What orders does with news: delivered twice, late, out of order, and all at once."""

from asyncio import gather
from datetime import timedelta

import pytest

from markethall.inventory.contract import ReservationStatus
from markethall.orders.contract import (
    InvalidTransition,
    OrderStatus,
    OrderView,
    PaymentState,
)
from markethall.orders.service import LISTENERS
from markethall.payments.contract import PaymentRefunded, PaymentStatus, RefundPayment
from markethall.shared.errors import Unavailable
from markethall.shared.events import Event
from markethall.shared.ids import new_id
from tests.orders.conftest import CANCEL, HOLD, SHIP, STAFF, Hall, unkeyed, wanted

TWICE = 2


async def is_consistent(hall: Hall, order: OrderView) -> OrderView:
    """Goods and money where the order says they are; nothing is left on the way."""
    await hall.settle()
    after = await hall.seen(order)
    kept = hall.till.kept(order.payment.payment_id)
    (product_id,) = (line.product_id for line in order.lines)
    quantity = order.lines[0].quantity
    sold = after.status in {OrderStatus.PROCESSING, OrderStatus.COMPLETED}
    assert kept == (order.total.amount if sold else 0)
    assert hall.shelf.available(product_id) == hall.stocked - (quantity if sold else 0)
    assert (await hall.told(order)).items[-1].status is after.status
    return after


async def placed(hall: Hall, quantity: int = 2) -> OrderView:
    return await hall.place(hall.stock_up(), quantity)


# The money comes


async def test_a_captured_payment_sells_the_goods_once(hall: Hall) -> None:
    order = await placed(hall)

    hall.till.capture(order.payment.payment_id)
    await hall.settle(TWICE)

    after = await is_consistent(hall, order)
    assert (after.status, after.payment_status) == (OrderStatus.PROCESSING, PaymentState.PAID)
    assert after.payment.status == "captured"
    assert await hall.changes(order) == ["placed", "paid"]
    (hold,) = hall.shelf.holds_of(order.order_id)
    assert hold.status is ReservationStatus.COMMITTED


async def test_the_same_news_in_two_envelopes_pays_once(hall: Hall) -> None:
    order = await placed(hall)

    event = hall.till.capture(order.payment.payment_id)
    await hall.hear(event)
    await hall.settle()

    await is_consistent(hall, order)
    assert await hall.changes(order) == ["placed", "paid"]


async def test_a_decline_leaves_the_order_payable(hall: Hall) -> None:
    order = await placed(hall)

    hall.till.decline(order.payment.payment_id)
    await hall.settle(TWICE)
    failed = await hall.seen(order)
    hall.till.capture(order.payment.payment_id)
    await hall.settle(TWICE)

    assert (failed.status, failed.payment_status) == (OrderStatus.PENDING, PaymentState.FAILED)
    after = await is_consistent(hall, order)
    assert (after.status, after.payment_status) == (OrderStatus.PROCESSING, PaymentState.PAID)
    assert await hall.changes(order) == ["placed", "payment_failed", "paid"]
    assert (await hall.told(order)).items[1].reason == "declined"


async def test_an_old_decline_does_not_unpay_an_order(hall: Hall) -> None:
    order = await placed(hall)
    declined = hall.till.decline(order.payment.payment_id)
    captured = hall.till.capture(order.payment.payment_id)
    hall.till.news = [captured]
    await hall.settle()

    await hall.hear(declined)
    await hall.settle()

    after = await is_consistent(hall, order)
    assert after.payment_status is PaymentState.PAID


async def test_a_refund_changes_the_payment_status_and_nothing_else(hall: Hall) -> None:
    order = await hall.paid(hall.stock_up(), 2)
    half = order.total.model_copy(update={"amount": order.total.amount // 2})
    states = []

    for _ in range(2):
        command = RefundPayment(
            payment_id=order.payment.payment_id, refund_id=new_id(), amount=half
        )
        await hall.till.refund(STAFF, command)
        await hall.settle(TWICE)
        after = await hall.seen(order)
        states.append((after.status, after.payment_status))

    assert states == [
        (OrderStatus.PROCESSING, PaymentState.PARTIALLY_REFUNDED),
        (OrderStatus.PROCESSING, PaymentState.REFUNDED),
    ]


async def test_goods_that_are_not_there_yet_leave_when_they_have_come(hall: Hall) -> None:
    product_id = hall.stock_up(2)
    order = await hall.paid(product_id, 2)
    hall.shelf.take_away(product_id, 1)
    await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())
    for _ in range(20):
        await hall.settle()
        hall.later(timedelta(minutes=1))
    before = hall.shelf.on_hand(product_id)

    hall.shelf.arrive(product_id, 1)
    await hall.settle()

    assert (before, hall.shelf.on_hand(product_id)) == (1, 0)
    (hold,) = hall.shelf.holds_of(order.order_id)
    assert hold.status is ReservationStatus.CONSUMED


async def test_money_that_is_back_before_we_hear_that_it_came_sells_nothing(hall: Hall) -> None:
    order = await placed(hall)
    captured = hall.till.capture(order.payment.payment_id)
    refund = RefundPayment(payment_id=order.payment.payment_id, refund_id=new_id())
    await hall.till.refund(STAFF, refund)
    (refunded,) = (event for event in hall.till.news if isinstance(event, PaymentRefunded))
    hall.till.news = [refunded]
    await hall.settle(TWICE)

    await hall.hear(captured)
    await hall.settle(TWICE)

    after = await is_consistent(hall, order)
    assert (after.status, after.payment_status) == (OrderStatus.CANCELLED, PaymentState.REFUNDED)


async def test_money_for_an_order_that_is_still_being_written_waits_for_it(hall: Hall) -> None:
    product_id = hall.stock_up()
    hall.cuts.cut(3, "after")
    with pytest.raises(Unavailable):
        await hall.place_with_key("key", wanted(product_id, 2))
    (payment,) = hall.till.all_payments()
    hall.till.capture(payment.payment_id)
    await hall.settle()

    answer = await hall.place_with_key("key", wanted(product_id, 2))
    hall.later(timedelta(seconds=2))

    order = OrderView.model_validate_json(answer.body)
    after = await is_consistent(hall, order)
    assert after.status is OrderStatus.PROCESSING


async def test_money_for_an_order_that_is_never_written_goes_back(hall: Hall) -> None:
    product_id = hall.stock_up()
    hall.cuts.cut(3, "after")
    with pytest.raises(Unavailable):
        await hall.place_with_key("key", wanted(product_id, 2))
    (payment,) = hall.till.all_payments()
    hall.till.capture(payment.payment_id)
    await hall.settle()

    hall.later(HOLD + timedelta(seconds=1))
    await hall.settle(TWICE)
    hall.later(HOLD + timedelta(seconds=1))
    await hall.settle(TWICE)

    assert hall.till.kept(payment.payment_id) == 0
    assert hall.shelf.available(product_id) == hall.stocked
    assert await hall.claim() == []


# The goods are gone


async def test_a_paid_order_whose_goods_are_gone_is_cancelled_and_refunded(hall: Hall) -> None:
    order = await placed(hall)
    hall.till.capture(order.payment.payment_id)
    hall.later(HOLD)
    hall.shelf.take_away(order.lines[0].product_id, hall.stocked)
    hall.stocked = 0

    await hall.settle(TWICE)

    after = await is_consistent(hall, order)
    assert (after.status, after.payment_status) == (OrderStatus.CANCELLED, PaymentState.REFUNDED)
    assert await hall.changes(order) == ["placed", "paid", "cancelled", "payment_refunded"]
    assert (await hall.told(order)).items[2].reason == "out of stock"


async def test_shipped_goods_leave_the_shelf_once(hall: Hall) -> None:
    order = await hall.paid(hall.stock_up(), 2)
    await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())

    await hall.settle(TWICE)

    assert hall.shelf.on_hand(order.lines[0].product_id) == hall.stocked - 2


# Time runs out


async def test_an_unpaid_order_expires_and_gives_its_goods_back(hall: Hall) -> None:
    order = await placed(hall)
    hall.later(order.expires_at - hall.clock())

    await hall.sweep()
    await hall.sweep()
    await hall.settle(TWICE)

    after = await is_consistent(hall, order)
    assert after.status is OrderStatus.EXPIRED
    assert after.payment.status == "cancelled"
    assert hall.till.payment(order.payment.payment_id).status is PaymentStatus.CANCELLED
    assert await hall.changes(order) == ["placed", "expired"]
    assert (await hall.told(order)).items[1].actor == "system:orders.expire"


async def test_an_order_does_not_expire_early(hall: Hall) -> None:
    order = await placed(hall)
    hall.later(order.expires_at - hall.clock() - timedelta(microseconds=1))

    await hall.sweep()

    assert (await hall.seen(order)).status is OrderStatus.PENDING


async def test_an_order_whose_money_is_taken_waits_for_the_news(hall: Hall) -> None:
    order = await placed(hall)
    hall.till.capture(order.payment.payment_id)
    hall.later(HOLD)

    await hall.sweep()
    meanwhile = await hall.seen(order)

    assert meanwhile.status is OrderStatus.PENDING
    assert (await is_consistent(hall, order)).status is OrderStatus.PROCESSING


async def test_an_order_whose_payment_is_being_decided_expires_later(hall: Hall) -> None:
    order = await placed(hall)
    hall.till.begin(order.payment.payment_id)
    hall.later(HOLD)

    await hall.sweep()
    meanwhile = await hall.seen(order)
    hall.till.decline(order.payment.payment_id)
    await hall.sweep()

    assert meanwhile.status is OrderStatus.PENDING
    assert (await is_consistent(hall, order)).status is OrderStatus.EXPIRED


async def test_one_order_that_cannot_end_stops_no_other(hall: Hall) -> None:
    product_id = hall.stock_up(200)
    placed_at_once = [await hall.place(product_id) for _ in range(60)]
    # all are due in the same moment: the sweep goes by id, and a cut must not meet a stuck one
    orders = sorted(placed_at_once, key=lambda order: order.order_id)
    stuck = orders[::7]
    for order in stuck:
        hall.till.begin(order.payment.payment_id)
    hall.later(HOLD)
    hall.cuts.cut(2, "before")
    hall.cuts.cut(5, "after")

    await hall.sweep()

    states = [(await hall.seen(order)).status for order in orders]
    assert states.count(OrderStatus.PENDING) == len(stuck) + 2
    await hall.sweep()
    states = [(await hall.seen(order)).status for order in orders]
    assert states.count(OrderStatus.PENDING) == len(stuck)


# Late money


async def late_money(hall: Hall, order: OrderView) -> None:
    """The provider has taken the money, though the payment was cancelled."""
    hall.till.reopen(order.payment.payment_id)
    hall.till.capture(order.payment.payment_id)
    await hall.settle(TWICE)


async def test_money_that_comes_after_the_end_revives_the_order(hall: Hall) -> None:
    order = await placed(hall)
    hall.later(HOLD)
    await hall.sweep()
    await hall.settle()

    await late_money(hall, order)

    after = await is_consistent(hall, order)
    assert (after.status, after.payment_status) == (OrderStatus.PROCESSING, PaymentState.PAID)
    assert await hall.changes(order) == ["placed", "expired", "revived"]
    old, new = hall.shelf.holds_of(order.order_id)
    assert (old.status, new.status) == (ReservationStatus.RELEASED, ReservationStatus.COMMITTED)


async def test_a_revived_order_is_shipped_like_any_other(hall: Hall) -> None:
    order = await placed(hall)
    hall.later(HOLD)
    await hall.sweep()
    await late_money(hall, order)

    shipped = await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())
    await hall.orders.deliver(STAFF, shipped.fulfilment_id, unkeyed())
    await hall.settle(TWICE)

    assert (await hall.seen(order)).status is OrderStatus.COMPLETED
    assert hall.shelf.on_hand(order.lines[0].product_id) == hall.stocked - 2


async def test_late_money_goes_back_when_the_goods_are_gone(hall: Hall) -> None:
    order = await placed(hall)
    hall.later(HOLD)
    await hall.sweep()
    await hall.settle()
    hall.shelf.take_away(order.lines[0].product_id, hall.stocked - 1)
    hall.stocked = 1

    await late_money(hall, order)

    after = await is_consistent(hall, order)
    assert (after.status, after.payment_status) == (OrderStatus.EXPIRED, PaymentState.REFUNDED)
    assert await hall.changes(order) == ["placed", "expired", "late_payment", "payment_refunded"]
    assert (await hall.told(order)).items[2].reason == "out of stock by now: refunded"


async def test_money_for_a_cancelled_order_goes_back(hall: Hall) -> None:
    order = await placed(hall)
    await hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())
    await hall.settle()

    await late_money(hall, order)

    after = await is_consistent(hall, order)
    assert (after.status, after.payment_status) == (OrderStatus.CANCELLED, PaymentState.REFUNDED)
    assert (await hall.changes(order))[-2:] == ["late_payment", "payment_refunded"]


async def test_an_order_cancelled_while_it_is_being_paid_gives_the_money_back(hall: Hall) -> None:
    order = await placed(hall)
    hall.till.begin(order.payment.payment_id)
    await hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())
    await hall.settle()

    hall.till.capture(order.payment.payment_id)
    hall.later(timedelta(seconds=2))
    await hall.settle(TWICE)

    after = await is_consistent(hall, order)
    assert (after.status, after.payment_status) == (OrderStatus.CANCELLED, PaymentState.REFUNDED)


async def test_an_order_cancelled_while_its_payment_fails_can_no_longer_be_paid(
    hall: Hall,
) -> None:
    order = await placed(hall)
    hall.till.begin(order.payment.payment_id)
    await hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())
    await hall.settle()

    hall.till.decline(order.payment.payment_id)
    hall.later(timedelta(seconds=2))
    await hall.settle(TWICE)

    await is_consistent(hall, order)
    assert hall.till.payment(order.payment.payment_id).status is PaymentStatus.CANCELLED


# All at once


@pytest.mark.parametrize("round_", range(4))
async def test_cancelling_and_paying_at_once_ends_in_one_of_them(hall: Hall, round_: int) -> None:
    order = await placed(hall)
    await hall.hear(hall.till.capture(order.payment.payment_id))
    hall.till.news.clear()
    (delivery,) = await hall.claim()
    cancel = hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())
    pay = hall.handle(delivery)

    await gather(*((cancel, pay) if round_ % 2 else (pay, cancel)))

    after = await is_consistent(hall, order)
    assert after.status is OrderStatus.CANCELLED
    assert after.payment_status is PaymentState.REFUNDED


@pytest.mark.parametrize("round_", range(4))
async def test_expiring_and_paying_at_once_ends_in_one_of_them(hall: Hall, round_: int) -> None:
    order = await placed(hall)
    hall.later(HOLD)
    await hall.hear(hall.till.capture(order.payment.payment_id))
    hall.till.news.clear()
    (delivery,) = await hall.claim()
    expire = hall.sweep()
    pay = hall.handle(delivery)

    await gather(*((expire, pay) if round_ % 2 else (pay, expire)))

    after = await is_consistent(hall, order)
    assert (after.status, after.payment_status) == (OrderStatus.PROCESSING, PaymentState.PAID)


async def test_cancelling_and_expiring_at_once_ends_in_one_of_them(hall: Hall) -> None:
    order = await placed(hall)
    hall.later(HOLD)

    await gather(
        hall.sweep(),
        hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed()),
        return_exceptions=True,
    )
    await hall.settle(TWICE)

    after = await is_consistent(hall, order)
    assert after.status in {OrderStatus.CANCELLED, OrderStatus.EXPIRED}


async def test_shipping_and_cancelling_at_once_ends_in_one_of_them(hall: Hall) -> None:
    order = await hall.paid(hall.stock_up(), 2)

    shipped, cancelled = await gather(
        hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed()),
        hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed()),
        return_exceptions=True,
    )
    await hall.settle(TWICE)

    assert [isinstance(answer, InvalidTransition) for answer in (shipped, cancelled)].count(
        True
    ) == 1
    await is_consistent(hall, order)


async def test_a_handler_run_by_two_processes_at_once_has_one_effect(hall: Hall) -> None:
    order = await placed(hall)
    await hall.hear(hall.till.capture(order.payment.payment_id))
    hall.till.news.clear()
    (delivery,) = await hall.claim()

    await gather(*(hall.handle(delivery) for _ in range(5)))

    await is_consistent(hall, order)
    assert await hall.changes(order) == ["placed", "paid"]


# Neighbours go away


STEPS = {
    "paid": ["commit"],
    "cancelled": ["release", "cancel"],
    "paid and cancelled": ["release", "cancel", "refund"],
    "expired": ["release"],
    "late": ["reserve", "commit"],
    "late and cancelled": ["refund"],
}


async def lead_to(hall: Hall, what: str) -> OrderView:
    """An order with the events of one kind of ending under way."""
    order = await placed(hall)
    if what in {"late", "late and cancelled", "expired"}:
        hall.later(HOLD)
        if what == "late and cancelled":
            await hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())
        else:
            await hall.sweep()
        if what != "expired":
            await hall.settle()
            hall.till.reopen(order.payment.payment_id)
    if what.startswith(("paid", "late")):
        hall.till.capture(order.payment.payment_id)
    if what == "paid and cancelled":
        await hall.settle()
    if what in {"cancelled", "paid and cancelled"}:
        await hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())
    return order


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("what", "number"),
    [(what, number) for what, calls in STEPS.items() for number in range(1, len(calls) + 1)],
)
async def test_a_neighbour_that_is_away_delays_the_end_and_does_not_change_it(
    hall: Hall, what: str, number: int, when: str
) -> None:
    order = await lead_to(hall, what)
    hall.cuts.cut(number, when)
    made = len(hall.cuts.made)

    await hall.settle()
    for _ in range(3):
        hall.later(timedelta(seconds=2))
        await hall.settle()

    assert set(STEPS[what]) <= set(hall.cuts.made[made:])
    after = await is_consistent(hall, order)
    assert after.status is {
        "paid": OrderStatus.PROCESSING,
        "late": OrderStatus.PROCESSING,
        "expired": OrderStatus.EXPIRED,
    }.get(what, OrderStatus.CANCELLED)


def test_every_handler_is_bound_under_its_name(hall: Hall) -> None:
    handlers = hall.container.handlers()

    assert list(handlers) == [entry.handler for entry in LISTENERS]
    assert len(handlers) == len({entry.event for entry in LISTENERS})
    assert all(issubclass(entry.event, Event) for entry in LISTENERS)
    assert all(name.startswith("orders.") for name in handlers)
