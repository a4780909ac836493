"""The contract suite of promotions, on each storage."""

from asyncio import gather
from typing import Any

import pytest

from markethall.orders.configuration.contract import TooManyItems
from markethall.orders.promotions.contract import (
    PromotionChange,
    PromotionNotFound,
    PromotionQuery,
    UsageLimitTooLow,
    VoucherCodeTaken,
)
from markethall.orders.promotions.domain import MAX_AUTOMATIC_PROMOTIONS
from markethall.shared.kernel.errors import PreconditionFailed, ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.observability.metrics import STATEMENTS
from tests.orders.conftest import STAFF, OrdersApp, attempt_without_key
from tests.orders.promotions.shop import create, promotion, voucher


async def test_promotion_is_created_changed_and_deleted(orders_app: OrdersApp) -> None:
    promotions, attempt = orders_app.container.promotions(), attempt_without_key()

    created = await promotions.create(STAFF, voucher(usage_limit=5), attempt)
    again = await promotions.create(STAFF, voucher(usage_limit=5), attempt)
    changed = await promotions.change(
        STAFF, attempt.id, PromotionChange(percent="12.5", usage_limit=None), {1}
    )
    read_again = await promotions.get(STAFF, attempt.id)
    await promotions.delete(STAFF, attempt.id, {2})

    assert created == again
    assert (created.promotion_id, created.version, created.used) == (attempt.id, 1, 0)
    assert (changed.percent, changed.usage_limit, changed.used) == ("12.5", None, None)
    assert changed == read_again
    with pytest.raises(PromotionNotFound):
        await promotions.get(STAFF, attempt.id)
    with pytest.raises(PromotionNotFound):
        await promotions.delete(STAFF, attempt.id, {2})


async def test_change_needs_the_version_and_valid_fields(orders_app: OrdersApp) -> None:
    promotions, made = orders_app.container.promotions(), await create(orders_app, voucher())

    with pytest.raises(PreconditionFailed):
        await promotions.change(STAFF, made.promotion_id, PromotionChange(name="Other"), {7})
    with pytest.raises(ValidationFailed):
        await promotions.change(STAFF, made.promotion_id, PromotionChange(percent=None), {1})
    unchanged = await promotions.change(
        STAFF, made.promotion_id, PromotionChange(name="Spring"), {1}
    )

    assert unchanged == made


async def test_active_promotions_have_different_codes(orders_app: OrdersApp) -> None:
    promotions, first = orders_app.container.promotions(), await create(orders_app, voucher())
    inactive = await create(orders_app, voucher(" spring ", is_active=False))

    with pytest.raises(VoucherCodeTaken) as caught:
        await create(orders_app, voucher("sPRING"))
    activate = PromotionChange(is_active=True)
    with pytest.raises(VoucherCodeTaken):
        await promotions.change(STAFF, inactive.promotion_id, activate, {1})
    await promotions.change(STAFF, first.promotion_id, PromotionChange(is_active=False), {1})
    active = await promotions.change(STAFF, inactive.promotion_id, activate, {1})

    assert caught.value.details == {"voucher_code": "sPRING"}
    assert active.is_active


async def test_one_of_two_concurrent_promotions_gets_the_code(orders_app: OrdersApp) -> None:
    answers = await gather(
        *(create(orders_app, voucher()) for _ in range(8)), return_exceptions=True
    )

    assert sum(isinstance(answer, VoucherCodeTaken) for answer in answers) == 7


async def test_page_of_promotions_can_be_filtered(orders_app: OrdersApp) -> None:
    promotions = orders_app.container.promotions()
    made = [
        await create(orders_app, fields)
        for fields in (
            voucher("ONE"),
            promotion(),
            voucher("two", is_active=False),
            voucher("TWO"),
        )
    ]

    first = await promotions.list_page(STAFF, PromotionQuery(limit=3))
    second = await promotions.list_page(STAFF, PromotionQuery(limit=3, cursor=first.next_cursor))
    by_code = await promotions.list_page(STAFF, PromotionQuery(code="Two"))
    active = await promotions.list_page(STAFF, PromotionQuery(code="Two", is_active=True))

    assert [*first.items, *second.items] == made
    assert second.next_cursor is None
    assert list(by_code.items) == made[2:]
    assert list(active.items) == made[3:]


