"""Promotions in the checkout, on each storage."""

from datetime import timedelta
from typing import Any

import pytest

from markethall.orders.contract import (
    CancelOrder,
    OrderStatus,
    TotalChanged,
    VoucherExhausted,
    VoucherInvalid,
)
from markethall.orders.promotions.contract import PromotionChange
from markethall.shared.kernel.ids import new_id
from markethall.users.contract import GuestClaimed
from tests.orders.conftest import (
    CANCEL,
    RESERVATION_TTL,
    STAFF,
    START,
    OrdersApp,
    attempt_without_key,
    order_command,
    user_context,
)
from tests.orders.promotions.shop import create, place_by, promotion, read, voucher

ANOTHER_ID = "0199c0de-0000-7000-8000-000000000009"


def in_hours(hours: int) -> str:
    return (START + timedelta(hours=hours)).isoformat()


async def test_voucher_takes_its_discount_off(orders_app: OrdersApp) -> None:
    product_id, made = orders_app.stock_up(5), await create(orders_app, voucher(usage_limit=3))

    order = await orders_app.place(product_id, 2, voucher_code=" sPRING ")
    without = await orders_app.place(product_id)

    assert (order.discount.amount, order.total.amount) == (200, 1800)
    assert [(one.promotion_id, one.code) for one in order.discounts] == [
        (made.promotion_id, "SPRING")
    ]
    assert orders_app.fake_payments.payment(order.payment.payment_id).amount == order.total
    assert without.discount.amount == 0
    assert (await read(orders_app, made)).used == 1


async def test_unknown_voucher_is_refused_and_its_stock_released(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(5)

    with pytest.raises(VoucherInvalid) as caught:
        await orders_app.place(product_id, voucher_code="SPRING10")

    assert caught.value.details == {
        "voucher_code": "SPRING10",
        "reason": "unknown",
        "condition": None,
    }
    assert orders_app.fake_inventory.available(product_id) == 5


REASONS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"is_active": False}, "inactive", None),
    ({"starts_at": in_hours(1)}, "not_started", None),
    ({"ends_at": in_hours(0)}, "ended", None),
    (
        {"conditions": {"min_total": [{"amount": 1001, "currency": "EUR"}]}},
        "conditions_not_met",
        "min_total",
    ),
    (
        {"conditions": {"min_total": [{"amount": 1, "currency": "USD"}]}},
        "conditions_not_met",
        "min_total",
    ),
    ({"conditions": {"customer_ids": [ANOTHER_ID]}}, "conditions_not_met", "customer_ids"),
    ({"conditions": {"products": [ANOTHER_ID]}}, "conditions_not_met", "lines"),
    ({"conditions": {"tags": ["sale"]}}, "conditions_not_met", "lines"),
    ({"kind": "free_shipping", "percent": None}, "conditions_not_met", "discount"),
]


@pytest.mark.parametrize(("fields", "reason", "condition"), REASONS, ids=str)
async def test_voucher_that_does_not_apply_is_refused_with_the_reason(
    orders_app: OrdersApp, fields: dict[str, Any], reason: str, condition: str | None
) -> None:
    product_id, _ = orders_app.stock_up(5), await create(orders_app, voucher(**fields))

    with pytest.raises(VoucherInvalid) as caught:
        await orders_app.place(product_id, voucher_code="SPRING")

    assert caught.value.details["reason"] == reason
    assert caught.value.details["condition"] == condition
    assert orders_app.fake_inventory.available(product_id) == 5


async def test_voucher_is_not_combined_with_a_promotion_that_excludes_it(
    orders_app: OrdersApp,
) -> None:
    product_id, made = orders_app.stock_up(5), await create(orders_app, voucher())
    await create(orders_app, promotion(priority=1, stackable=False))

    with pytest.raises(VoucherInvalid) as caught:
        await orders_app.place(product_id, voucher_code="SPRING")

    assert caught.value.details["condition"] == "discount"
    assert (await read(orders_app, made)).used is None


async def test_automatic_promotion_applies_from_its_creation_to_its_end(
    orders_app: OrdersApp,
) -> None:
    product_id = orders_app.stock_up(9)
    before = await orders_app.place(product_id)
    made = await create(orders_app, promotion(ends_at=in_hours(1)))
    during = await orders_app.place(product_id)
    orders_app.advance_clock(timedelta(hours=1))
    after = await orders_app.place(product_id)

    assert [one.discount.amount for one in (before, during, after)] == [0, 100, 0]
    promotions = orders_app.container.promotions()
    await promotions.change(STAFF, made.promotion_id, PromotionChange(ends_at=None), {1})
    assert (await orders_app.place(product_id)).discount.amount == 100


async def test_promotion_of_a_category_includes_the_categories_on_the_path_below(
    orders_app: OrdersApp,
) -> None:
    fake = orders_app.fake_inventory
    await create(orders_app, promotion(conditions={"categories": ["drinks  > TEA"]}))
    categories = ("Drinks > Tea > Green", "Drinks > Tea", "Drinks", "Tea", None)
    products = [fake.add_product(5, category=category) for category in categories]

    orders = [await orders_app.place(product_id) for product_id in products]

    assert [order.discount.amount for order in orders] == [100, 100, 0, 0, 0]


