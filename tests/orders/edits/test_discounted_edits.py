"""Edits keep the promotions of an order, with the terms of the time at which it was placed."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from markethall.orders.contract import (
    CancelOrder,
    OrderPaymentStatus,
    OrderStatus,
    OrderView,
    PlaceOrder,
    VoucherExhausted,
)
from markethall.orders.domain.promotion_integrity import judge_counts, judge_discounts
from markethall.orders.promotions.contract import PromotionChange, PromotionView
from tests.orders.conftest import CANCEL, SHIP, STAFF, START, OrdersApp, attempt_without_key
from tests.orders.promotions.shop import create, promotion, read, voucher
from tests.orders.test_order_edits import edit, pay
from tests.orders.test_totals import configure

DAY = timedelta(days=1)
TOMORROW = (START + DAY).isoformat()


FIVE_HUNDRED_OFF: dict[str, Any] = {
    "kind": "fixed",
    "percent": None,
    "amounts": [{"amount": 500, "currency": "EUR"}],
}


def min_total(amount: int) -> dict[str, Any]:
    return {"conditions": {"min_total": [{"amount": amount, "currency": "EUR"}]}}


async def change(app: OrdersApp, made: PromotionView, **fields: Any) -> None:
    change = PromotionChange.model_validate(fields)
    await app.container.promotions().change(STAFF, made.promotion_id, change, {made.version})


async def delete(app: OrdersApp, made: PromotionView) -> None:
    await app.container.promotions().delete(STAFF, made.promotion_id, {made.version})


async def used(app: OrdersApp, made: PromotionView) -> int | None:
    return (await read(app, made)).used


async def place_paid(app: OrdersApp, product_id: UUID, quantity: int, **more: Any) -> OrderView:
    return await pay(app, await app.place(product_id, quantity, **more))


async def find_offending_rows(app: OrdersApp) -> list[str]:
    """Return what the checks of promotions find."""
    async with app.container.snapshots().snapshot() as reads:
        counts = await reads.list_promotion_counts(None, 100)
        orders = await reads.list_discounted_orders(None, 100)
    return [
        f"{row.row}: {row.problem}"
        for rows in (*map(judge_counts, counts), *map(judge_discounts, orders))
        for row in rows
    ]


def amounts(order: OrderView) -> tuple[int, int]:
    return order.discount.amount, order.total.amount


# The terms of the promotion


@pytest.mark.parametrize(
    "fields",
    [
        {"percent": "50"},
        {"kind": "fixed", "percent": None, "amounts": [{"amount": 1, "currency": "EUR"}]},
        {"is_active": False},
        {"ends_at": TOMORROW},
        min_total(1_000_000),
        {"conditions": {"products": ["0199c0de-0000-7000-8000-000000000009"]}},
        {"usage_limit": 1},
    ],
    ids=str,
)
async def test_change_of_a_promotion_does_not_change_the_terms_of_an_order(
    orders_app: OrdersApp, fields: dict[str, Any]
) -> None:
    product_id, made = orders_app.stock_up(9), await create(orders_app, voucher(usage_limit=9))
    order = await orders_app.place(product_id, 2, voucher_code="SPRING")
    await change(orders_app, made, **fields)
    orders_app.clock.now += timedelta(minutes=1)

    edited = await edit(orders_app, order, {product_id: 3})

    assert amounts(edited) == (300, 2700)
    assert await used(orders_app, made) == 1
    assert await find_offending_rows(orders_app) == []


async def test_order_keeps_the_discount_of_a_deleted_promotion(orders_app: OrdersApp) -> None:
    product_id, made = orders_app.stock_up(9), await create(orders_app, voucher())
    order = await orders_app.place(product_id, 2, voucher_code="SPRING")
    await delete(orders_app, made)

    raised = await edit(orders_app, order, {product_id: 3})
    lowered = await edit(orders_app, order, {product_id: 1})

    assert (amounts(raised), amounts(lowered)) == ((300, 2700), (100, 900))
    assert await find_offending_rows(orders_app) == []


async def test_promotion_of_an_order_may_have_ended_and_be_used_up(orders_app: OrdersApp) -> None:
    """The period, the limits and the conditions about the customer are not checked again."""
    product_id = orders_app.stock_up(9)
    conditions = {"first_order": True, "customer_ids": [str(orders_app.buyer.user_id)]}
    fields = voucher(usage_limit=1, per_customer_limit=1, ends_at=TOMORROW, conditions=conditions)
    made = await create(orders_app, fields)
    order = await place_paid(orders_app, product_id, 2, voucher_code="SPRING")
    await orders_app.place(product_id)
    orders_app.clock.now += 2 * DAY

    edited = await edit(orders_app, order, {product_id: 1})

    assert amounts(edited) == (100, 900)
    assert await used(orders_app, made) == 1


@pytest.mark.parametrize("conditions", [{"tags": ["sale"]}, {"categories": ["Drinks"]}], ids=str)
async def test_line_keeps_its_discount_when_its_product_has_changed(
    orders_app: OrdersApp, conditions: dict[str, Any]
) -> None:
    """The dearer line has no discount yet, but it matched when the order was placed."""
    fields: dict[str, Any] = {"tags": ("sale",), "category": "Drinks > Tea"}
    tea, cup = (orders_app.fake_inventory.add_product(9, price, **fields) for price in (500, 700))
    half = {"kind": "buy_x_get_y", "percent": None, "buy_quantity": 1, "get_quantity": 1}
    await create(orders_app, promotion(conditions=conditions, **half))
    lines = [{"product_id": product_id, "quantity": 1} for product_id in (tea, cup)]
    command = PlaceOrder.model_validate({"lines": lines, "shipping_address": "Market 1"})
    order = await orders_app.orders.place(orders_app.buyer, command, attempt_without_key())
    for product_id in (tea, cup):
        orders_app.fake_inventory.change_product(product_id, tags=(), category=None)

    edited = await edit(orders_app, order, {tea: 0, cup: 2})

    assert (amounts(order), amounts(edited)) == ((500, 700), (700, 700))


async def test_edit_finds_no_promotion_that_the_order_does_not_have(
    orders_app: OrdersApp,
) -> None:
    product_id = orders_app.stock_up(9)
    without = await orders_app.place(product_id, 2)
    await create(orders_app, voucher())
    with_voucher = await orders_app.place(product_id, 2, voucher_code="SPRING")
    later = await create(orders_app, promotion(name="Later", percent="50"))
    bulk = await create(orders_app, promotion(name="Bulk", **min_total(3000)))

    edited = [await edit(orders_app, one, {product_id: 3}) for one in (without, with_voucher)]

    assert [amounts(one) for one in edited] == [(0, 3000), (300, 2700)]
    assert [await used(orders_app, one) for one in (later, bulk)] == [None, None]
    assert await find_offending_rows(orders_app) == []


async def test_promotion_that_excludes_others_is_applied_alone(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(9)
    await create(orders_app, voucher(stackable=False, priority=9))
    order = await orders_app.place(product_id, 2, voucher_code="SPRING")
    await create(orders_app, promotion())

    edited = await edit(orders_app, order, {product_id: 3})

    assert amounts(edited) == (300, 2700)
    assert len(edited.discounts) == 1


async def test_all_promotions_of_an_order_are_applied_in_their_sequence(
    orders_app: OrdersApp,
) -> None:
    product_id = orders_app.stock_up(9)
    await configure(orders_app, [], 490)
    amounts_off = {"kind": "fixed", "percent": None, "amounts": [{"amount": 50, "currency": "EUR"}]}
    made = [
        await create(orders_app, fields)
        for fields in (
            promotion(priority=2),
            promotion(priority=1, **amounts_off),
            voucher(kind="free_shipping", percent=None),
        )
    ]
    order = await orders_app.place(product_id, 1, voucher_code="SPRING")

    edited = await edit(orders_app, order, {product_id: 2})

    assert (amounts(order), amounts(edited)) == ((640, 850), (740, 1750))
    assert [one.promotion_id for one in edited.discounts] == [one.promotion_id for one in made]
    assert edited == await orders_app.read_order(order)


# Promotions that are dropped


async def test_unmet_minimum_drops_the_promotion_and_gives_its_use_back_once(
    orders_app: OrdersApp,
) -> None:
    product_id = orders_app.stock_up(9)
    made = await create(orders_app, voucher(usage_limit=1, per_customer_limit=1, **min_total(2000)))
    order = await orders_app.place(product_id, 2, voucher_code="SPRING")

    lowered = await edit(orders_app, order, {product_id: 1})
    assert (amounts(lowered), lowered.discounts) == ((0, 1000), ())
    assert await used(orders_app, made) == 0
    other = await orders_app.place(product_id, 2, voucher_code="SPRING")
    raised = await edit(orders_app, order, {product_id: 3})
    await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events(times=2)

    assert (amounts(raised), raised.discounts) == ((0, 3000), ())
    assert await used(orders_app, made) == 1
    assert await find_offending_rows(orders_app) == []
    assert amounts(await orders_app.read_order(other)) == (200, 1800)


async def test_only_the_promotions_that_fall_away_give_their_uses_back(
    orders_app: OrdersApp,
) -> None:
    product_id = orders_app.stock_up(9)
    stays = await create(orders_app, voucher(usage_limit=9))
    falls_away = await create(orders_app, promotion(usage_limit=9, **min_total(2000)))
    order = await orders_app.place(product_id, 2, voucher_code="SPRING")

    edited = await edit(orders_app, order, {product_id: 1})

    assert [one.promotion_id for one in edited.discounts] == [stays.promotion_id]
    assert [await used(orders_app, one) for one in (stays, falls_away)] == [1, 0]
    await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    assert [await used(orders_app, one) for one in (stays, falls_away)] == [0, 0]
    assert await find_offending_rows(orders_app) == []


async def test_edit_that_waits_for_a_payment_keeps_the_use_until_then(
    orders_app: OrdersApp,
) -> None:
    """500 off two mugs of 1000 each; a lamp of 2000, which has no discount, costs 500 more."""
    mug, lamp = (orders_app.fake_inventory.add_product(9, amount) for amount in (1000, 2000))
    conditions = {"products": [str(mug)]}
    made = await create(
        orders_app, voucher(usage_limit=1, conditions=conditions, **FIVE_HUNDRED_OFF)
    )
    order = await place_paid(orders_app, mug, 2, voucher_code="SPRING")

    edited = await edit(orders_app, order, {mug: 0, lamp: 1})
    assert edited.open_edit
    assert (amounts(edited), edited.open_edit.discount.amount) == ((500, 1500), 0)
    assert edited.open_edit.amount.amount == 500
    assert await used(orders_app, made) == 1
    assert await find_offending_rows(orders_app) == []
    orders_app.fake_payments.capture(edited.open_edit.payment_id)
    await orders_app.process_events(times=2)

    assert amounts(await orders_app.read_order(order)) == (0, 2000)
    assert await used(orders_app, made) == 0
    assert await find_offending_rows(orders_app) == []


async def test_edit_that_is_not_paid_keeps_the_discount(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(9)
    made = await create(orders_app, voucher(usage_limit=1))
    order = await place_paid(orders_app, product_id, 2, voucher_code="SPRING")
    edited = await edit(orders_app, order, {product_id: 3})
    assert edited.open_edit
    assert edited.open_edit.amount.amount == 900

    orders_app.clock.now += DAY
    await orders_app.run_periodic_jobs()
    await orders_app.process_events(times=2)

    assert amounts(await orders_app.read_order(order)) == (200, 1800)
    assert await used(orders_app, made) == 1
    assert await find_offending_rows(orders_app) == []


async def test_reinstated_order_takes_the_uses_that_it_still_has(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(9)
    stays = await create(orders_app, voucher(usage_limit=1))
    falls_away = await create(orders_app, promotion(usage_limit=1, **min_total(2000)))
    order = await orders_app.place(product_id, 2, voucher_code="SPRING")
    edited = await edit(orders_app, order, {product_id: 1})
    orders_app.clock.now = edited.expires_at
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()
    assert [await used(orders_app, one) for one in (stays, falls_away)] == [0, 0]

    orders_app.fake_payments.reopen(edited.payment.payment_id)
    paid = await pay(orders_app, edited)

    assert (paid.status, amounts(paid)) == (OrderStatus.PROCESSING, (100, 900))
    assert [await used(orders_app, one) for one in (stays, falls_away)] == [1, 0]
    assert await find_offending_rows(orders_app) == []


async def test_use_that_was_given_back_is_free_for_another_order(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(9)
    await create(orders_app, voucher(usage_limit=1, **min_total(2000)))
    order = await orders_app.place(product_id, 2, voucher_code="SPRING")
    with pytest.raises(VoucherExhausted):
        await orders_app.place(product_id, 2, voucher_code="SPRING")

    await edit(orders_app, order, {product_id: 1})

    other = await orders_app.place(product_id, 2, voucher_code="SPRING")
    assert amounts(other) == (200, 1800)


# Paid orders


async def test_edit_without_a_change_costs_the_same(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(9)
    await create(orders_app, voucher(percent="33.3333"))
    order = await place_paid(orders_app, product_id, 3, voucher_code="SPRING")

    edited = await edit(orders_app, order, {product_id: 3})

    assert (edited.total, edited.discounts, edited.lines) == (
        order.total,
        order.discounts,
        order.lines,
    )


@pytest.mark.parametrize("is_authorized", [False, True])
async def test_order_that_costs_nothing_after_an_edit_is_shipped(
    orders_app: OrdersApp, is_authorized: bool
) -> None:
    """A discount is never more than its base: 500 off a cup of 333."""
    mug, cup = (orders_app.fake_inventory.add_product(9, amount) for amount in (1000, 333))
    await create(orders_app, voucher(**FIVE_HUNDRED_OFF))
    order = await orders_app.place(mug, 1, voucher_code="SPRING")
    if is_authorized:
        orders_app.fake_payments.authorize(order.payment.payment_id)
    else:
        orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()

    edited = await edit(orders_app, order, {mug: 0, cup: 1})
    await orders_app.process_events(times=2)
    assert amounts(edited) == (333, 0)
    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    await orders_app.fulfilments.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())
    await orders_app.process_events(times=2)

    found = await orders_app.read_order(order)
    assert found.status is OrderStatus.COMPLETED
    kept = orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id)
    assert kept == 0


@pytest.mark.parametrize("is_refunded_first", [False, True])
async def test_order_that_costs_nothing_is_raised_paid_and_shipped(
    orders_app: OrdersApp, is_refunded_first: bool
) -> None:
    mug, cup = (orders_app.fake_inventory.add_product(9, amount) for amount in (1000, 333))
    await create(orders_app, voucher(**FIVE_HUNDRED_OFF))
    order = await place_paid(orders_app, mug, 1, voucher_code="SPRING")
    await edit(orders_app, order, {mug: 0, cup: 1})
    if is_refunded_first:
        await orders_app.process_events()

    raised = await edit(orders_app, order, {cup: 2})
    await orders_app.process_events(times=2)
    assert raised.open_edit
    assert raised.open_edit.amount.amount == 166
    orders_app.fake_payments.capture(raised.open_edit.payment_id)
    await orders_app.process_events(times=2)
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())

    found = await orders_app.read_order(order)
    assert (amounts(found), found.payment_status) == (
        (500, 166),
        OrderPaymentStatus.PARTIALLY_REFUNDED,
    )
    kept = orders_app.fake_payments.captured_minus_refunded
    assert (kept(order.payment.payment_id), kept(raised.open_edit.payment_id)) == (0, 166)


async def test_units_that_are_cancelled_after_an_edit_return_their_share(
    orders_app: OrdersApp,
) -> None:
    """33.33 % of 2000 are 666.6 -> 667. The first unit has 334 of them, the second one 333."""
    product_id = orders_app.stock_up(9)
    await create(orders_app, voucher(percent="33.33"))
    order = await place_paid(orders_app, product_id, 3, voucher_code="SPRING")
    edited = await edit(orders_app, order, {product_id: 2})
    await orders_app.process_events(times=2)
    assert amounts(edited) == (667, 1333)

    kept = orders_app.fake_payments.captured_minus_refunded
    for left in (667, 0):
        line = {"line_id": edited.lines[0].line_id, "quantity": 1}
        command = CancelOrder.model_validate({"reason": "too many", "lines": [line]})
        await orders_app.orders.cancel(STAFF, order.order_id, command, attempt_without_key())
        await orders_app.process_events(times=2)
        assert kept(order.payment.payment_id) == left
    found = await orders_app.read_order(order)
    assert found.payment_status is OrderPaymentStatus.REFUNDED
