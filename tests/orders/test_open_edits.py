"""Edits of paid orders that cost more: they wait for an additional payment. On each storage."""

from asyncio import gather
from datetime import timedelta
from uuid import UUID

import pytest

from markethall.inventory.contract import OutOfStock
from markethall.orders.contract import (
    CancelOrder,
    EditApplied,
    EditNeedsCapture,
    EditNotFound,
    EditOpen,
    OrderPaymentStatus,
    OrderStatus,
    OrderView,
)
from markethall.payments.contract import InvalidPaymentTransition, PaymentStatus, RefundPayment
from markethall.shared.kernel.errors import Forbidden, Unavailable
from markethall.shared.kernel.ids import new_id
from tests.orders.conftest import CANCEL, SHIP, STAFF, OrdersApp, attempt_without_key
from tests.orders.fakes import Killed
from tests.orders.test_order_edits import edit, quantities_of

DAY = timedelta(days=1)


async def paid_with_open_edit(app: OrdersApp) -> tuple[UUID, OrderView, OrderView]:
    """Return a product, a paid order, and this order with an open edit.

    The product costs 10.00 and has 5 units. The order has 2 of them, 3 after the edit.
    """
    product_id = app.fake_inventory.add_product(5, amount=1000)
    order = await app.paid(product_id, 2)
    edited = await edit(app, order, {product_id: 3})
    return product_id, order, edited


def additional_id(order: OrderView) -> UUID:
    assert order.open_edit
    return order.open_edit.payment_id


async def cancel_edit(app: OrdersApp, order: OrderView, edit_id: UUID | None = None) -> OrderView:
    found = order.open_edit.edit_id if order.open_edit else edit_id
    assert found
    return await app.container.order_edits().cancel_edit(
        STAFF, order.order_id, found, attempt_without_key()
    )


async def test_raise_of_a_paid_order_waits_for_the_difference(orders_app: OrdersApp) -> None:
    product_id, order, edited = await paid_with_open_edit(orders_app)

    assert edited == await orders_app.read_order(order)
    assert (edited.total.amount, quantities_of(edited)) == (2000, {product_id: 2})
    assert edited.open_edit
    assert (edited.open_edit.amount.amount, edited.open_edit.total.amount) == (1000, 3000)
    assert [line.quantity for line in edited.open_edit.lines] == [3]
    payment = orders_app.fake_payments.payment(edited.open_edit.payment_id)
    assert (payment.status, payment.amount.amount) == (PaymentStatus.CREATED, 1000)
    assert edited.open_edit.payment_id in orders_app.fake_payments.activated
    assert orders_app.fake_inventory.available(product_id) == 2


async def test_edit_takes_effect_when_the_difference_is_captured(orders_app: OrdersApp) -> None:
    product_id, order, edited = await paid_with_open_edit(orders_app)

    orders_app.fake_payments.capture(additional_id(edited))
    await orders_app.process_events(times=2)

    applied = await orders_app.read_order(order)
    assert (applied.total.amount, quantities_of(applied)) == (3000, {product_id: 3})
    assert (applied.status, applied.payment_status) == (
        OrderStatus.PROCESSING,
        OrderPaymentStatus.PAID,
    )
    assert applied.open_edit is None
    [additional] = applied.additional_payments
    assert (additional.payment_id, additional.amount.amount) == (additional_id(edited), 1000)
    assert applied.payment == order.payment
    assert orders_app.fake_inventory.available(product_id) == 2
    assert [*(await orders_app.changes(order))][-2:] == ["edit_opened", "edited"]
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    await orders_app.process_events()
    assert orders_app.fake_inventory.on_hand(product_id) == 2


async def test_authorized_difference_is_captured_at_once(orders_app: OrdersApp) -> None:
    product_id, order, edited = await paid_with_open_edit(orders_app)

    orders_app.fake_payments.authorize(additional_id(edited))
    await orders_app.process_events(times=3)

    applied = await orders_app.read_order(order)
    assert quantities_of(applied) == {product_id: 3}
    captured = orders_app.fake_payments.captured_minus_refunded
    assert captured(additional_id(edited)) == 1000