async def test_fixed_amount_is_that_of_the_currency(orders_app: OrdersApp) -> None:
    amounts = [{"amount": 300, "currency": "EUR"}, {"amount": 20, "currency": "JPY"}]
    await create(orders_app, promotion(kind="fixed", percent=None, amounts=amounts))
    fake = orders_app.fake_inventory
    products = [fake.add_product(5, currency=currency) for currency in ("EUR", "JPY", "USD")]

    orders = [await orders_app.place(product_id) for product_id in products]

    assert [order.discount.amount for order in orders] == [300, 20, 0]


async def test_used_up_voucher_is_refused_and_nothing_is_left(orders_app: OrdersApp) -> None:
    product_id, made = orders_app.stock_up(5), await create(orders_app, voucher(usage_limit=1))
    await orders_app.place(product_id, voucher_code="SPRING")

    with pytest.raises(VoucherExhausted) as caught:
        await orders_app.place(product_id, voucher_code="SPRING")

    assert caught.value.details == {"voucher_code": "SPRING", "limit": "usage_limit"}
    assert orders_app.fake_inventory.available(product_id) == 4
    assert (await read(orders_app, made)).used == 1


async def test_limit_per_customer_counts_each_customer(orders_app: OrdersApp) -> None:
    product_id, _ = orders_app.stock_up(5), await create(orders_app, voucher(per_customer_limit=1))
    other = user_context(new_id(), "customer")

    await orders_app.place(product_id, voucher_code="SPRING")
    with pytest.raises(VoucherExhausted) as caught:
        await orders_app.place(product_id, voucher_code="SPRING")
    await place_by(orders_app, other, product_id, voucher_code="SPRING")

    assert caught.value.details["limit"] == "per_customer_limit"


