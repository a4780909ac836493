"""Every implementation of orders keeps these promises."""

from asyncio import gather
from datetime import timedelta

import pytest

from markethall.inventory.contract import (
    OutOfStock,
    ProductNotFound,
    ReservationClosed,
    ReservationStatus,
)
from markethall.orders.contract import (
    Address,
    FulfilmentNotFound,
    FulfilmentState,
    FulfilmentStatus,
    FulfilOrder,
    InvalidTransition,
    LineToFulfil,
    OrderCurrencyMismatch,
    OrderNotFound,
    OrdersQuery,
    OrderStatus,
    OrderView,
    PaymentState,
    TooMuchToFulfil,
    TotalChanged,
)
from markethall.payments.contract import PaymentStatus
from markethall.shared.errors import Forbidden, Unavailable
from markethall.shared.idempotency import InFlight
from markethall.shared.ids import new_id
from markethall.shared.metrics import STATEMENTS
from markethall.shared.pages import CursorInvalid
from markethall.users.contract import UserInactive
from tests.orders.conftest import CANCEL, HOLD, SHIP, STAFF, Hall, person, unkeyed, wanted

ADDRESS = {
    "recipient": "Ada Lovelace",
    "line1": "Keizersgracht 1",
    "city": "Amsterdam",
    "postal_code": "1015 CJ",
    "country": "NL",
}


# Placing


async def test_a_placed_order_holds_its_goods_and_has_its_payment_open(hall: Hall) -> None:
    product_id = hall.shelf.stock(5, amount=1250)

    order = await hall.place(product_id, 2, note="ring twice")

    assert order.status is OrderStatus.PENDING
    assert order.payment_status is PaymentState.NONE
    assert order.fulfilment_status is FulfilmentState.UNFULFILLED
    assert order.user_id == hall.buyer.user_id
    assert order.note == "ring twice"
    (line,) = order.lines
    assert (line.product_id, line.quantity, line.unit_price.amount) == (product_id, 2, 1250)
    assert (order.subtotal, order.total, line.total) == (order.total, line.total, order.subtotal)
    assert (order.total.amount, order.total.currency) == (2500, "EUR")
    assert hall.shelf.available(product_id) == 3
    (payment,) = hall.till.payments_of(order.order_id)
    assert order.payment.payment_id == payment.payment_id
    assert (payment.status, payment.amount) == (PaymentStatus.CREATED, order.total)


async def test_the_money_must_come_a_while_before_the_goods_are_let_go(hall: Hall) -> None:
    order = await hall.place(hall.shelf.stock(5))

    (hold,) = hall.shelf.holds_of(order.order_id)

    assert hold.expires_at == hall.clock() + HOLD
    assert order.expires_at == hold.expires_at - timedelta(seconds=60)
    assert hall.till.payment(order.payment.payment_id).expires_at == order.expires_at


async def test_what_was_placed_is_what_is_read(hall: Hall) -> None:
    order = await hall.place(hall.shelf.stock(5), 2, shipping_address=ADDRESS)

    assert await hall.orders.order(hall.buyer, order.order_id) == order
    assert order.shipping_address == Address.model_validate(ADDRESS)


async def test_a_billing_address_is_kept_beside_the_other(hall: Hall) -> None:
    order = await hall.place(hall.shelf.stock(5), billing_address='Straße 1, "Köln"')

    again = await hall.seen(order)

    assert (again.shipping_address, again.billing_address) == ("Market 1", 'Straße 1, "Köln"')


async def test_numbers_are_given_in_turn(hall: Hall) -> None:
    product_id = hall.shelf.stock(5)

    numbers = [(await hall.place(product_id)).number for _ in range(3)]

    assert numbers == ["MH-1001", "MH-1002", "MH-1003"]


async def test_lines_of_the_same_product_are_one_and_keep_the_customers_order(hall: Hall) -> None:
    one, other = hall.shelf.stock(9, amount=100), hall.shelf.stock(9, amount=10)
    lines = [(other, 1), (one, 2), (other, 3)]
    command = wanted(one).model_validate(
        {
            "lines": [{"product_id": p, "quantity": n} for p, n in lines],
            "shipping_address": "Market 1",
        }
    )

    order = await hall.orders.place(hall.buyer, command, unkeyed())

    assert [(line.product_id, line.quantity) for line in order.lines] == [(other, 4), (one, 2)]
    assert order.total.amount == 240