async def test_number_of_active_automatic_promotions_is_limited(orders_app: OrdersApp) -> None:
    promotions = orders_app.container.promotions()
    for _ in range(MAX_AUTOMATIC_PROMOTIONS):
        await create(orders_app, promotion())

    with pytest.raises(TooManyItems):
        await create(orders_app, promotion())
    inactive = await create(orders_app, promotion(is_active=False))
    with pytest.raises(TooManyItems):
        await promotions.change(STAFF, inactive.promotion_id, PromotionChange(is_active=True), {1})
    await create(orders_app, voucher())


async def test_limit_cannot_be_lower_than_the_uses(orders_app: OrdersApp) -> None:
    promotions, product_id = orders_app.container.promotions(), orders_app.stock_up(5)
    made = await create(orders_app, voucher())
    for _ in range(3):
        await orders_app.place(product_id, voucher_code="SPRING")

    for name in ("usage_limit", "per_customer_limit"):
        patch = PromotionChange.model_validate({name: 2})
        with pytest.raises(UsageLimitTooLow) as caught:
            await promotions.change(STAFF, made.promotion_id, patch, {1})
        assert caught.value.details == {"limit": name, "used": 3}
    limited = await promotions.change(STAFF, made.promotion_id, PromotionChange(usage_limit=3), {1})
    renamed = await promotions.change(STAFF, made.promotion_id, PromotionChange(name="Sale"), {2})

    assert (limited.used, limited.usage_limit) == (3, 3)
    assert (renamed.used, renamed.usage_limit) == (3, 3)


async def test_deleted_promotion_stays_on_its_orders(orders_app: OrdersApp) -> None:
    product_id, made = orders_app.stock_up(5), await create(orders_app, voucher(usage_limit=1))
    order = await orders_app.place(product_id, voucher_code="SPRING")

    await orders_app.container.promotions().delete(STAFF, made.promotion_id, {1})

    assert (await orders_app.read_order(order)).discount.amount == 100
    await create(orders_app, voucher())
    assert (await orders_app.place(product_id, voucher_code="SPRING")).discount.amount == 100


@pytest.mark.parametrize("orders_app", ["sql"], indirect=True)
async def test_cached_promotions_cost_an_order_no_statement(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(5)
    await orders_app.place(product_id)
    before = STATEMENTS._value.get()
    await orders_app.place(product_id)
    without = STATEMENTS._value.get() - before
    await create(orders_app, promotion(conditions={"products": [new_id()]}))
    await orders_app.place(product_id)

    before = STATEMENTS._value.get()
    await orders_app.place(product_id)

    assert STATEMENTS._value.get() - before == without


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"percent": "0"}, "percent"),
    ({"percent": "0.0000"}, "percent"),
    ({"percent": "100.5"}, "percent"),
    ({"percent": "1e1"}, "percent"),
    ({"percent": None}, "promotion_kind"),
    ({"amounts": [{"amount": 1, "currency": "EUR"}]}, "promotion_kind"),
    ({"kind": "fixed", "percent": None}, "promotion_kind"),
    ({"kind": "free_shipping"}, "promotion_kind"),
    ({"kind": "buy_x_get_y", "percent": None, "buy_quantity": 1}, "promotion_kind"),
    ({"starts_at": "2026-12-01T00:00:00Z", "ends_at": "2026-12-01T00:00:00Z"}, "window"),
    (
        {"kind": "fixed", "percent": None, "amounts": [{"amount": 1, "currency": "EUR"}] * 2},
        "currency_named_twice",
    ),
    ({"usage_limit": 0}, "usage_limit"),
    ({"code": " "}, "code"),
]


@pytest.mark.parametrize(("fields", "problem"), INVALID, ids=str)
def test_promotion_with_contradictory_fields_is_invalid(
    fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        promotion(**fields)


@pytest.mark.parametrize("percent", ["0.0001", "0.5", "9", "99.9999", "100", "100.0"])
def test_percentage_is_above_zero_and_at_most_one_hundred(percent: str) -> None:
    assert promotion(percent=percent).percent == percent