async def test_unpaid_edit_is_dropped_and_the_order_stays(orders_app: OrdersApp) -> None:
    product_id, order, edited = await paid_with_open_edit(orders_app)

    orders_app.clock.now += DAY
    await orders_app.run_periodic_jobs()
    await orders_app.process_events(times=2)

    found = await orders_app.read_order(order)
    assert (found.status, found.open_edit, quantities_of(found)) == (
        OrderStatus.PROCESSING,
        None,
        {product_id: 2},
    )
    assert orders_app.fake_inventory.available(product_id) == 3
    payment = orders_app.fake_payments.payment(additional_id(edited))
    assert payment.status is PaymentStatus.CANCELLED
    entry = (await orders_app.read_timeline(order)).items[-1]
    assert (entry.change, entry.reason) == ("edit_dropped", "not paid in time")
    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    assert [line.quantity for line in shipped.lines] == [2]


async def test_payment_that_arrives_for_a_dropped_edit_is_refunded(orders_app: OrdersApp) -> None:
    _, order, edited = await paid_with_open_edit(orders_app)
    await cancel_edit(orders_app, edited)
    await orders_app.process_events(times=2)

    orders_app.fake_payments.reopen(additional_id(edited))
    orders_app.fake_payments.capture(additional_id(edited))
    await orders_app.process_events(times=2)

    captured = orders_app.fake_payments.captured_minus_refunded
    assert captured(additional_id(edited)) == 0
    assert captured(order.payment.payment_id) == 2000
    assert (await orders_app.read_order(order)).total.amount == 2000


async def test_cancelled_edit_releases_its_units(orders_app: OrdersApp) -> None:
    product_id, order, edited = await paid_with_open_edit(orders_app)

    assert edited.open_edit
    edit_id = edited.open_edit.edit_id
    first, again = [await cancel_edit(orders_app, order, edit_id) for _ in range(2)]
    await orders_app.process_events(times=2)

    assert first == again
    assert first.open_edit is None
    assert orders_app.fake_inventory.available(product_id) == 3
    with pytest.raises(EditNotFound):
        await cancel_edit(orders_app, order, new_id())
    newer = await edit(orders_app, order, {product_id: 5})
    assert newer.open_edit
    assert newer.open_edit.amount.amount == 3000


async def test_applied_edit_is_not_cancelled(orders_app: OrdersApp) -> None:
    _, order, edited = await paid_with_open_edit(orders_app)
    orders_app.fake_payments.capture(additional_id(edited))

    with pytest.raises(InvalidPaymentTransition):
        await cancel_edit(orders_app, edited)
    await orders_app.process_events(times=2)
    with pytest.raises(EditApplied):
        await cancel_edit(orders_app, edited)

    assert (await orders_app.read_order(order)).total.amount == 3000


async def test_order_with_an_open_edit_is_not_changed_otherwise(orders_app: OrdersApp) -> None:
    product_id, order, edited = await paid_with_open_edit(orders_app)
    lines = [{"line_id": order.lines[0].line_id, "quantity": 1}]
    part = CancelOrder.model_validate({"reason": "x", "lines": lines})

    with pytest.raises(EditOpen) as rejected:
        await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    with pytest.raises(EditOpen):
        await orders_app.orders.cancel(STAFF, order.order_id, part, attempt_without_key())
    with pytest.raises(EditOpen):
        await edit(orders_app, order, {product_id: 1})

    assert rejected.value.details["payment_id"] == str(additional_id(edited))
    assert await orders_app.read_order(order) == edited


@pytest.mark.parametrize("is_applied", [False, True])
async def test_cancelled_order_returns_all_payments(
    orders_app: OrdersApp, is_applied: bool
) -> None:
    product_id, order, edited = await paid_with_open_edit(orders_app)
    if is_applied:
        orders_app.fake_payments.capture(additional_id(edited))
        await orders_app.process_events(times=2)

    await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events(times=3)

    found = await orders_app.read_order(order)
    assert (found.status, found.payment_status) == (
        OrderStatus.CANCELLED,
        OrderPaymentStatus.REFUNDED,
    )
    captured = orders_app.fake_payments.captured_minus_refunded
    assert (captured(order.payment.payment_id), captured(additional_id(edited))) == (0, 0)
    payment = orders_app.fake_payments.payment(additional_id(edited))
    assert payment.status is (PaymentStatus.CAPTURED if is_applied else PaymentStatus.CANCELLED)
    assert orders_app.fake_inventory.available(product_id) == 5


