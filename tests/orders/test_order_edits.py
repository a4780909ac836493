"""Edits of the lines of orders. The suite runs on each storage."""

from asyncio import gather
from typing import Any
from uuid import UUID

import pytest

from markethall.inventory.contract import OutOfStock, ProductNotFound, ReservationStatus
from markethall.orders.contract import (
    CancelOrder,
    EditOrder,
    InvalidTransition,
    OrderCurrencyMismatch,
    OrderPaymentStatus,
    OrderStatus,
    OrderView,
    TotalChanged,
)
from markethall.payments.contract import PaymentInProgress, PaymentStatus
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.errors import DomainError, Forbidden, Unavailable, ValidationFailed
from markethall.shared.kernel.ids import new_id
from tests.orders.conftest import (
    CANCEL,
    SHIP,
    STAFF,
    OrdersApp,
    attempt_without_key,
)
from tests.orders.fakes import Killed


async def edit(
    app: OrdersApp,
    order: OrderView,
    quantities: dict[UUID, int],
    attempt: IdempotentCommand | None = None,
    **more: Any,
) -> OrderView:
    lines = [
        {"product_id": product_id, "quantity": quantity}
        for product_id, quantity in quantities.items()
    ]
    command = EditOrder.model_validate({"lines": lines, **more})
    return await app.container.order_edits().edit(
        STAFF, order.order_id, command, attempt or attempt_without_key()
    )


def quantities_of(order: OrderView) -> dict[UUID, int]:
    return {line.product_id: line.quantity for line in order.lines}


async def pay(app: OrdersApp, order: OrderView) -> OrderView:
    app.fake_payments.capture(order.payment.payment_id)
    await app.process_events()
    return await app.read_order(order)


# Pending orders


async def test_pending_order_gets_a_new_payment_of_the_new_total(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5, amount=1000)
    order = await orders_app.place(product_id, 3)

    edited = await edit(orders_app, order, {product_id: 2}, reason="asked by phone")
    await orders_app.process_events()

    assert edited == await orders_app.read_order(order)
    assert (edited.status, edited.total.amount) == (OrderStatus.PENDING, 2000)
    payments = orders_app.fake_payments.payments_of(order.order_id)
    assert {(one.payment_id, one.status, one.amount.amount) for one in payments} == {
        (order.payment.payment_id, PaymentStatus.CANCELLED, 3000),
        (edited.payment.payment_id, PaymentStatus.CREATED, 2000),
    }
    assert edited.payment.payment_id in orders_app.fake_payments.activated
    assert orders_app.fake_inventory.available(product_id) == 3
    entry = (await orders_app.read_timeline(order)).items[-1]
    assert (entry.change, entry.reason) == ("edited", "asked by phone")
    paid = await pay(orders_app, edited)
    assert (paid.status, paid.payment_status) == (
        OrderStatus.PROCESSING,
        OrderPaymentStatus.PAID,
    )


async def test_existing_lines_keep_their_prices_and_new_ones_are_current(
    orders_app: OrdersApp,
) -> None:
    tea = orders_app.fake_inventory.add_product(9, amount=1000)
    cup = orders_app.fake_inventory.add_product(9, amount=700)
    order = await orders_app.place(tea, 1)
    orders_app.fake_inventory.reprice(tea, 9999)
    orders_app.fake_inventory.reprice(cup, 500)

    edited = await edit(orders_app, order, {tea: 2, cup: 3})
    await orders_app.process_events()

    assert quantities_of(edited) == {tea: 2, cup: 3}
    assert edited.lines[0].line_id == order.lines[0].line_id
    assert edited.total.amount == 2 * 1000 + 3 * 500
    assert edited == await orders_app.read_order(order)
    available = orders_app.fake_inventory.available
    assert (available(tea), available(cup)) == (7, 6)