async def test_who_may_not_buy_is_told_so_and_nothing_is_held(hall: Hall) -> None:
    product_id = hall.shelf.stock(5)
    hall.people.disabled.add(hall.buyer.user_id)

    with pytest.raises(UserInactive):
        await hall.place(product_id)

    assert hall.shelf.available(product_id) == 5


async def test_an_order_for_more_than_there_is_is_refused(hall: Hall) -> None:
    product_id = hall.shelf.stock(1)

    with pytest.raises(OutOfStock) as refusal:
        await hall.place(product_id, 2)

    assert refusal.value.details["lines"] == [
        {"product_id": str(product_id), "requested": 2, "available": 1}
    ]
    assert await hall.orders.count() == 0


async def test_an_order_for_nothing_we_have_is_refused(hall: Hall) -> None:
    with pytest.raises(ProductNotFound):
        await hall.place(new_id())


async def test_another_currency_lets_the_goods_go_again(hall: Hall) -> None:
    product_id = hall.shelf.stock(5)

    with pytest.raises(OrderCurrencyMismatch):
        await hall.place(product_id, currency="USD")

    assert hall.shelf.available(product_id) == 5
    assert await hall.orders.count() == 0


async def test_a_changed_price_lets_the_goods_go_again_and_says_the_total(hall: Hall) -> None:
    product_id = hall.shelf.stock(5, amount=1000)
    hall.shelf.reprice(product_id, 1100)

    with pytest.raises(TotalChanged) as refusal:
        await hall.place(product_id, 2, expected_total={"amount": 2000, "currency": "EUR"})

    assert refusal.value.details == {"total": {"amount": 2200, "currency": "EUR"}}
    assert hall.shelf.available(product_id) == 5


async def test_the_same_attempt_again_is_the_same_order(hall: Hall) -> None:
    product_id, attempt = hall.shelf.stock(5), unkeyed()

    first = await hall.orders.place(hall.buyer, wanted(product_id), attempt)
    second = await hall.orders.place(hall.buyer, wanted(product_id), attempt)

    assert second == first
    assert first.order_id == attempt.id
    assert hall.shelf.available(product_id) == 4
    assert await hall.orders.count() == 1


async def test_two_tries_of_one_attempt_at_once_are_one_order(hall: Hall) -> None:
    product_id, attempt = hall.shelf.stock(5), unkeyed()

    orders = await gather(
        *(hall.orders.place(hall.buyer, wanted(product_id), attempt) for _ in range(5))
    )

    assert len({order.model_dump_json() for order in orders}) == 1
    assert await hall.orders.count() == 1
    assert hall.shelf.available(product_id) == 4


async def test_an_attempt_that_comes_late_finds_what_became_of_its_order(hall: Hall) -> None:
    product_id, attempt = hall.shelf.stock(5), unkeyed()
    order = await hall.orders.place(hall.buyer, wanted(product_id), attempt)
    await hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())
    await hall.settle()

    again = await hall.orders.place(hall.buyer, wanted(product_id), attempt)

    assert again == await hall.seen(order)
    assert again.status is OrderStatus.CANCELLED


async def test_the_price_of_the_first_attempt_stands(hall: Hall) -> None:
    product_id = hall.shelf.stock(5, amount=1000)
    hall.cuts.cut(3, "before")
    with pytest.raises(Unavailable):
        await hall.place_with_key("key", wanted(product_id))
    hall.shelf.reprice(product_id, 9000)

    answer = await hall.place_with_key("key", wanted(product_id))

    assert OrderView.model_validate_json(answer.body).total.amount == 1000