async def test_refunds_are_split_over_the_payments(orders_app: OrdersApp) -> None:
    """20.00 and 30.00 are paid. Then three of the five units are removed, so 30.00 are refunded."""
    product_id = orders_app.fake_inventory.add_product(5, amount=1000)
    order = await orders_app.paid(product_id, 2)
    edited = await edit(orders_app, order, {product_id: 5})
    orders_app.fake_payments.capture(additional_id(edited))
    await orders_app.process_events(times=2)

    await edit(orders_app, order, {product_id: 4})
    await orders_app.process_events(times=2)
    lines = [{"line_id": order.lines[0].line_id, "quantity": 2}]
    part = CancelOrder.model_validate({"reason": "x", "lines": lines})
    await orders_app.orders.cancel(STAFF, order.order_id, part, attempt_without_key())
    await orders_app.process_events(times=2)

    captured = orders_app.fake_payments.captured_minus_refunded
    assert (captured(order.payment.payment_id), captured(additional_id(edited))) == (0, 2000)
    found = await orders_app.read_order(order)
    assert found.payment_status is OrderPaymentStatus.PARTIALLY_REFUNDED
    assert [payment.refunded.amount for payment in found.additional_payments] == [1000]


async def test_units_that_are_sold_meanwhile_drop_the_edit(orders_app: OrdersApp) -> None:
    product_id, order, edited = await paid_with_open_edit(orders_app)
    orders_app.clock.now += 2 * DAY  # no periodic job has run, but the reservation has expired
    orders_app.fake_inventory.remove_stock(product_id, 3)

    orders_app.fake_payments.capture(additional_id(edited))
    await orders_app.process_events(times=3)

    found = await orders_app.read_order(order)
    assert (found.status, quantities_of(found)) == (OrderStatus.PROCESSING, {product_id: 2})
    captured = orders_app.fake_payments.captured_minus_refunded
    assert (captured(order.payment.payment_id), captured(additional_id(edited))) == (2000, 0)
    assert orders_app.fake_inventory.available(product_id) == 0


async def test_refunded_order_drops_its_open_edit(orders_app: OrdersApp) -> None:
    product_id, order, edited = await paid_with_open_edit(orders_app)

    command = RefundPayment(payment_id=order.payment.payment_id, refund_id=new_id())
    await orders_app.fake_payments.refund(STAFF, command)
    await orders_app.process_events(times=3)

    found = await orders_app.read_order(order)
    assert (found.open_edit, found.payment_status) == (None, OrderPaymentStatus.REFUNDED)
    payment = orders_app.fake_payments.payment(additional_id(edited))
    assert payment.status is PaymentStatus.CANCELLED
    assert orders_app.fake_inventory.available(product_id) == 3


async def test_authorized_order_must_be_captured_before_it_costs_more(
    orders_app: OrdersApp,
) -> None:
    product_id = orders_app.fake_inventory.add_product(5, amount=1000)
    order = await orders_app.place(product_id, 1)
    orders_app.fake_payments.authorize(order.payment.payment_id)
    await orders_app.process_events()

    with pytest.raises(EditNeedsCapture):
        await edit(orders_app, order, {product_id: 2})

    assert orders_app.fake_inventory.available(product_id) == 4


