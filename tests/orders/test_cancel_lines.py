"""Cancel lines of a paid order, or the unshipped units of a partly shipped order."""

from uuid import UUID

import pytest

from markethall.orders.contract import (
    CancelOrder,
    FulfilmentLineRequest,
    FulfilOrder,
    InvalidTransition,
    OrderFulfilmentStatus,
    OrderPaymentStatus,
    OrderStatus,
    OrderView,
    PlaceOrder,
    TooMuchToCancel,
)
from markethall.payments.contract import RefundPayment
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from tests.orders.conftest import CANCEL, SHIP, STAFF, OrdersApp, attempt_without_key


async def paid_order(orders_app: OrdersApp, *quantities: int) -> OrderView:
    """Pay an order of several products, each with a price of 1000 and 5 units in stock."""
    lines = [
        {"product_id": orders_app.fake_inventory.add_product(5), "quantity": quantity}
        for quantity in quantities
    ]
    command = PlaceOrder.model_validate({"lines": lines, "shipping_address": "Market 1"})
    order = await orders_app.orders.place(orders_app.buyer, command, attempt_without_key())
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()
    return order


async def ship(orders_app: OrdersApp, order: OrderView, line_id: UUID, quantity: int = 1) -> UUID:
    command = FulfilOrder(
        lines=(FulfilmentLineRequest(line_id=line_id, quantity=quantity),),
        carrier="DHL",
        tracking_number="1",
    )
    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, command, attempt_without_key()
    )
    await orders_app.process_events()
    return shipped.fulfilment_id


async def cancel(
    orders_app: OrdersApp, order: OrderView, *lines: tuple[UUID, int], ctx: CallContext = STAFF
) -> OrderView:
    requested = tuple(
        FulfilmentLineRequest(line_id=line_id, quantity=quantity) for line_id, quantity in lines
    )
    command = CancelOrder(reason="sold out", lines=requested or None)
    await orders_app.orders.cancel(ctx, order.order_id, command, attempt_without_key())
    await orders_app.process_events(times=2)
    return await orders_app.read_order(order)


def stock(orders_app: OrdersApp, order: OrderView) -> list[tuple[int, int]]:
    """Return the units on hand and available, per line."""
    inventory = orders_app.fake_inventory
    return [
        (inventory.on_hand(line.product_id), inventory.available(line.product_id))
        for line in order.lines
    ]


@pytest.mark.parametrize("refund_first", [False, True])
@pytest.mark.parametrize("deliver_first", [False, True])
async def test_rest_of_partly_shipped_order_ends(
    orders_app: OrdersApp, refund_first: bool, deliver_first: bool
) -> None:
    order = await paid_order(orders_app, 1, 2)
    payment_id = order.payment.payment_id
    shipped = await ship(orders_app, order, order.lines[0].line_id)
    if refund_first:
        command = RefundPayment(payment_id=payment_id, refund_id=new_id(), reason="sold out")
        await orders_app.fake_payments.refund(system_context("test"), command)
        await orders_app.process_events()
    if deliver_first:
        await orders_app.fulfilments.deliver(STAFF, shipped, attempt_without_key())

    after = await cancel(orders_app, order)
    if not deliver_first:
        assert after.fulfilment_status is OrderFulfilmentStatus.FULFILLED
        await orders_app.fulfilments.deliver(STAFF, shipped, attempt_without_key())
        after = await orders_app.read_order(order)

    assert (after.status, after.fulfilment_status) == (
        OrderStatus.COMPLETED,
        OrderFulfilmentStatus.DELIVERED,
    )
    assert stock(orders_app, order) == [(4, 4), (5, 5)]
    assert [line.cancelled for line in after.lines] == [0, 2]
    left = orders_app.fake_payments.captured_minus_refunded(payment_id)
    assert (left, after.payment_status) == (
        (0, OrderPaymentStatus.REFUNDED)
        if refund_first
        else (1000, OrderPaymentStatus.PARTIALLY_REFUNDED)
    )
    assert (await orders_app.changes(order)).count("lines_cancelled") == 1
    with pytest.raises(InvalidTransition):
        await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())


async def test_lines_are_cancelled_and_the_others_shipped(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 2, 2)
    first, second = (line.line_id for line in order.lines)

    part = await cancel(orders_app, order, (first, 1), ctx=orders_app.buyer)
    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    await orders_app.process_events()
    await orders_app.fulfilments.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())

    assert (part.status, part.fulfilment_status) == (
        OrderStatus.PROCESSING,
        OrderFulfilmentStatus.UNFULFILLED,
    )
    assert {line.line_id: line.quantity for line in shipped.lines} == {first: 1, second: 2}
    assert (await orders_app.read_order(order)).status is OrderStatus.COMPLETED
    assert stock(orders_app, order) == [(4, 4), (3, 3)]
    assert orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id) == 3000


async def test_order_is_cancelled_with_its_last_units(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 1, 2)
    first, second = (line.line_id for line in order.lines)

    await cancel(orders_app, order, (first, 1))
    after = await cancel(orders_app, order, (second, 2), ctx=orders_app.buyer)

    assert (after.status, after.payment_status) == (
        OrderStatus.CANCELLED,
        OrderPaymentStatus.REFUNDED,
    )
    assert stock(orders_app, order) == [(5, 5), (5, 5)]
    assert orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id) == 0


async def test_refund_of_cancelled_lines_is_at_most_what_is_left(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 1, 2)
    amount = Money(amount=1500, currency="EUR")
    command = RefundPayment(
        payment_id=order.payment.payment_id, refund_id=new_id(), amount=amount, reason="sorry"
    )
    await orders_app.fake_payments.refund(system_context("test"), command)

    await cancel(orders_app, order, (order.lines[1].line_id, 2))

    assert orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id) == 0


@pytest.mark.parametrize("quantity", [3, 999])
async def test_more_than_the_unshipped_units_is_rejected(
    orders_app: OrdersApp, quantity: int
) -> None:
    order = await paid_order(orders_app, 1, 2)
    line_id = order.lines[1].line_id
    before = await orders_app.read_order(order)

    with pytest.raises(TooMuchToCancel) as error:
        await cancel(orders_app, order, (line_id, quantity))

    assert error.value.details["lines"] == [
        {"line_id": str(line_id), "requested": quantity, "unfulfilled": 2}
    ]
    assert await orders_app.read_order(order) == before


async def test_owner_does_not_cancel_the_rest_after_shipping(orders_app: OrdersApp) -> None:
    order = await paid_order(orders_app, 1, 2)
    await ship(orders_app, order, order.lines[0].line_id)
    before = await orders_app.read_order(order)

    with pytest.raises(InvalidTransition):
        await cancel(orders_app, order, ctx=orders_app.buyer)
    with pytest.raises(InvalidTransition):
        await cancel(orders_app, order, (order.lines[1].line_id, 1), ctx=orders_app.buyer)

    assert await orders_app.read_order(order) == before


async def test_lines_of_unpaid_order_are_not_cancelled(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.stock_up(), 2)

    with pytest.raises(InvalidTransition):
        await cancel(orders_app, order, (order.lines[0].line_id, 1))
    after = await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())

    assert after.status is OrderStatus.CANCELLED
