"""Returns: requested, approved, received in parts, and closed by a refund, on both storages."""

from asyncio import gather
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from markethall.orders.contract import InvalidTransition, OrderNotFound, OrderStatus, OrderView
from markethall.orders.returns.contract import (
    CloseReturn,
    ReceiveReturn,
    RejectReturn,
    RequestReturn,
    ReturnNotFound,
    Returns,
    ReturnStatus,
    ReturnView,
    ShippingRefunded,
    TooMuchReceived,
    TooMuchToReturn,
)
from markethall.orders.returns.domain import RETURN_TRANSITIONS, ReturnCommand
from markethall.payments.contract import PaymentStatus, RefundPayment
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.errors import Forbidden
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import PageQuery
from tests.orders.conftest import SHIP, STAFF, OrdersApp, attempt_without_key, user_context
from tests.orders.fakes import Killed
from tests.orders.test_cancel_lines import paid_order, stock
from tests.orders.test_totals import configure


def returns_of(orders_app: OrdersApp) -> Returns:
    return orders_app.container.returns()


async def delivered_order(orders_app: OrdersApp, *quantities: int) -> OrderView:
    """Deliver an order of products with a price of 1000 each, and 5 units in stock."""
    order = await paid_order(orders_app, *quantities)
    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    await orders_app.fulfilments.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())
    await orders_app.process_events()
    return await orders_app.read_order(order)


def request_command(order: OrderView, *quantities: int) -> RequestReturn:
    """Build the request for a return of units of the first lines of the order."""
    lines = [
        {"line_id": line.line_id, "quantity": quantity}
        for line, quantity in zip(order.lines, quantities, strict=False)
        if quantity
    ]
    return RequestReturn.model_validate({"lines": lines, "reason": "does not fit"})


async def request(
    orders_app: OrdersApp, order: OrderView, *quantities: int, ctx: CallContext | None = None
) -> ReturnView:
    return await returns_of(orders_app).request(
        ctx or orders_app.buyer,
        order.order_id,
        request_command(order, *quantities),
        attempt_without_key(),
    )


async def approve(orders_app: OrdersApp, made: ReturnView) -> ReturnView:
    return await returns_of(orders_app).approve(STAFF, made.return_id, attempt_without_key())


async def receive(
    orders_app: OrdersApp, made: ReturnView, *units: int, disposition: str = "restock"
) -> ReturnView:
    """Receive units of the first lines of the return."""
    lines = [
        {
            "line_id": line.line_id,
            "quantity": quantity,
            "condition": "opened",
            "disposition": disposition,
        }
        for line, quantity in zip(made.lines, units, strict=False)
        if quantity
    ]
    command = ReceiveReturn.model_validate({"lines": lines})
    received = await returns_of(orders_app).receive(
        STAFF, made.return_id, command, attempt_without_key()
    )
    await orders_app.process_events(times=2)
    return received


async def close(
    orders_app: OrdersApp, made: ReturnView, *, refund_shipping: bool = False
) -> ReturnView:
    await returns_of(orders_app).close(
        STAFF, made.return_id, CloseReturn(refund_shipping=refund_shipping), attempt_without_key()
    )
    await orders_app.process_events(times=2)
    return await returns_of(orders_app).get_return(STAFF, made.return_id)


async def closed_return(orders_app: OrdersApp, order: OrderView, *quantities: int) -> ReturnView:
    made = await request(orders_app, order, *quantities)
    await approve(orders_app, made)
    await receive(orders_app, made, *(line.quantity for line in made.lines))
    return await close(orders_app, made)


def left(orders_app: OrdersApp, order: OrderView) -> int:
    return orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id)


async def counts(orders_app: OrdersApp, order: OrderView) -> list[tuple[int, int]]:
    """Return (in_return, returned) per line."""
    after = await orders_app.read_order(order)
    return [(line.in_return, line.returned) for line in after.lines]