async def test_a_retry_after_the_hold_has_ended_is_refused_for_good(hall: Hall) -> None:
    product_id = hall.shelf.stock(5)
    hall.cuts.cut(3, "after")
    with pytest.raises(Unavailable):
        await hall.place_with_key("key", wanted(product_id))
    hall.later(HOLD)

    with pytest.raises(ReservationClosed):
        await hall.place_with_key("key", wanted(product_id))
    replayed = await hall.place_with_key("key", wanted(product_id))

    assert (replayed.status, replayed.content_type) == (409, "application/problem+json")
    assert await hall.orders.count() == 0
    assert hall.shelf.available(product_id) == 5


async def test_twenty_requests_with_one_key_make_one_order(hall: Hall) -> None:
    product_id = hall.shelf.stock(50)

    answers = await gather(
        *(hall.place_with_key("key", wanted(product_id)) for _ in range(20)),
        return_exceptions=True,
    )

    bodies = {answer.body for answer in answers if not isinstance(answer, BaseException)}
    others = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(bodies) == 1
    assert all(isinstance(other, InFlight) for other in others)
    assert await hall.orders.count() == 1
    assert hall.shelf.available(product_id) == 49


async def test_fifty_buyers_of_ten_things_get_ten(hall: Hall) -> None:
    product_id = hall.shelf.stock(10)
    buyers = [person(new_id(), "customer") for _ in range(50)]

    answers = await gather(
        *(hall.orders.place(buyer, wanted(product_id), unkeyed()) for buyer in buyers),
        return_exceptions=True,
    )

    assert sum(isinstance(answer, OrderView) for answer in answers) == 10
    assert sum(isinstance(answer, OutOfStock) for answer in answers) == 40
    assert len({answer.number for answer in answers if isinstance(answer, OrderView)}) == 10


# Seeing


async def test_what_is_not_yours_is_not_there(hall: Hall) -> None:
    order = await hall.paid(hall.shelf.stock(5))
    shipped = await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())
    stranger = person(new_id(), "customer")

    refusals = []
    for ask in (
        lambda order_id: hall.orders.order(stranger, order_id),
        lambda order_id: hall.orders.status(stranger, order_id),
        lambda order_id: hall.orders.timeline(stranger, order_id),
        lambda order_id: hall.orders.cancel(stranger, order_id, CANCEL, unkeyed()),
    ):
        for order_id in (order.order_id, new_id()):
            with pytest.raises(OrderNotFound) as refusal:
                await ask(order_id)
            refusals.append((refusal.value.detail, set(refusal.value.details)))
    with pytest.raises(FulfilmentNotFound):
        await hall.orders.fulfilment(stranger, shipped.fulfilment_id)

    assert len(set(map(str, refusals))) == 1
    assert (await hall.orders.orders(stranger, OrdersQuery())).items == ()


async def test_the_owner_and_staff_see_how_an_order_stands(hall: Hall) -> None:
    order = await hall.place(hall.shelf.stock(5))

    for who in (hall.buyer, STAFF):
        state = await hall.orders.status(who, order.order_id)
        assert state.model_dump() == order.model_dump(include=set(type(state).model_fields))


async def test_the_timeline_tells_every_change(hall: Hall) -> None:
    order = await hall.paid(hall.shelf.stock(5))
    shipped = await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())
    await hall.orders.deliver(STAFF, shipped.fulfilment_id, unkeyed())

    timeline = await hall.orders.timeline(hall.buyer, order.order_id)

    staff = STAFF.actor.known_as
    assert [(entry.change, entry.actor, entry.reason) for entry in timeline.items] == [
        ("placed", hall.buyer.actor.known_as, ""),
        ("paid", "system:orders.note_payment_captured", ""),
        ("fulfilled", staff, "DHL JD01"),
        ("delivered", staff, "DHL JD01"),
        ("completed", staff, "DHL JD01"),
    ]
    assert timeline.items[-1].status is OrderStatus.COMPLETED


async def test_a_list_goes_on_where_it_stopped_though_orders_are_added(hall: Hall) -> None:
    product_id, placed = hall.shelf.stock(50), []
    for _ in range(7):
        hall.later(timedelta(seconds=1))
        placed.append((await hall.place(product_id)).order_id)

    seen, cursor = [], None
    while True:
        page = await hall.orders.orders(hall.buyer, OrdersQuery(limit=3, cursor=cursor))
        seen += [order.order_id for order in page.items]
        await hall.place(product_id)
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == placed[::-1]


