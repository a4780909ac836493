"""The contract suite of orders. It runs on each storage."""

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
    FulfilmentLineRequest,
    FulfilmentNotFound,
    FulfilmentStatus,
    FulfilOrder,
    InvalidTransition,
    OrderCurrencyMismatch,
    OrderFulfilmentStatus,
    OrderNotFound,
    OrderPaymentStatus,
    OrderQuery,
    OrderStatus,
    OrderView,
    TooMuchToFulfil,
    TotalChanged,
)
from markethall.payments.contract import PaymentStatus
from markethall.shared.idempotency.records import InFlight
from markethall.shared.kernel.errors import Forbidden, Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import CursorInvalid, PageQuery
from markethall.shared.observability.metrics import STATEMENTS
from markethall.users.contract import UserInactive
from tests.orders.conftest import (
    CANCEL,
    RESERVATION_TTL,
    SHIP,
    STAFF,
    OrdersApp,
    attempt_without_key,
    order_command,
    user_context,
)

ADDRESS = {
    "recipient": "Ada Lovelace",
    "line1": "Keizersgracht 1",
    "city": "Amsterdam",
    "postal_code": "1015 CJ",
    "country": "NL",
}


# Placing orders


async def test_placed_order_has_reservation_and_open_payment(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5, amount=1250)

    order = await orders_app.place(product_id, 2, note="ring twice")

    assert order.status is OrderStatus.PENDING
    assert order.payment_status is OrderPaymentStatus.NONE
    assert order.fulfilment_status is OrderFulfilmentStatus.UNFULFILLED
    assert order.user_id == orders_app.buyer.user_id
    assert order.note == "ring twice"
    (line,) = order.lines
    assert (line.product_id, line.quantity, line.unit_price.amount) == (product_id, 2, 1250)
    assert (order.subtotal, order.total, line.total) == (order.total, line.total, order.subtotal)
    assert (order.total.amount, order.total.currency) == (2500, "EUR")
    assert orders_app.fake_inventory.available(product_id) == 3
    (payment,) = orders_app.fake_payments.payments_of(order.order_id)
    assert order.payment.payment_id == payment.payment_id
    assert (payment.status, payment.amount) == (PaymentStatus.CREATED, order.total)


async def test_payment_expires_before_reservation(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))

    (reservation,) = orders_app.fake_inventory.reservations_of(order.order_id)

    assert reservation.expires_at == orders_app.clock() + RESERVATION_TTL
    assert order.expires_at == reservation.expires_at - timedelta(seconds=60)
    assert orders_app.fake_payments.payment(order.payment.payment_id).expires_at == order.expires_at


async def test_placed_order_equals_read_order(orders_app: OrdersApp) -> None:
    order = await orders_app.place(
        orders_app.fake_inventory.add_product(5), 2, shipping_address=ADDRESS
    )

    assert await orders_app.orders.get_order(orders_app.buyer, order.order_id) == order
    assert order.shipping_address == Address.model_validate(ADDRESS)


async def test_billing_address_is_stored_separately(orders_app: OrdersApp) -> None:
    order = await orders_app.place(
        orders_app.fake_inventory.add_product(5), billing_address='Straße 1, "Köln"'
    )

    again = await orders_app.read_order(order)

    assert (again.shipping_address, again.billing_address) == ("Market 1", 'Straße 1, "Köln"')


async def test_order_numbers_are_sequential(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)

    numbers = [(await orders_app.place(product_id)).number for _ in range(3)]

    assert numbers == ["MH-1001", "MH-1002", "MH-1003"]


async def test_lines_of_one_product_are_merged_in_request_order(orders_app: OrdersApp) -> None:
    one, other = (
        orders_app.fake_inventory.add_product(9, amount=100),
        orders_app.fake_inventory.add_product(9, amount=10),
    )
    lines = [(other, 1), (one, 2), (other, 3)]
    command = order_command(one).model_validate(
        {
            "lines": [{"product_id": p, "quantity": n} for p, n in lines],
            "shipping_address": "Market 1",
        }
    )

    order = await orders_app.orders.place(orders_app.buyer, command, attempt_without_key())

    assert [(line.product_id, line.quantity) for line in order.lines] == [(other, 4), (one, 2)]
    assert order.total.amount == 240