async def test_return_is_requested_received_in_parts_and_refunded(orders_app: OrdersApp) -> None:
    order = await delivered_order(orders_app, 3)

    made = await request(orders_app, order, 3)
    await approve(orders_app, made)
    await receive(orders_app, made, 1)
    await receive(orders_app, made, 1, disposition="scrap")
    closed = await close(orders_app, made)

    assert (made.status, closed.status, made.refund) == (
        ReturnStatus.REQUESTED,
        ReturnStatus.CLOSED,
        None,
    )
    line = closed.lines[0]
    assert (line.quantity, line.restocked, line.scrapped, line.refund.amount) == (3, 1, 1, 2000)
    assert [receipt.lines[0].disposition for receipt in closed.receipts] == ["restock", "scrap"]
    assert closed.refund
    assert (closed.refund.amount.amount, closed.refund.refunded) == (
        2000,
        Money(amount=2000, currency="EUR"),
    )
    assert (left(orders_app, order), stock(orders_app, order)) == (1000, [(3, 3)])
    assert await counts(orders_app, order) == [(0, 2)]
    after = await orders_app.read_order(order)
    assert (after.status, after.payment_status) == (OrderStatus.COMPLETED, "partially_refunded")
    assert (await orders_app.changes(order))[-7:] == [
        "completed",
        "return_requested",
        "return_approved",
        "return_received",
        "return_received",
        "return_closed",
        "payment_refunded",
    ]


async def test_units_that_did_not_arrive_can_be_returned_later(orders_app: OrdersApp) -> None:
    order = await delivered_order(orders_app, 2)
    made = await request(orders_app, order, 2)
    await approve(orders_app, made)
    await receive(orders_app, made, 1)
    await close(orders_app, made)

    rest = await closed_return(orders_app, order, 1)

    assert rest.refund
    assert rest.refund.amount.amount == 1000
    assert (left(orders_app, order), await counts(orders_app, order)) == (0, [(0, 2)])
    with pytest.raises(TooMuchToReturn) as raised:
        await request(orders_app, order, 1)
    assert raised.value.details["lines"][0]["returnable"] == 0


async def test_only_delivered_units_are_returned(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 2)
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())

    with pytest.raises(TooMuchToReturn) as raised:
        await request(orders_app, order, 1)

    line_id = str(order.lines[0].line_id)
    assert raised.value.details == {
        "lines": [{"line_id": line_id, "requested": 1, "returnable": 0}]
    }


async def test_return_of_an_unknown_line_is_refused(orders_app: OrdersApp) -> None:
    order = await delivered_order(orders_app, 1)
    lines = [{"line_id": new_id(), "quantity": 1}]
    command = RequestReturn.model_validate({"lines": lines, "reason": "broken"})

    with pytest.raises(TooMuchToReturn):
        await returns_of(orders_app).request(
            orders_app.buyer, order.order_id, command, attempt_without_key()
        )


@pytest.mark.parametrize("end", ["reject", "cancel"])
async def test_units_of_an_ended_return_are_returned_again(orders_app: OrdersApp, end: str) -> None:
    order = await delivered_order(orders_app, 2)
    made = await request(orders_app, order, 2)
    before = await counts(orders_app, order)

    if end == "reject":
        ended = await returns_of(orders_app).reject(
            STAFF, made.return_id, RejectReturn(reason="too late"), attempt_without_key()
        )
    else:
        ended = await returns_of(orders_app).cancel(
            orders_app.buyer, made.return_id, attempt_without_key()
        )

    assert ended.status == {"reject": "rejected", "cancel": "cancelled"}[end]
    assert (before, await counts(orders_app, order)) == ([(2, 0)], [(0, 0)])
    await request(orders_app, order, 2)
    assert (left(orders_app, order), stock(orders_app, order)) == (2000, [(3, 3)])