async def test_orders_of_the_same_moment_are_listed_once_each(hall: Hall) -> None:
    product_id = hall.shelf.stock(50)
    placed = [(await hall.place(product_id)).order_id for _ in range(5)]

    seen, cursor = [], None
    for _ in range(5):
        query = OrdersQuery(limit=1, cursor=cursor, sort="created_at")
        page = await hall.orders.orders(hall.buyer, query)
        seen += [order.order_id for order in page.items]
        cursor = page.next_cursor

    assert cursor is None
    assert seen == sorted(placed)


async def test_a_list_shows_only_what_was_asked_for(hall: Hall) -> None:
    product_id = hall.shelf.stock(50)
    first = await hall.place(product_id)
    hall.later(timedelta(seconds=1))
    second = await hall.paid(product_id)
    hall.later(timedelta(seconds=1))
    other = person(new_id(), "customer")
    third = await hall.orders.place(other, wanted(product_id), unkeyed())

    async def numbers(**filters: object) -> list[str]:
        query = OrdersQuery.model_validate({"sort": "created_at", **filters})
        return [order.number for order in (await hall.orders.orders(STAFF, query)).items]

    everything = [first.number, second.number, third.number]
    assert await numbers() == everything
    assert await numbers(status="pending") == [first.number, third.number]
    assert await numbers(payment_status="paid") == [second.number]
    assert await numbers(fulfilment_status="unfulfilled") == everything
    assert await numbers(user_id=str(other.user_id)) == [third.number]
    assert await numbers(number=second.number) == [second.number]
    assert await numbers(created_after=first.created_at) == [second.number, third.number]
    assert await numbers(created_before=third.created_at) == [first.number, second.number]
    assert await numbers(status="pending", user_id=str(hall.buyer.user_id)) == [first.number]
    assert await numbers(number="MH-1") == []


async def test_a_customers_filter_on_somebody_else_shows_nothing(hall: Hall) -> None:
    order = await hall.place(hall.shelf.stock(5))
    stranger = person(new_id(), "customer")

    for filters in ({"user_id": str(order.user_id)}, {"number": order.number}):
        page = await hall.orders.orders(stranger, OrdersQuery.model_validate(filters))
        assert page.items == ()


async def test_a_cursor_is_good_for_its_own_list_only(hall: Hall) -> None:
    product_id = hall.shelf.stock(5)
    for _ in range(2):
        await hall.place(product_id)
    page = await hall.orders.orders(hall.buyer, OrdersQuery(limit=1))

    for who, query in (
        (hall.buyer, OrdersQuery(limit=1, cursor=page.next_cursor, sort="created_at")),
        (STAFF, OrdersQuery(limit=1, cursor=page.next_cursor)),
    ):
        with pytest.raises(CursorInvalid):
            await hall.orders.orders(who, query)


# Cancelling


async def test_a_cancelled_order_gives_its_goods_back_and_can_no_longer_be_paid(
    hall: Hall,
) -> None:
    product_id = hall.shelf.stock(5)
    order = await hall.place(product_id, 2)

    cancelled = await hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())
    await hall.settle()

    assert cancelled.status is OrderStatus.CANCELLED
    assert hall.shelf.available(product_id) == 5
    assert hall.till.payment(order.payment.payment_id).status is PaymentStatus.CANCELLED
    after = await hall.seen(order)
    assert (after.payment_status, after.payment.status) == (PaymentState.NONE, "cancelled")
    assert await hall.changes(order) == ["placed", "cancelled", "payment_cancelled"]
    assert (await hall.told(order)).items[1].reason == "changed my mind"


async def test_a_paid_order_that_is_cancelled_is_refunded(hall: Hall) -> None:
    product_id = hall.shelf.stock(5)
    order = await hall.paid(product_id, 2)

    await hall.orders.cancel(STAFF, order.order_id, CANCEL, unkeyed())
    await hall.settle()

    after = await hall.seen(order)
    assert (after.status, after.payment_status) == (OrderStatus.CANCELLED, PaymentState.REFUNDED)
    assert hall.till.kept(order.payment.payment_id) == 0
    assert hall.shelf.available(product_id) == 5