async def test_first_order_is_one_that_has_no_live_order_before(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(9)
    await create(orders_app, voucher(conditions={"first_order": True}))
    await create(orders_app, promotion(conditions={"first_order": True}))

    first = await orders_app.place(product_id)
    with pytest.raises(VoucherInvalid) as caught:
        await orders_app.place(product_id, voucher_code="SPRING")
    second = await orders_app.place(product_id)
    for order in (first, second):
        await orders_app.orders.cancel(
            orders_app.buyer, order.order_id, CANCEL, attempt_without_key()
        )
    again = await orders_app.place(product_id)

    assert caught.value.details["condition"] == "first_order"
    assert [one.discount.amount for one in (first, second, again)] == [100, 0, 100]


async def test_first_order_has_the_discounts_of_all_promotions_for_first_orders(
    orders_app: OrdersApp,
) -> None:
    product_id, first_order = orders_app.stock_up(9), {"first_order": True}
    made = [
        await create(orders_app, fields(conditions=first_order, usage_limit=9))
        for fields in (voucher, promotion)
    ]

    order = await orders_app.place(product_id, voucher_code="SPRING")
    second = await orders_app.place(product_id)

    assert {one.promotion_id for one in order.discounts} == {one.promotion_id for one in made}
    assert [(await read(orders_app, one)).used for one in made] == [1, 1]
    assert second.discounts == ()
    await orders_app.orders.cancel(orders_app.buyer, order.order_id, CANCEL, attempt_without_key())
    assert [(await read(orders_app, one)).used for one in made] == [0, 0]


async def test_exhausted_automatic_promotion_changes_the_total(orders_app: OrdersApp) -> None:
    """The other order takes the last use after this process has read the promotion."""
    product_id, made = orders_app.stock_up(5), await create(orders_app, promotion(usage_limit=1))
    await orders_app.place(product_id)

    with pytest.raises(TotalChanged) as caught:
        await orders_app.place(product_id)
    order = await orders_app.place(product_id)

    assert caught.value.details == {"total": {"amount": 1000, "currency": "EUR"}}
    assert (order.total.amount, order.discounts) == (1000, ())
    assert orders_app.fake_inventory.available(product_id) == 3
    assert (await read(orders_app, made)).used == 1


async def test_promotion_that_is_deactivated_meanwhile_is_not_redeemed(
    orders_app: OrdersApp,
) -> None:
    """The cache of this process has missed the invalidation."""
    product_id, made = orders_app.stock_up(5), await create(orders_app, promotion())
    await orders_app.place(product_id)
    async with orders_app.container.stored_database().transaction() as store:
        stored = await store.get_promotion_for_update(made.promotion_id)
        assert stored
        fields = stored.fields.model_copy(update={"is_active": False})
        await store.save_promotion(stored.change(fields, 0))

    with pytest.raises(TotalChanged):
        await orders_app.place(product_id)

    assert (await orders_app.place(product_id)).discount.amount == 0


async def test_payment_of_an_order_that_lost_its_voucher_cannot_be_confirmed(
    orders_app: OrdersApp,
) -> None:
    product_id, _ = orders_app.stock_up(5), await create(orders_app, promotion(usage_limit=1))
    order = await orders_app.place(product_id)
    with pytest.raises(TotalChanged):
        await orders_app.place(product_id)

    assert len(orders_app.fake_payments.all_payments()) == 2
    assert orders_app.fake_payments.activated == {order.payment.payment_id}


async def test_cancel_gives_the_use_back_once(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(5)
    made = await create(orders_app, voucher(usage_limit=2, per_customer_limit=2))
    first = await orders_app.place(product_id, voucher_code="SPRING")
    await orders_app.place(product_id, voucher_code="SPRING")

    await orders_app.orders.cancel(orders_app.buyer, first.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events(times=2)

    assert (await read(orders_app, made)).used == 1
    await orders_app.place(product_id, voucher_code="SPRING")
    with pytest.raises(VoucherExhausted):
        await orders_app.place(product_id, voucher_code="SPRING")


async def test_cancelled_lines_keep_the_use(orders_app: OrdersApp) -> None:
    product_id, made = orders_app.stock_up(5), await create(orders_app, voucher(usage_limit=1))
    order = await orders_app.place(product_id, 2, voucher_code="SPRING")
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()
    line = {"line_id": order.lines[0].line_id, "quantity": 1}
    command = CancelOrder.model_validate({"reason": "too many", "lines": [line]})

    await orders_app.orders.cancel(orders_app.buyer, order.order_id, command, attempt_without_key())

    assert (await read(orders_app, made)).used == 1


async def expire(orders_app: OrdersApp) -> None:
    orders_app.advance_clock(RESERVATION_TTL + timedelta(seconds=1))
    await orders_app.run_periodic_jobs()
    await orders_app.process_events()


async def test_expiry_gives_the_use_back_and_late_payment_takes_it_again(
    orders_app: OrdersApp,
) -> None:
    product_id, made = orders_app.stock_up(5), await create(orders_app, voucher(usage_limit=1))
    order = await orders_app.place(product_id, voucher_code="SPRING")
    await expire(orders_app)
    used_after_expiry = (await read(orders_app, made)).used

    orders_app.fake_payments.reopen(order.payment.payment_id)
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events(times=2)

    assert used_after_expiry == 0
    assert (await orders_app.read_order(order)).status is OrderStatus.PROCESSING
    assert (await read(orders_app, made)).used == 1


async def test_late_payment_is_refunded_if_the_promotion_is_used_up_meanwhile(
    orders_app: OrdersApp,
) -> None:
    product_id, made = orders_app.stock_up(5), await create(orders_app, voucher(usage_limit=1))
    order = await orders_app.place(product_id, voucher_code="SPRING")
    await expire(orders_app)
    other = await orders_app.place(product_id, voucher_code="SPRING")

    orders_app.fake_payments.reopen(order.payment.payment_id)
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events(times=2)

    assert (await orders_app.read_order(order)).status is OrderStatus.EXPIRED
    assert orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id) == 0
    assert (await read(orders_app, made)).used == 1
    assert orders_app.fake_inventory.available(product_id) == 4
    reasons = [entry.reason for entry in (await orders_app.read_timeline(order)).items]
    assert "the promotion is used up by now: refunded" in reasons
    assert (await orders_app.read_order(other)).status is OrderStatus.PENDING


async def test_late_payment_needs_no_use_of_a_deleted_promotion(orders_app: OrdersApp) -> None:
    product_id, made = orders_app.stock_up(5), await create(orders_app, voucher(usage_limit=1))
    order = await orders_app.place(product_id, voucher_code="SPRING")
    await expire(orders_app)
    await orders_app.container.promotions().delete(STAFF, made.promotion_id, {1})

    orders_app.fake_payments.reopen(order.payment.payment_id)
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()

    assert (await orders_app.read_order(order)).status is OrderStatus.PROCESSING


async def test_uses_of_a_guest_count_for_the_user_who_claims_the_guest(
    orders_app: OrdersApp,
) -> None:
    product_id, user_id = orders_app.stock_up(9), new_id()
    made = await create(orders_app, voucher(usage_limit=5, per_customer_limit=2))
    user = user_context(user_id, "customer")
    order = await orders_app.place(product_id, voucher_code="SPRING")
    await place_by(orders_app, user, product_id, voucher_code="SPRING")

    claimed = GuestClaimed(guest_id=orders_app.buyer.user_id, user_id=user_id)
    await orders_app.receive_event(claimed)
    await orders_app.process_events(times=2)
    with pytest.raises(VoucherExhausted):
        await place_by(orders_app, user, product_id, voucher_code="SPRING")
    await orders_app.orders.cancel(user, order.order_id, CANCEL, attempt_without_key())

    await place_by(orders_app, user, product_id, voucher_code="SPRING")
    assert (await read(orders_app, made)).used == 2


async def test_retry_of_an_order_uses_its_voucher_once(orders_app: OrdersApp) -> None:
    product_id, made = orders_app.stock_up(5), await create(orders_app, voucher(usage_limit=1))
    command = order_command(product_id, voucher_code="SPRING")
    attempt = attempt_without_key()

    first = await orders_app.orders.place(orders_app.buyer, command, attempt)
    again = await orders_app.orders.place(orders_app.buyer, command, attempt)

    assert first == again
    assert (await read(orders_app, made)).used == 1