async def test_units_beyond_the_return_are_not_received(orders_app: OrdersApp) -> None:
    order = await delivered_order(orders_app, 3)
    made = await request(orders_app, order, 2)
    await approve(orders_app, made)
    await receive(orders_app, made, 1)

    with pytest.raises(TooMuchReceived) as raised:
        await receive(orders_app, made, 2)

    line_id = str(order.lines[0].line_id)
    assert raised.value.details == {"lines": [{"line_id": line_id, "received": 2, "expected": 1}]}
    assert stock(orders_app, order) == [(3, 3)]


COMMANDS: dict[ReturnCommand, Callable[[OrdersApp, ReturnView], Awaitable[ReturnView]]] = {
    ReturnCommand.APPROVE: approve,
    ReturnCommand.REJECT: lambda app, made: returns_of(app).reject(
        STAFF, made.return_id, RejectReturn(reason="no"), attempt_without_key()
    ),
    ReturnCommand.RECEIVE: lambda app, made: receive(app, made, 1),
    ReturnCommand.CLOSE: close,
    ReturnCommand.CANCEL: lambda app, made: returns_of(app).cancel(
        STAFF, made.return_id, attempt_without_key()
    ),
}
# the commands that lead to each status
WAYS: dict[ReturnStatus, list[ReturnCommand]] = {
    ReturnStatus.REQUESTED: [],
    ReturnStatus.APPROVED: [ReturnCommand.APPROVE],
    ReturnStatus.REJECTED: [ReturnCommand.REJECT],
    ReturnStatus.RECEIVED: [ReturnCommand.APPROVE, ReturnCommand.RECEIVE],
    ReturnStatus.CLOSED: [ReturnCommand.APPROVE, ReturnCommand.RECEIVE, ReturnCommand.CLOSE],
    ReturnStatus.CANCELLED: [ReturnCommand.CANCEL],
}
ALLOWED: dict[ReturnStatus, dict[str, str]] = {
    ReturnStatus.REQUESTED: {"approve": "approved", "reject": "rejected", "cancel": "cancelled"},
    ReturnStatus.APPROVED: {"receive": "received", "cancel": "cancelled"},
    ReturnStatus.RECEIVED: {"receive": "received", "close": "closed"},
}


@pytest.mark.parametrize("command", ReturnCommand)
@pytest.mark.parametrize("status", ReturnStatus)
async def test_every_command_in_every_status_follows_the_table(
    orders_app: OrdersApp, status: ReturnStatus, command: ReturnCommand
) -> None:
    order = await delivered_order(orders_app, 3)
    made = await request(orders_app, order, 3)
    for step in WAYS[status]:
        await COMMANDS[step](orders_app, made)
    before = await orders_app.read_order(order)
    allowed = ALLOWED.get(status, {})

    if command in allowed:
        after = await COMMANDS[command](orders_app, made)
        assert after.status == allowed[command]
        return
    with pytest.raises(InvalidTransition) as raised:
        await COMMANDS[command](orders_app, made)
    assert raised.value.details == {"status": status.value, "allowed": list(allowed)}
    assert await orders_app.read_order(order) == before


def test_table_has_exactly_these_transitions() -> None:
    expected = {(s, c, to) for s, rows in ALLOWED.items() for c, to in rows.items()}

    assert {tuple(map(str, row)) for row in RETURN_TRANSITIONS} == expected


async def test_two_returns_of_the_same_units_are_one(orders_app: OrdersApp) -> None:
    order = await delivered_order(orders_app, 2)

    results = await gather(
        *(request(orders_app, order, 2) for _ in range(8)), return_exceptions=True
    )

    assert sum(isinstance(result, ReturnView) for result in results) == 1
    assert sum(isinstance(result, TooMuchToReturn) for result in results) == 7
    assert await counts(orders_app, order) == [(2, 0)]


async def test_concurrent_closings_refund_once(orders_app: OrdersApp) -> None:
    order = await delivered_order(orders_app, 2)
    made = await request(orders_app, order, 1)
    await approve(orders_app, made)
    await receive(orders_app, made, 1)

    closings = (
        returns_of(orders_app).close(STAFF, made.return_id, CloseReturn(), attempt_without_key())
        for _ in range(5)
    )
    results = await gather(*closings, return_exceptions=True)
    await orders_app.process_events(times=2)

    assert sum(isinstance(result, ReturnView) for result in results) == 1
    assert left(orders_app, order) == 1000