async def test_raise_reserves_only_the_difference(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.place(product_id, 3)

    await edit(orders_app, order, {product_id: 5})
    await orders_app.process_events()

    assert orders_app.fake_inventory.available(product_id) == 0
    orders_app.clock.now = order.expires_at
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()
    assert orders_app.fake_inventory.available(product_id) == 5


async def test_product_with_quantity_0_is_removed(orders_app: OrdersApp) -> None:
    tea, cup = (orders_app.fake_inventory.add_product(9) for _ in range(2))
    order = await edit(orders_app, await orders_app.place(tea, 1), {cup: 2})

    edited = await edit(orders_app, order, {tea: 0})
    await orders_app.process_events()

    assert quantities_of(edited) == {cup: 2}
    available = orders_app.fake_inventory.available
    assert (available(tea), available(cup)) == (9, 7)


async def test_edited_order_can_expire(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await edit(orders_app, await orders_app.place(product_id, 1), {product_id: 2})

    orders_app.clock.now = order.expires_at
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()

    assert (await orders_app.read_order(order)).status is OrderStatus.EXPIRED
    assert orders_app.fake_inventory.available(product_id) == 5


async def test_edit_waits_for_a_payment_in_progress(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.place(product_id, 1)
    orders_app.fake_payments.start_processing(order.payment.payment_id)

    with pytest.raises(PaymentInProgress):
        await edit(orders_app, order, {product_id: 2})

    assert quantities_of(await orders_app.read_order(order)) == {product_id: 1}


async def test_late_capture_of_a_replaced_payment_is_refunded(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.place(product_id, 1)
    await edit(orders_app, order, {product_id: 2})

    orders_app.fake_payments.reopen(order.payment.payment_id)
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()

    assert (await orders_app.read_order(order)).status is OrderStatus.PENDING
    captured = orders_app.fake_payments.captured_minus_refunded
    assert captured(order.payment.payment_id) == 0


# Paid orders


async def test_paid_order_that_costs_less_is_refunded_in_part(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5, amount=1000)
    order = await orders_app.paid(product_id, 3)

    edited = await edit(orders_app, order, {product_id: 2})
    await orders_app.process_events(times=2)

    edited = await orders_app.read_order(edited)
    assert (edited.status, edited.total.amount) == (OrderStatus.PROCESSING, 2000)
    assert edited.payment_status is OrderPaymentStatus.PARTIALLY_REFUNDED
    captured = orders_app.fake_payments.captured_minus_refunded
    assert captured(order.payment.payment_id) == 2000
    assert orders_app.fake_inventory.available(product_id) == 3

    await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events()
    assert captured(order.payment.payment_id) == 0
    assert orders_app.fake_inventory.available(product_id) == 5


async def test_paid_order_changes_to_a_product_of_the_same_price(orders_app: OrdersApp) -> None:
    small, large = (orders_app.fake_inventory.add_product(5) for _ in range(2))
    order = await orders_app.paid(small, 2)

    edited = await edit(orders_app, order, {small: 1, large: 1})
    await orders_app.process_events(times=2)

    assert edited.payment == order.payment
    available = orders_app.fake_inventory.available
    assert (available(small), available(large)) == (4, 4)
    statuses = {one.status for one in orders_app.fake_inventory.reservations_of(order.order_id)}
    assert statuses == {ReservationStatus.COMMITTED, ReservationStatus.RELEASED}
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    await orders_app.process_events()
    on_hand = orders_app.fake_inventory.on_hand
    assert (on_hand(small), on_hand(large)) == (4, 4)


async def test_authorized_order_that_costs_less_is_captured_less(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5, amount=1000)
    order = await orders_app.place(product_id, 3)
    orders_app.fake_payments.authorize(order.payment.payment_id)
    await orders_app.process_events()

    await edit(orders_app, order, {product_id: 2})
    await orders_app.process_events()
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    await orders_app.process_events()

    captured = orders_app.fake_payments.captured_minus_refunded
    assert captured(order.payment.payment_id) == 2000


async def test_sold_out_units_of_an_edit_cancel_the_order(orders_app: OrdersApp) -> None:
    small, large = (orders_app.fake_inventory.add_product(5) for _ in range(2))
    order = await orders_app.paid(small, 2)
    await edit(orders_app, order, {small: 1, large: 1})
    # the event is handled so late that the new reservation has expired, and its units are sold
    for reservation in orders_app.fake_inventory.reservations_of(order.order_id):
        orders_app.clock.now = max(orders_app.clock.now, reservation.expires_at)
    orders_app.fake_inventory.remove_stock(large, 5)

    await orders_app.process_events()

    order = await orders_app.read_order(order)
    assert order.status is OrderStatus.CANCELLED
    captured = orders_app.fake_payments.captured_minus_refunded
    assert captured(order.payment.payment_id) == 0


# Rejected edits


@pytest.mark.parametrize("command", ["ship", "cancel a unit", "cancel"])
async def test_shipped_or_cancelled_order_is_not_edited(
    orders_app: OrdersApp, command: str
) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.paid(product_id, 2)
    if command == "ship":
        await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    else:
        lines = [{"line_id": order.lines[0].line_id, "quantity": 1}]
        cancel = {"reason": "x"} | ({"lines": lines} if command == "cancel a unit" else {})
        await orders_app.orders.cancel(
            STAFF, order.order_id, CancelOrder.model_validate(cancel), attempt_without_key()
        )

    with pytest.raises(InvalidTransition):
        await edit(orders_app, order, {product_id: 1})


async def test_rejected_edit_changes_nothing(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5)
    dollars = orders_app.fake_inventory.add_product(5, currency="USD")
    order = await orders_app.place(tea, 2)
    before = await orders_app.read_order(order)
    wrong_total = {"expected_total": {"amount": 1, "currency": "EUR"}}
    attempts: list[tuple[dict[UUID, int], dict[str, Any], type[DomainError]]] = [
        ({tea: 6}, {}, OutOfStock),
        ({tea: 0}, {}, ValidationFailed),
        ({new_id(): 1}, {}, ProductNotFound),
        ({dollars: 1}, {}, OrderCurrencyMismatch),
        ({tea: 1}, wrong_total, TotalChanged),
    ]

    for quantities, more, error in attempts:
        with pytest.raises(error):
            await edit(orders_app, order, quantities, **more)

    assert await orders_app.read_order(order) == before
    assert orders_app.fake_inventory.available(tea) == 3
    payment = orders_app.fake_payments.payment(order.payment.payment_id)
    assert payment.status is PaymentStatus.CREATED


async def test_customer_cannot_edit(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.place(product_id, 2)
    command = EditOrder.model_validate({"lines": [{"product_id": product_id, "quantity": 1}]})

    with pytest.raises(Forbidden):
        await orders_app.container.order_edits().edit(
            orders_app.buyer, order.order_id, command, attempt_without_key()
        )


# Retries, crashes and races


async def test_repeated_edit_has_one_effect(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(9)
    order = await orders_app.place(product_id, 2)
    attempt_id = new_id()

    first, second = [
        await edit(orders_app, order, {product_id: 3}, attempt_without_key(attempt_id))
        for _ in range(2)
    ]

    assert first == second
    assert (await orders_app.changes(order)).count("edited") == 1
    assert len(orders_app.fake_payments.payments_of(order.order_id)) == 2


@pytest.mark.parametrize("when", ["before", "after", "killed before", "killed after"])
@pytest.mark.parametrize("number", range(1, 6))
async def test_retry_after_a_failed_call_gives_one_edit(
    orders_app: OrdersApp, number: int, when: str
) -> None:
    """One of these calls of an edit fails: list_offers, reserve, cancel, open, activate."""
    product_id = orders_app.fake_inventory.add_product(9, amount=1000)
    order = await orders_app.place(product_id, 2)
    attempt_id = new_id()
    orders_app.call_failures.fail_call(number, when)

    with pytest.raises((Unavailable, Killed)):
        await edit(orders_app, order, {product_id: 3}, attempt_without_key(attempt_id))
    edited = await edit(orders_app, order, {product_id: 3}, attempt_without_key(attempt_id))
    await orders_app.process_events()

    paid = await pay(orders_app, edited)
    assert (paid.status, paid.total.amount) == (OrderStatus.PROCESSING, 3000)
    assert orders_app.fake_inventory.available(product_id) == 6
    payable = [
        one
        for one in orders_app.fake_payments.payments_of(order.order_id)
        if one.status is not PaymentStatus.CANCELLED
    ]
    assert [one.payment_id for one in payable] == [edited.payment.payment_id]


@pytest.mark.parametrize("number", range(2, 5))
async def test_abandoned_edit_ends_by_itself(orders_app: OrdersApp, number: int) -> None:
    product_id = orders_app.fake_inventory.add_product(9)
    order = await orders_app.place(product_id, 2)
    orders_app.call_failures.fail_call(number, "killed after")
    with pytest.raises(Killed):
        await edit(orders_app, order, {product_id: 3})

    for reservation in orders_app.fake_inventory.reservations_of(order.order_id):
        orders_app.clock.now = max(orders_app.clock.now, reservation.expires_at)
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()

    assert (await orders_app.read_order(order)).status is OrderStatus.EXPIRED
    assert orders_app.fake_inventory.available(product_id) == 9
    payments = orders_app.fake_payments.payments_of(order.order_id)
    assert sum(one.captured.amount for one in payments) == 0


async def test_edit_cancel_and_payment_race_to_one_legal_outcome(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(99, amount=1000)
    orders = [await orders_app.place(product_id, 2) for _ in range(6)]

    async def race(order: OrderView) -> None:
        async def pay_first() -> None:
            payment = orders_app.fake_payments.payment(order.payment.payment_id)
            if payment.status is PaymentStatus.CREATED:
                orders_app.fake_payments.capture(payment.payment_id)

        cancel = orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
        await gather(
            edit(orders_app, order, {product_id: 3}),
            cancel,
            edit(orders_app, order, {product_id: 1}),
            pay_first(),
            return_exceptions=True,
        )

    await gather(*(race(order) for order in orders))
    await orders_app.process_events()

    for order in orders:
        after = await orders_app.read_order(order)
        assert after.status is OrderStatus.CANCELLED
        for payment in orders_app.fake_payments.payments_of(order.order_id):
            assert payment.captured == payment.refunded
            is_payable = payment.status is PaymentStatus.CREATED
            assert not (is_payable and payment.payment_id in orders_app.fake_payments.activated)
    assert orders_app.fake_inventory.available(product_id) == 99