async def test_a_cancelled_order_is_not_cancelled_again(hall: Hall) -> None:
    order = await hall.place(hall.shelf.stock(5))
    await hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())

    with pytest.raises(InvalidTransition) as refusal:
        await hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())

    assert refusal.value.details == {"status": "cancelled", "allowed": []}


async def test_of_ten_who_cancel_at_once_one_does(hall: Hall) -> None:
    order = await hall.place(hall.shelf.stock(5))

    answers = await gather(
        *(hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed()) for _ in range(10)),
        return_exceptions=True,
    )

    assert sum(isinstance(answer, OrderView) for answer in answers) == 1
    assert sum(isinstance(answer, InvalidTransition) for answer in answers) == 9


# Shipping


async def test_goods_that_are_shipped_leave_the_shelf(hall: Hall) -> None:
    product_id = hall.shelf.stock(5)
    order = await hall.paid(product_id, 2)

    shipped = await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())
    await hall.settle()

    assert shipped.status is FulfilmentStatus.SHIPPED
    assert [(line.product_id, line.quantity) for line in shipped.lines] == [(product_id, 2)]
    assert (shipped.carrier, shipped.tracking_number) == ("DHL", "JD01")
    assert hall.shelf.on_hand(product_id) == 3
    after = await hall.seen(order)
    assert (after.status, after.fulfilment_status) == (
        OrderStatus.PROCESSING,
        FulfilmentState.FULFILLED,
    )
    assert after.lines[0].fulfilled == 2
    assert await hall.orders.fulfilment(hall.buyer, shipped.fulfilment_id) == shipped


async def test_an_order_leaves_in_two_parcels_and_completes_with_the_second(hall: Hall) -> None:
    product_id = hall.shelf.stock(5)
    order = await hall.paid(product_id, 3)
    (line,) = order.lines
    part = FulfilOrder(
        lines=(LineToFulfil(line_id=line.line_id, quantity=1),),
        carrier="DHL",
        tracking_number="JD01",
    )

    first = await hall.orders.fulfil(STAFF, order.order_id, part, unkeyed())
    partial = await hall.seen(order)
    second = await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())
    await hall.orders.deliver(STAFF, first.fulfilment_id, unkeyed())
    halfway = await hall.seen(order)
    arrived = await hall.orders.deliver(STAFF, second.fulfilment_id, unkeyed())
    await hall.settle()

    assert partial.fulfilment_status is FulfilmentState.PARTIAL
    assert second.lines[0].quantity == 2
    assert halfway.status is OrderStatus.PROCESSING
    assert arrived.status is FulfilmentStatus.DELIVERED
    assert arrived.delivered_at == hall.clock()
    done = await hall.seen(order)
    assert (done.status, done.fulfilment_status) == (
        OrderStatus.COMPLETED,
        FulfilmentState.DELIVERED,
    )
    assert hall.shelf.on_hand(product_id) == 2
    (hold,) = hall.shelf.holds_of(order.order_id)
    assert hold.status is ReservationStatus.CONSUMED


async def test_an_unpaid_order_is_not_shipped(hall: Hall) -> None:
    order = await hall.place(hall.shelf.stock(5))

    with pytest.raises(InvalidTransition) as refusal:
        await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())

    assert refusal.value.details == {"status": "pending", "allowed": ["pay", "cancel"]}


async def test_more_than_was_ordered_is_not_shipped(hall: Hall) -> None:
    order = await hall.paid(hall.shelf.stock(5), 2)
    line_id = order.lines[0].line_id
    command = SHIP.model_copy(update={"lines": (LineToFulfil(line_id=line_id, quantity=3),)})

    with pytest.raises(TooMuchToFulfil) as refusal:
        await hall.orders.fulfil(STAFF, order.order_id, command, unkeyed())

    assert refusal.value.details["lines"] == [
        {"line_id": str(line_id), "requested": 3, "unfulfilled": 2}
    ]