async def test_concurrent_ends_of_a_return_free_its_units_once(orders_app: OrdersApp) -> None:
    order, returns = await delivered_order(orders_app, 2), returns_of(orders_app)
    for _ in range(5):
        made = await request(orders_app, order, 2)

        ends = [
            returns.cancel(orders_app.buyer, made.return_id, attempt_without_key())
            for _ in range(4)
        ]
        reject = RejectReturn(reason="too late")
        ends += [
            returns.reject(STAFF, made.return_id, reject, attempt_without_key()) for _ in range(4)
        ]
        results = await gather(*ends, return_exceptions=True)

        assert sum(isinstance(result, ReturnView) for result in results) == 1
        assert sum(isinstance(result, InvalidTransition) for result in results) == 7
        assert await counts(orders_app, order) == [(0, 0)]


async def test_concurrent_receipts_never_exceed_the_return(orders_app: OrdersApp) -> None:
    order = await delivered_order(orders_app, 3)
    made = await request(orders_app, order, 2)
    await approve(orders_app, made)

    line = {"line_id": made.lines[0].line_id, "quantity": 1, "condition": "new"}
    command = ReceiveReturn.model_validate({"lines": [{**line, "disposition": "restock"}]})
    receipts = (
        returns_of(orders_app).receive(STAFF, made.return_id, command, attempt_without_key())
        for _ in range(5)
    )
    results = await gather(*receipts, return_exceptions=True)
    await orders_app.process_events(times=2)

    assert sum(isinstance(result, ReturnView) for result in results) == 2
    assert stock(orders_app, order) == [(4, 4)]


async def test_repeated_request_is_one_return(orders_app: OrdersApp) -> None:
    order, attempt = await delivered_order(orders_app, 2), attempt_without_key()
    command = request_command(order, 1)

    first, second = [
        await returns_of(orders_app).request(orders_app.buyer, order.order_id, command, attempt)
        for _ in range(2)
    ]

    assert (first, first.return_id) == (second, attempt.id)
    assert await counts(orders_app, order) == [(1, 0)]


async def test_closing_refunds_what_is_left_and_records_the_difference(
    orders_app: OrdersApp,
) -> None:
    order = await delivered_order(orders_app, 2)
    by_staff = RefundPayment(
        payment_id=order.payment.payment_id,
        refund_id=new_id(),
        amount=Money(amount=1500, currency="EUR"),
    )
    await orders_app.fake_payments.refund(system_context("test"), by_staff)
    await orders_app.process_events()

    closed = await closed_return(orders_app, order, 1)
    nothing_left = await closed_return(orders_app, order, 1)

    assert closed.refund
    assert nothing_left.refund
    assert (closed.refund.amount.amount, closed.refund.refunded) == (
        1000,
        Money(amount=500, currency="EUR"),
    )
    assert nothing_left.refund.refunded == Money(amount=0, currency="EUR")
    entries = (await orders_app.read_timeline(order)).items
    assert [e.reason for e in entries if e.change == "return_refund_reduced"] == [
        "500 EUR were not left to refund",
        "1000 EUR were not left to refund",
    ]
    assert left(orders_app, order) == 0


async def test_return_of_an_order_without_captured_money_refunds_nothing(
    orders_app: OrdersApp,
) -> None:
    order = await delivered_order(orders_app, 1)
    nothing = Money(amount=0, currency="EUR")
    orders_app.fake_payments.change_status(
        order.payment.payment_id, PaymentStatus.AUTHORIZED, captured=nothing
    )

    closed = await closed_return(orders_app, order, 1)

    assert closed.refund
    assert closed.refund.refunded == nothing


