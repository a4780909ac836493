"""The domain rules of orders."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markethall.orders.contract import (
    InvalidTransition,
    OrderFulfilmentStatus,
    OrderPaymentStatus,
    OrderStatus,
    TooMuchToFulfil,
)
from markethall.orders.domain import (
    TRANSITIONS,
    AuditInfo,
    Fulfilment,
    Order,
    OrderCommand,
    OrderEdit,
    OrderLine,
    build_fulfilment_lines,
)
from markethall.shared.kernel.ids import derive_uuid7, new_id

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
AFTER = NOW + timedelta(hours=1)
AUDIT = AuditInfo("staff", AFTER, "because")


def line(quantity: int = 2, price: int = 500) -> OrderLine:
    return OrderLine(new_id(), new_id(), "SKU", "A thing", price, quantity)


def placed(*lines: OrderLine) -> Order:
    order = Order(
        order_id=new_id(),
        user_id=new_id(),
        currency="EUR",
        lines=lines or (line(),),
        shipping_address="Market 1",
        billing_address=None,
        note=None,
        payment_id=new_id(),
        reservation_id=new_id(),
        expires_at=NOW + timedelta(minutes=15),
        created_at=NOW,
        updated_at=NOW,
        overdue_check_at=NOW + timedelta(minutes=15),
    )
    order.mark_placed(AuditInfo("user", NOW))
    return order


def paid(*lines: OrderLine) -> Order:
    order = placed(*lines)
    order.pay(AUDIT)
    return order


def shipped() -> Order:
    order = paid()
    order.fulfil(order.unfulfilled_quantities(), AUDIT)
    return order


def lost() -> Order:
    order = shipped()
    order.fail_shipment(
        {line.line_id: line.quantity for line in order.lines}, "shipment_lost", AUDIT
    )
    return order


def completed() -> Order:
    order = shipped()
    order.deliver({line.line_id: line.quantity for line in order.lines}, AUDIT)
    return order


def cancelled() -> Order:
    order = placed()
    order.cancel(AUDIT)
    return order


def expired() -> Order:
    order = placed()
    order.expire(AUDIT)
    return order


def edited(order: Order) -> OrderEdit:
    return OrderEdit(new_id(), order.lines, None, discount=0, shipping=0, tax=0, included_tax=0)


COMMANDS: dict[OrderCommand, Callable[[Order], object]] = {
    OrderCommand.PAY: lambda order: order.pay(AUDIT),
    OrderCommand.CANCEL: lambda order: order.cancel(AUDIT),
    OrderCommand.EXPIRE: lambda order: order.expire(AUDIT),
    OrderCommand.REINSTATE: lambda order: order.reinstate(new_id(), AUDIT),
    OrderCommand.FULFIL: lambda order: order.fulfil(order.unsettled_quantities(), AUDIT),
    OrderCommand.CANCEL_LINES: lambda order: order.cancel_lines(
        {line.line_id: 1 for line in order.lines}, AUDIT
    ),
    OrderCommand.DELIVER: lambda order: order.deliver(
        {line.line_id: line.fulfilled for line in order.lines}, AUDIT
    ),
    OrderCommand.CHANGE_ADDRESS: lambda order: order.change_shipping_address("Market 2", AUDIT),
    OrderCommand.EDIT: lambda order: order.edit(edited(order), AUDIT),
    OrderCommand.FAIL_SHIPMENT: lambda order: order.fail_shipment(
        {line.line_id: line.fulfilled for line in order.lines}, "shipment_lost", AUDIT
    ),
}
# for each state of an order: the allowed commands, each with the status that it leads to
ALLOWED_COMMANDS: dict[Callable[[], Order], dict[OrderCommand, OrderStatus]] = {
    # not EDIT, because the time to pay is over
    placed: {
        OrderCommand.PAY: OrderStatus.PROCESSING,
        OrderCommand.EXPIRE: OrderStatus.EXPIRED,
        OrderCommand.CANCEL: OrderStatus.CANCELLED,
        OrderCommand.CHANGE_ADDRESS: OrderStatus.PENDING,
    },
    paid: {
        OrderCommand.CANCEL: OrderStatus.CANCELLED,
        OrderCommand.CHANGE_ADDRESS: OrderStatus.PROCESSING,
        OrderCommand.EDIT: OrderStatus.PROCESSING,
        OrderCommand.CANCEL_LINES: OrderStatus.PROCESSING,
        OrderCommand.FULFIL: OrderStatus.PROCESSING,
    },
    shipped: {
        OrderCommand.DELIVER: OrderStatus.COMPLETED,
        OrderCommand.FAIL_SHIPMENT: OrderStatus.PROCESSING,
    },
    lost: {
        OrderCommand.CANCEL_LINES: OrderStatus.PROCESSING,
        OrderCommand.FULFIL: OrderStatus.PROCESSING,
    },
    completed: {},
    cancelled: {},
    expired: {OrderCommand.REINSTATE: OrderStatus.PROCESSING},
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("make", ALLOWED_COMMANDS)
def test_every_command_in_every_state_follows_transition_table(
    make: Callable[[], Order], command: OrderCommand
) -> None:
    order, expected = make(), ALLOWED_COMMANDS[make].get(command)
    before = order.status

    if expected is None:
        with pytest.raises(InvalidTransition) as error:
            COMMANDS[command](order)
        assert error.value.details == {
            "status": before.value,
            "allowed": list(ALLOWED_COMMANDS[make]),
        }
        assert order.status is before
    else:
        COMMANDS[command](order)
        assert order.status is expected


def test_every_command_of_transition_table_is_tested() -> None:
    # `complete` has no method, because the last delivery triggers it
    assert {row.command for row in TRANSITIONS} == {*COMMANDS, OrderCommand.COMPLETE}


def test_an_order_does_not_expire_before_its_time() -> None:
    order = placed()

    with pytest.raises(InvalidTransition) as error:
        order.expire(AuditInfo("system", order.expires_at - timedelta(microseconds=1)))

    assert error.value.details == {
        "status": "pending",
        "allowed": ["pay", "cancel", "change_address", "edit"],
    }


def test_a_shipped_order_cannot_be_cancelled() -> None:
    one, other = line(), line()
    order = paid(one, other)
    order.fulfil({one.line_id: 1}, AUDIT)

    with pytest.raises(InvalidTransition) as error:
        order.cancel(AUDIT)

    assert error.value.details == {
        "status": "processing",
        "allowed": ["cancel_lines", "fulfil", "deliver", "fail_shipment"],
    }


def test_an_order_is_shipped_and_delivered_in_parts_and_completes_with_the_last() -> None:
    one, other = line(quantity=2), line(quantity=1)
    order = paid(one, other)
    seen = []

    order.fulfil({one.line_id: 1}, AUDIT)
    seen.append((order.status, order.fulfilment_status))
    order.fulfil(order.unfulfilled_quantities(), AUDIT)
    seen.append((order.status, order.fulfilment_status))
    order.deliver({one.line_id: 1}, AUDIT)
    seen.append((order.status, order.fulfilment_status))
    order.deliver({one.line_id: 1, other.line_id: 1}, AUDIT)
    seen.append((order.status, order.fulfilment_status))

    assert seen == [
        (OrderStatus.PROCESSING, OrderFulfilmentStatus.PARTIAL),
        (OrderStatus.PROCESSING, OrderFulfilmentStatus.FULFILLED),
        (OrderStatus.PROCESSING, OrderFulfilmentStatus.FULFILLED),
        (OrderStatus.COMPLETED, OrderFulfilmentStatus.DELIVERED),
    ]


def test_more_than_was_ordered_cannot_be_shipped() -> None:
    order = paid(line(quantity=2))
    (ordered,) = order.lines
    stranger = new_id()

    with pytest.raises(TooMuchToFulfil) as error:
        order.fulfil({ordered.line_id: 3, stranger: 1}, AUDIT)

    assert error.value.details == {
        "lines": [
            {"line_id": str(ordered.line_id), "requested": 3, "unfulfilled": 2},
            {"line_id": str(stranger), "requested": 1, "unfulfilled": 0},
        ]
    }


def test_every_change_adds_timeline_entry_with_version() -> None:
    order = completed()

    assert [entry.change for entry in order.pending_timeline_entries] == [
        "placed",
        "paid",
        "fulfilled",
        "delivered",
        "completed",
    ]
    assert [entry.version for entry in order.pending_timeline_entries] == [1, 2, 3, 4, 5]
    assert order.expected_version == 0
    assert (
        order.pending_timeline_entries[1].actor,
        order.pending_timeline_entries[1].at,
        order.pending_timeline_entries[1].reason,
    ) == (
        "staff",
        AFTER,
        "because",
    )
    assert order.pending_timeline_entries[1].status is OrderStatus.PROCESSING


def test_decline_is_recorded_only_before_capture() -> None:
    order = placed()

    order.follow_payment("failed", 3, AUDIT)
    failed = order.payment_status
    order.pay(AUDIT)
    order.follow_payment("failed", 5, AUDIT)

    assert failed is OrderPaymentStatus.FAILED
    assert order.payment_status is OrderPaymentStatus.PAID
    assert order.pending_timeline_entries[-1].change == "paid"


def test_refunds_add_up_in_any_event_order() -> None:
    order = paid()

    order.refund(1000, 1000, AUDIT)
    order.refund(400, 1000, AUDIT)

    assert order.payment_status is OrderPaymentStatus.REFUNDED
    assert order.refunded == 1000


def test_partial_refund_sets_payment_status() -> None:
    order = paid()

    order.refund(400, 1000, AUDIT)

    assert order.payment_status is OrderPaymentStatus.PARTIALLY_REFUNDED


def test_a_fulfilment_is_delivered_once() -> None:
    order = shipped()
    lines = build_fulfilment_lines(
        order.lines, {line.line_id: line.quantity for line in order.lines}
    )
    fulfilment = Fulfilment(new_id(), order.order_id, lines, "DHL", "JD01", NOW)
    fulfilment.deliver(AFTER)

    with pytest.raises(InvalidTransition) as error:
        fulfilment.deliver(AFTER)

    assert error.value.details == {"status": "delivered", "allowed": []}


@given(st.uuids(), st.text(max_size=20))
def test_a_derived_id_is_a_uuid_of_version_7_and_of_the_same_millisecond(
    origin: UUID, purpose: str
) -> None:
    made = derive_uuid7(origin, purpose)

    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == origin.int >> 80
    assert made == derive_uuid7(origin, purpose)


def test_derived_ids_differ_by_purpose_and_by_origin() -> None:
    origin, other = new_id(), new_id()

    made = {derive_uuid7(o, p) for o in (origin, other) for p in ("payment", "reservation")}

    assert len(made | {origin, other}) == 6