async def test_inactive_customer_is_rejected_and_nothing_is_reserved(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    orders_app.fake_users.disabled.add(orders_app.buyer.user_id)

    with pytest.raises(UserInactive):
        await orders_app.place(product_id)

    assert orders_app.fake_inventory.available(product_id) == 5


async def test_order_above_stock_is_rejected(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(1)

    with pytest.raises(OutOfStock) as error:
        await orders_app.place(product_id, 2)

    assert error.value.details["lines"] == [
        {"product_id": str(product_id), "requested": 2, "available": 1}
    ]
    assert await orders_app.orders.count() == 0


async def test_order_for_unknown_product_is_rejected(orders_app: OrdersApp) -> None:
    with pytest.raises(ProductNotFound):
        await orders_app.place(new_id())


async def test_currency_mismatch_releases_reservation(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)

    with pytest.raises(OrderCurrencyMismatch):
        await orders_app.place(product_id, currency="USD")

    assert orders_app.fake_inventory.available(product_id) == 5
    assert await orders_app.orders.count() == 0


async def test_price_change_releases_reservation_and_reports_total(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5, amount=1000)
    orders_app.fake_inventory.reprice(product_id, 1100)

    with pytest.raises(TotalChanged) as error:
        await orders_app.place(product_id, 2, expected_total={"amount": 2000, "currency": "EUR"})

    assert error.value.details["total"] == {"amount": 2200, "currency": "EUR"}
    assert orders_app.fake_inventory.available(product_id) == 5


async def test_retry_returns_same_order(orders_app: OrdersApp) -> None:
    product_id, attempt = orders_app.fake_inventory.add_product(5), attempt_without_key()

    first = await orders_app.orders.place(orders_app.buyer, order_command(product_id), attempt)
    second = await orders_app.orders.place(orders_app.buyer, order_command(product_id), attempt)

    assert second == first
    assert first.order_id == attempt.id
    assert orders_app.fake_inventory.available(product_id) == 4
    assert await orders_app.orders.count() == 1


async def test_concurrent_retries_create_one_order(orders_app: OrdersApp) -> None:
    product_id, attempt = orders_app.fake_inventory.add_product(5), attempt_without_key()

    orders = await gather(
        *(
            orders_app.orders.place(orders_app.buyer, order_command(product_id), attempt)
            for _ in range(5)
        )
    )

    assert len({order.model_dump_json() for order in orders}) == 1
    assert await orders_app.orders.count() == 1
    assert orders_app.fake_inventory.available(product_id) == 4


async def test_late_retry_returns_current_order(orders_app: OrdersApp) -> None:
    product_id, attempt = orders_app.fake_inventory.add_product(5), attempt_without_key()
    order = await orders_app.orders.place(orders_app.buyer, order_command(product_id), attempt)
    await orders_app.orders.cancel(orders_app.buyer, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events()

    again = await orders_app.orders.place(orders_app.buyer, order_command(product_id), attempt)

    assert again == await orders_app.orders.get_order(orders_app.buyer, order.order_id)
    assert again.status is OrderStatus.CANCELLED


async def test_retry_keeps_price_of_first_attempt(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5, amount=1000)
    orders_app.call_failures.fail_call(3, "before")
    with pytest.raises(Unavailable):
        await orders_app.place_with_key("key", order_command(product_id))
    orders_app.fake_inventory.reprice(product_id, 9000)

    response = await orders_app.place_with_key("key", order_command(product_id))

    assert OrderView.model_validate_json(response.body).total.amount == 1000


async def test_retry_after_reservation_ended_is_rejected_permanently(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    orders_app.call_failures.fail_call(3, "after")
    with pytest.raises(Unavailable):
        await orders_app.place_with_key("key", order_command(product_id))
    orders_app.advance_clock(RESERVATION_TTL)

    with pytest.raises(ReservationClosed):
        await orders_app.place_with_key("key", order_command(product_id))
    replayed = await orders_app.place_with_key("key", order_command(product_id))

    assert (replayed.status, replayed.content_type) == (409, "application/problem+json")
    assert await orders_app.orders.count() == 0
    assert orders_app.fake_inventory.available(product_id) == 5


async def test_twenty_requests_with_one_key_make_one_order(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(50)

    responses = await gather(
        *(orders_app.place_with_key("key", order_command(product_id)) for _ in range(20)),
        return_exceptions=True,
    )

    bodies = {response.body for response in responses if not isinstance(response, BaseException)}
    others = [response for response in responses if isinstance(response, BaseException)]
    assert len(bodies) == 1
    assert all(isinstance(other, InFlight) for other in others)
    assert await orders_app.orders.count() == 1
    assert orders_app.fake_inventory.available(product_id) == 49


async def test_fifty_concurrent_buyers_get_ten_units(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(10)
    buyers = [user_context(new_id(), "customer") for _ in range(50)]

    responses = await gather(
        *(
            orders_app.orders.place(buyer, order_command(product_id), attempt_without_key())
            for buyer in buyers
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(response, OrderView) for response in responses) == 10
    assert sum(isinstance(response, OutOfStock) for response in responses) == 40
    assert len({response.number for response in responses if isinstance(response, OrderView)}) == 10


# Reading orders


async def test_order_of_other_customer_is_not_found(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.fake_inventory.add_product(5))
    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    stranger = user_context(new_id(), "customer")

    errors = []
    for ask in (
        lambda order_id: orders_app.orders.get_order(stranger, order_id),
        lambda order_id: orders_app.orders.get_order_status(stranger, order_id),
        lambda order_id: orders_app.orders.get_timeline(stranger, order_id),
        lambda order_id: orders_app.fulfilments.list_fulfilments(stranger, order_id, PageQuery()),
        lambda order_id: orders_app.orders.cancel(
            stranger, order_id, CANCEL, attempt_without_key()
        ),
    ):
        for order_id in (order.order_id, new_id()):
            with pytest.raises(OrderNotFound) as error:
                await ask(order_id)
            errors.append((error.value.detail, set(error.value.details)))
    with pytest.raises(FulfilmentNotFound):
        await orders_app.fulfilments.get_fulfilment(stranger, shipped.fulfilment_id)

    assert len(set(map(str, errors))) == 1
    assert (await orders_app.orders.list_orders(stranger, OrderQuery())).items == ()


async def test_owner_and_staff_can_read_order(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))

    for who in (orders_app.buyer, STAFF):
        state, version = await orders_app.orders.get_order_status(who, order.order_id)
        assert state.model_dump() == order.model_dump(include=set(type(state).model_fields))
        assert version == order.version


async def test_timeline_records_every_change(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.fake_inventory.add_product(5))
    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    await orders_app.fulfilments.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())

    timeline = await orders_app.orders.get_timeline(orders_app.buyer, order.order_id)

    staff = STAFF.actor.audit_name
    assert [(entry.change, entry.actor, entry.reason) for entry in timeline.items] == [
        ("placed", orders_app.buyer.actor.audit_name, ""),
        ("paid", "system:orders.on_payment_captured", ""),
        ("fulfilled", staff, "DHL JD01"),
        ("delivered", staff, "DHL JD01"),
        ("completed", staff, "DHL JD01"),
    ]
    assert timeline.items[-1].status is OrderStatus.COMPLETED


async def test_pagination_is_stable_during_inserts(orders_app: OrdersApp) -> None:
    product_id, placed = orders_app.fake_inventory.add_product(50), []
    for _ in range(7):
        orders_app.advance_clock(timedelta(seconds=1))
        placed.append((await orders_app.place(product_id)).order_id)

    seen, cursor = [], None
    while True:
        page = await orders_app.orders.list_orders(
            orders_app.buyer, OrderQuery(limit=3, cursor=cursor)
        )
        seen += [order.order_id for order in page.items]
        await orders_app.place(product_id)
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == placed[::-1]


async def test_orders_with_equal_time_are_listed_once(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(50)
    placed = [(await orders_app.place(product_id)).order_id for _ in range(5)]

    seen, cursor = [], None
    for _ in range(5):
        query = OrderQuery(limit=1, cursor=cursor, sort="created_at")
        page = await orders_app.orders.list_orders(orders_app.buyer, query)
        seen += [order.order_id for order in page.items]
        cursor = page.next_cursor

    assert cursor is None
    assert seen == sorted(placed)


async def test_list_applies_filters(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(50)
    first = await orders_app.place(product_id)
    orders_app.advance_clock(timedelta(seconds=1))
    second = await orders_app.paid(product_id)
    orders_app.advance_clock(timedelta(seconds=1))
    other = user_context(new_id(), "customer")
    third = await orders_app.orders.place(other, order_command(product_id), attempt_without_key())

    async def numbers(**filters: object) -> list[str]:
        query = OrderQuery.model_validate({"sort": "created_at", **filters})
        return [order.number for order in (await orders_app.orders.list_orders(STAFF, query)).items]

    everything = [first.number, second.number, third.number]
    assert await numbers() == everything
    assert await numbers(status="pending") == [first.number, third.number]
    assert await numbers(payment_status="paid") == [second.number]
    assert await numbers(fulfilment_status="unfulfilled") == everything
    assert await numbers(user_id=str(other.user_id)) == [third.number]
    assert await numbers(number=second.number) == [second.number]
    assert await numbers(created_after=first.created_at) == [second.number, third.number]
    assert await numbers(created_before=third.created_at) == [first.number, second.number]
    assert await numbers(status="pending", user_id=str(orders_app.buyer.user_id)) == [first.number]
    assert await numbers(number="MH-1") == []


async def test_customer_filter_on_other_customer_is_empty(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))
    stranger = user_context(new_id(), "customer")

    for filters in ({"user_id": str(order.user_id)}, {"number": order.number}):
        page = await orders_app.orders.list_orders(stranger, OrderQuery.model_validate(filters))
        assert page.items == ()


async def test_cursor_is_bound_to_its_list(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    for _ in range(2):
        await orders_app.place(product_id)
    page = await orders_app.orders.list_orders(orders_app.buyer, OrderQuery(limit=1))

    for who, query in (
        (orders_app.buyer, OrderQuery(limit=1, cursor=page.next_cursor, sort="created_at")),
        (STAFF, OrderQuery(limit=1, cursor=page.next_cursor)),
    ):
        with pytest.raises(CursorInvalid):
            await orders_app.orders.list_orders(who, query)


# Cancelling orders


async def test_cancelled_order_releases_stock_and_cannot_be_paid(
    orders_app: OrdersApp,
) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.place(product_id, 2)

    cancelled = await orders_app.orders.cancel(
        orders_app.buyer, order.order_id, CANCEL, attempt_without_key()
    )
    await orders_app.process_events()

    assert cancelled.status is OrderStatus.CANCELLED
    assert orders_app.fake_inventory.available(product_id) == 5
    assert (
        orders_app.fake_payments.payment(order.payment.payment_id).status is PaymentStatus.CANCELLED
    )
    after = await orders_app.read_order(order)
    assert (after.payment_status, after.payment.status) == (OrderPaymentStatus.NONE, "cancelled")
    assert await orders_app.changes(order) == ["placed", "cancelled", "payment_cancelled"]
    assert (await orders_app.read_timeline(order)).items[1].reason == "changed my mind"


async def test_a_paid_order_that_is_cancelled_is_refunded(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.paid(product_id, 2)

    await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events()

    after = await orders_app.read_order(order)
    assert (after.status, after.payment_status) == (
        OrderStatus.CANCELLED,
        OrderPaymentStatus.REFUNDED,
    )
    assert orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id) == 0
    assert orders_app.fake_inventory.available(product_id) == 5


async def test_a_cancelled_order_is_not_cancelled_again(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))
    await orders_app.orders.cancel(orders_app.buyer, order.order_id, CANCEL, attempt_without_key())

    with pytest.raises(InvalidTransition) as error:
        await orders_app.orders.cancel(
            orders_app.buyer, order.order_id, CANCEL, attempt_without_key()
        )

    assert error.value.details == {"status": "cancelled", "allowed": []}


async def test_one_of_ten_concurrent_cancels_wins(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))

    responses = await gather(
        *(
            orders_app.orders.cancel(
                orders_app.buyer, order.order_id, CANCEL, attempt_without_key()
            )
            for _ in range(10)
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(response, OrderView) for response in responses) == 1
    assert sum(isinstance(response, InvalidTransition) for response in responses) == 9


# Fulfilment


async def test_shipping_consumes_stock(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.paid(product_id, 2)

    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    await orders_app.process_events()

    assert shipped.status is FulfilmentStatus.SHIPPED
    assert [(line.product_id, line.quantity) for line in shipped.lines] == [(product_id, 2)]
    assert (shipped.carrier, shipped.tracking_number) == ("DHL", "JD01")
    assert orders_app.fake_inventory.on_hand(product_id) == 3
    after = await orders_app.read_order(order)
    assert (after.status, after.fulfilment_status) == (
        OrderStatus.PROCESSING,
        OrderFulfilmentStatus.FULFILLED,
    )
    assert after.lines[0].fulfilled == 2
    assert (
        await orders_app.fulfilments.get_fulfilment(orders_app.buyer, shipped.fulfilment_id)
        == shipped
    )


async def test_two_fulfilments_complete_order(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.paid(product_id, 3)
    (line,) = order.lines
    part = FulfilOrder(
        lines=(FulfilmentLineRequest(line_id=line.line_id, quantity=1),),
        carrier="DHL",
        tracking_number="JD01",
    )

    first = await orders_app.fulfilments.fulfil(STAFF, order.order_id, part, attempt_without_key())
    partial = await orders_app.read_order(order)
    second = await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    await orders_app.fulfilments.deliver(STAFF, first.fulfilment_id, attempt_without_key())
    halfway = await orders_app.read_order(order)
    arrived = await orders_app.fulfilments.deliver(
        STAFF, second.fulfilment_id, attempt_without_key()
    )
    await orders_app.process_events()

    assert partial.fulfilment_status is OrderFulfilmentStatus.PARTIAL
    assert second.lines[0].quantity == 2
    assert halfway.status is OrderStatus.PROCESSING
    assert arrived.status is FulfilmentStatus.DELIVERED
    assert arrived.delivered_at == orders_app.clock()
    done = await orders_app.read_order(order)
    assert (done.status, done.fulfilment_status) == (
        OrderStatus.COMPLETED,
        OrderFulfilmentStatus.DELIVERED,
    )
    assert orders_app.fake_inventory.on_hand(product_id) == 2
    (reservation,) = orders_app.fake_inventory.reservations_of(order.order_id)
    assert reservation.status is ReservationStatus.CONSUMED


async def test_an_unpaid_order_is_not_shipped(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))

    with pytest.raises(InvalidTransition) as error:
        await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())

    assert error.value.details == {
        "status": "pending",
        "allowed": ["pay", "cancel", "change_address", "edit"],
    }


async def test_shipping_above_ordered_quantity_is_rejected(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.fake_inventory.add_product(5), 2)
    line_id = order.lines[0].line_id
    command = SHIP.model_copy(
        update={"lines": (FulfilmentLineRequest(line_id=line_id, quantity=3),)}
    )

    with pytest.raises(TooMuchToFulfil) as error:
        await orders_app.fulfilments.fulfil(STAFF, order.order_id, command, attempt_without_key())

    assert error.value.details["lines"] == [
        {"line_id": str(line_id), "requested": 3, "unfulfilled": 2}
    ]


async def test_a_shipped_order_is_not_shipped_again_and_not_cancelled(
    orders_app: OrdersApp,
) -> None:
    order = await orders_app.paid(orders_app.fake_inventory.add_product(5))
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())

    with pytest.raises(InvalidTransition):
        await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    with pytest.raises(InvalidTransition) as error:
        await orders_app.orders.cancel(
            orders_app.buyer, order.order_id, CANCEL, attempt_without_key()
        )

    assert error.value.details == {"status": "processing", "allowed": ["deliver", "fail_shipment"]}


async def test_ship_is_idempotent(orders_app: OrdersApp) -> None:
    product_id, attempt = orders_app.fake_inventory.add_product(5), attempt_without_key()
    order = await orders_app.paid(product_id)

    first = await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt)
    second = await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt)

    assert second == first
    assert first.fulfilment_id == attempt.id


async def test_deliver_is_idempotent(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.fake_inventory.add_product(5))
    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )

    responses = await gather(
        *(
            orders_app.fulfilments.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())
            for _ in range(5)
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(response, InvalidTransition) for response in responses) == 4
    assert (await orders_app.changes(order))[-2:] == ["delivered", "completed"]


async def test_shipping_requires_staff(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.fake_inventory.add_product(5))

    with pytest.raises(Forbidden):
        await orders_app.fulfilments.fulfil(
            orders_app.buyer, order.order_id, SHIP, attempt_without_key()
        )
    with pytest.raises(Forbidden):
        await orders_app.fulfilments.deliver(orders_app.buyer, new_id(), attempt_without_key())


async def test_unknown_order_cannot_be_shipped_or_delivered(orders_app: OrdersApp) -> None:
    with pytest.raises(OrderNotFound):
        await orders_app.fulfilments.fulfil(STAFF, new_id(), SHIP, attempt_without_key())
    with pytest.raises(FulfilmentNotFound):
        await orders_app.fulfilments.deliver(STAFF, new_id(), attempt_without_key())
    with pytest.raises(FulfilmentNotFound):
        await orders_app.fulfilments.get_fulfilment(STAFF, new_id())


async def test_paid_order_without_stock_is_not_shipped(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(1)
    order = await orders_app.place(product_id)
    captured = orders_app.fake_payments.capture(order.payment.payment_id)
    orders_app.fake_payments.pending_events.clear()
    orders_app.advance_clock(RESERVATION_TTL)
    orders_app.fake_inventory.remove_stock(product_id, 1)
    await orders_app.receive_event(captured)
    (delivery,) = await orders_app.claim()
    await orders_app.handle(delivery)

    with pytest.raises(OutOfStock):
        await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    await orders_app.process_events()

    after = await orders_app.read_order(order)
    assert (after.status, after.payment_status) == (
        OrderStatus.CANCELLED,
        OrderPaymentStatus.REFUNDED,
    )


# Statement counts


async def statements_since(orders_app: OrdersApp, before: float) -> float | None:
    """Return the number of statements since `before`, or None with the memory storage."""
    return (
        STATEMENTS._value.get() - before
        if orders_app.container.settings().storage == "sql"
        else None
    )


async def test_placing_order_takes_three_statements(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    await orders_app.place(product_id)
    before = STATEMENTS._value.get()

    await orders_app.place_with_key("key", order_command(product_id))

    # the statements: claim the key; insert the order with lines, timeline and event; store the
    # response
    assert await statements_since(orders_app, before) in {None, 3}


async def test_reading_order_or_page_takes_one_statement(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))
    costs = []

    for ask in (
        lambda: orders_app.orders.get_order_status(orders_app.buyer, order.order_id),
        lambda: orders_app.orders.get_order(orders_app.buyer, order.order_id),
        lambda: orders_app.orders.list_orders(orders_app.buyer, OrderQuery()),
        orders_app.orders.count,
    ):
        before = STATEMENTS._value.get()
        await ask()
        costs.append(await statements_since(orders_app, before))

    assert set(costs) <= {None, 1}