async def test_raise_above_the_stock_is_rejected(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.paid(product_id, 2)

    with pytest.raises(OutOfStock):
        await edit(orders_app, order, {product_id: 6})

    assert (await orders_app.read_order(order)).open_edit is None
    assert len(orders_app.fake_payments.payments_of(order.order_id)) == 1


async def test_customer_cannot_cancel_an_edit(orders_app: OrdersApp) -> None:
    _, order, edited = await paid_with_open_edit(orders_app)
    assert edited.open_edit

    with pytest.raises(Forbidden):
        await orders_app.container.order_edits().cancel_edit(
            orders_app.buyer, order.order_id, edited.open_edit.edit_id, attempt_without_key()
        )


@pytest.mark.parametrize("when", ["before", "after", "killed before", "killed after"])
@pytest.mark.parametrize("number", range(1, 6))
async def test_retry_after_a_failed_call_opens_one_edit(
    orders_app: OrdersApp, number: int, when: str
) -> None:
    """One of these calls to other contexts fails: list_offers, reserve, open, extend, activate."""
    product_id = orders_app.fake_inventory.add_product(9, amount=1000)
    order = await orders_app.paid(product_id, 2)
    attempt_id = new_id()
    orders_app.call_failures.fail_call(number, when)

    with pytest.raises((Unavailable, Killed)):
        await edit(orders_app, order, {product_id: 3}, attempt_without_key(attempt_id))
    edited = await edit(orders_app, order, {product_id: 3}, attempt_without_key(attempt_id))
    await orders_app.process_events()

    assert edited.open_edit
    assert (await orders_app.changes(order)).count("edit_opened") == 1
    assert len(orders_app.fake_payments.payments_of(order.order_id)) == 2
    assert orders_app.fake_inventory.available(product_id) == 6
    orders_app.fake_payments.capture(edited.open_edit.payment_id)
    await orders_app.process_events(times=2)
    assert quantities_of(await orders_app.read_order(order)) == {product_id: 3}


async def test_crash_after_the_commit_still_allows_the_payment(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5, amount=1000)
    order = await orders_app.paid(product_id, 2)
    orders_app.call_failures.fail_call(4, "killed before")

    with pytest.raises(Killed):
        await edit(orders_app, order, {product_id: 3})
    await orders_app.process_events()

    edited = await orders_app.read_order(order)
    assert additional_id(edited) in orders_app.fake_payments.activated
    reservations = orders_app.fake_inventory.reservations_of(order.order_id)
    assert edited.open_edit
    assert max(one.expires_at for one in reservations) > edited.open_edit.expires_at


@pytest.mark.parametrize("number", range(1, 4))
async def test_crash_of_a_handler_applies_the_edit_once(orders_app: OrdersApp, number: int) -> None:
    """The handlers call `commit` and then `merge` in the context inventory."""
    product_id, order, edited = await paid_with_open_edit(orders_app)
    await orders_app.process_events(times=2)
    orders_app.call_failures.fail_call(number, "after")

    orders_app.fake_payments.capture(additional_id(edited))
    await orders_app.process_events(times=4)

    assert quantities_of(await orders_app.read_order(order)) == {product_id: 3}
    assert (await orders_app.changes(order)).count("edited") == 1
    assert orders_app.fake_inventory.available(product_id) == 2


async def test_one_of_two_edits_at_once_is_open(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(9, amount=1000)
    order = await orders_app.paid(product_id, 2)

    results = await gather(
        *(edit(orders_app, order, {product_id: number}) for number in (3, 4)),
        return_exceptions=True,
    )
    await orders_app.process_events()

    assert sorted(isinstance(result, EditOpen) for result in results) == [False, True]
    found = await orders_app.read_order(order)
    assert found.open_edit
    raised = found.open_edit.lines[0].quantity - 2
    assert orders_app.fake_inventory.available(product_id) == 7 - raised


@pytest.mark.parametrize("rival", ["cancel", "drop", "expire"])
async def test_payment_races_with_the_end_of_the_edit(orders_app: OrdersApp, rival: str) -> None:
    product_id, order, edited = await paid_with_open_edit(orders_app)
    if rival == "expire":
        orders_app.clock.now += DAY
    orders_app.fake_payments.capture(additional_id(edited))
    work = {
        "cancel": lambda: orders_app.orders.cancel(
            STAFF, order.order_id, CANCEL, attempt_without_key()
        ),
        "drop": lambda: cancel_edit(orders_app, edited),
        "expire": orders_app.run_periodic_jobs,
    }[rival]

    await gather(orders_app.process_events(), work(), return_exceptions=True)
    await orders_app.process_events(times=4)

    found = await orders_app.read_order(order)
    captured = orders_app.fake_payments.captured_minus_refunded
    paid = captured(order.payment.payment_id) + captured(additional_id(edited))
    expected = 0 if found.status is OrderStatus.CANCELLED else found.total.amount
    assert paid == expected
    units = 0 if found.status is OrderStatus.CANCELLED else quantities_of(found)[product_id]
    assert orders_app.fake_inventory.available(product_id) == 5 - units
    assert found.open_edit is None


async def test_concurrent_attempts_of_one_edit_keep_its_units(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(9, amount=1000)
    order = await orders_app.paid(product_id, 2)
    attempt = attempt_without_key(new_id())

    await gather(*(edit(orders_app, order, {product_id: 3}, attempt) for _ in range(5)))

    assert orders_app.fake_inventory.available(product_id) == 6