@pytest.mark.parametrize("when", ["before", "after", "killed before", "killed after"])
async def test_refund_is_made_once_after_a_failure(orders_app: OrdersApp, when: str) -> None:
    order = await delivered_order(orders_app, 2)
    made = await request(orders_app, order, 1)
    await approve(orders_app, made)
    await receive(orders_app, made, 1)
    await returns_of(orders_app).close(STAFF, made.return_id, CloseReturn(), attempt_without_key())
    orders_app.call_failures.fail_call(1, when)

    try:
        await orders_app.process_events()
    except Killed:
        assert when.startswith("killed")
    orders_app.clock.now = orders_app.clock.now.replace(hour=18)
    await orders_app.process_events(times=2)

    after = await returns_of(orders_app).get_return(STAFF, made.return_id)
    assert after.refund
    assert after.refund.refunded == Money(amount=1000, currency="EUR")
    assert left(orders_app, order) == 1000


async def test_other_customers_see_no_return(orders_app: OrdersApp) -> None:
    order = await delivered_order(orders_app, 1)
    made, stranger = await request(orders_app, order, 1), user_context(new_id(), "customer")
    returns = returns_of(orders_app)

    for key in (made.return_id, new_id()):
        with pytest.raises(ReturnNotFound):
            await returns.get_return(stranger, key)
        with pytest.raises(ReturnNotFound):
            await returns.cancel(stranger, key, attempt_without_key())
    with pytest.raises(OrderNotFound):
        await request(orders_app, order, 1, ctx=stranger)
    with pytest.raises(OrderNotFound):
        await returns.list_returns(stranger, order.order_id, PageQuery())


async def test_only_staff_decide_about_returns(orders_app: OrdersApp) -> None:
    order = await delivered_order(orders_app, 1)
    made = await request(orders_app, order, 1)
    returns, buyer = returns_of(orders_app), orders_app.buyer
    lines = [
        {
            "line_id": made.lines[0].line_id,
            "quantity": 1,
            "condition": "new",
            "disposition": "scrap",
        }
    ]
    commands: list[Awaitable[Any]] = [
        returns.approve(buyer, made.return_id, attempt_without_key()),
        returns.reject(buyer, made.return_id, RejectReturn(reason="x"), attempt_without_key()),
        returns.receive(
            buyer,
            made.return_id,
            ReceiveReturn.model_validate({"lines": lines}),
            attempt_without_key(),
        ),
        returns.close(buyer, made.return_id, CloseReturn(), attempt_without_key()),
    ]

    for command in commands:
        with pytest.raises(Forbidden):
            await command


async def test_returns_of_an_order_are_listed_in_pages(orders_app: OrdersApp) -> None:
    order, other = await delivered_order(orders_app, 3), await delivered_order(orders_app, 1)
    made = [await request(orders_app, order, 1) for _ in range(3)]
    await request(orders_app, other, 1)
    returns = returns_of(orders_app)

    first = await returns.list_returns(orders_app.buyer, order.order_id, PageQuery(limit=2))
    rest = await returns.list_returns(
        STAFF, order.order_id, PageQuery(limit=2, cursor=first.next_cursor)
    )

    ids: list[UUID] = [view.return_id for view in (*first.items, *rest.items)]
    assert (ids, rest.next_cursor) == ([view.return_id for view in made], None)


async def test_shipping_is_refunded_by_one_return(orders_app: OrdersApp) -> None:
    await configure(orders_app, [], shipping=490)
    order = await delivered_order(orders_app, 2)
    first, second = [await request(orders_app, order, 1) for _ in range(2)]
    for made in (first, second):
        await approve(orders_app, made)
        await receive(orders_app, made, 1)

    closed = await close(orders_app, first, refund_shipping=True)
    with pytest.raises(ShippingRefunded):
        await close(orders_app, second, refund_shipping=True)
    await close(orders_app, second)

    assert closed.refund
    assert (closed.refund.amount.amount, closed.refund.shipping.amount) == (1490, 490)
    assert left(orders_app, order) == 0