async def test_a_shipped_order_is_not_shipped_again_and_not_cancelled(hall: Hall) -> None:
    order = await hall.paid(hall.shelf.stock(5))
    await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())

    with pytest.raises(InvalidTransition):
        await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())
    with pytest.raises(InvalidTransition) as refusal:
        await hall.orders.cancel(hall.buyer, order.order_id, CANCEL, unkeyed())

    assert refusal.value.details == {"status": "processing", "allowed": ["deliver"]}


async def test_the_same_attempt_ships_once(hall: Hall) -> None:
    product_id, attempt = hall.shelf.stock(5), unkeyed()
    order = await hall.paid(product_id)

    first = await hall.orders.fulfil(STAFF, order.order_id, SHIP, attempt)
    second = await hall.orders.fulfil(STAFF, order.order_id, SHIP, attempt)

    assert second == first
    assert first.fulfilment_id == attempt.id


async def test_a_parcel_is_delivered_once(hall: Hall) -> None:
    order = await hall.paid(hall.shelf.stock(5))
    shipped = await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())

    answers = await gather(
        *(hall.orders.deliver(STAFF, shipped.fulfilment_id, unkeyed()) for _ in range(5)),
        return_exceptions=True,
    )

    assert sum(isinstance(answer, InvalidTransition) for answer in answers) == 4
    assert (await hall.changes(order))[-2:] == ["delivered", "completed"]


async def test_shipping_is_for_staff(hall: Hall) -> None:
    order = await hall.paid(hall.shelf.stock(5))

    with pytest.raises(Forbidden):
        await hall.orders.fulfil(hall.buyer, order.order_id, SHIP, unkeyed())
    with pytest.raises(Forbidden):
        await hall.orders.deliver(hall.buyer, new_id(), unkeyed())


async def test_what_is_not_there_is_not_shipped_or_delivered(hall: Hall) -> None:
    with pytest.raises(OrderNotFound):
        await hall.orders.fulfil(STAFF, new_id(), SHIP, unkeyed())
    with pytest.raises(FulfilmentNotFound):
        await hall.orders.deliver(STAFF, new_id(), unkeyed())
    with pytest.raises(FulfilmentNotFound):
        await hall.orders.fulfilment(STAFF, new_id())


async def test_goods_that_are_gone_are_not_shipped_though_they_are_paid(hall: Hall) -> None:
    product_id = hall.shelf.stock(1)
    order = await hall.place(product_id)
    captured = hall.till.capture(order.payment.payment_id)
    hall.till.news.clear()
    hall.later(HOLD)
    hall.shelf.take_away(product_id, 1)
    await hall.hear(captured)
    (delivery,) = await hall.claim()
    await hall.handle(delivery)

    with pytest.raises(OutOfStock):
        await hall.orders.fulfil(STAFF, order.order_id, SHIP, unkeyed())
    await hall.settle()

    after = await hall.seen(order)
    assert (after.status, after.payment_status) == (OrderStatus.CANCELLED, PaymentState.REFUNDED)


# How much it asks of the database


async def spent(hall: Hall, before: float) -> float | None:
    """Statements since then; memory sends none."""
    return STATEMENTS._value.get() - before if hall.container.config.storage() == "sql" else None


async def test_an_order_costs_five_statements_at_most(hall: Hall) -> None:
    product_id = hall.shelf.stock(5)
    await hall.place(product_id)
    before = STATEMENTS._value.get()

    await hall.place_with_key("key", wanted(product_id))

    # the claim of the key, the order with its lines and timeline, the event, the answer
    assert await spent(hall, before) in {None, 4}


async def test_a_status_costs_one_statement_and_so_does_a_page(hall: Hall) -> None:
    order = await hall.place(hall.shelf.stock(5))
    costs = []

    for ask in (
        lambda: hall.orders.status(hall.buyer, order.order_id),
        lambda: hall.orders.order(hall.buyer, order.order_id),
        lambda: hall.orders.orders(hall.buyer, OrdersQuery()),
        hall.orders.count,
    ):
        before = STATEMENTS._value.get()
        await ask()
        costs.append(await spent(hall, before))

    assert set(costs) <= {None, 1}
