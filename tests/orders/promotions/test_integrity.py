"""The rules between promotions, their uses and orders."""

from dataclasses import replace
from typing import Any

import pytest

from markethall.orders.contract import OrderStatus
from markethall.orders.domain.promotion_integrity import (
    DiscountedOrderFacts,
    PromotionCounts,
    judge_counts,
    judge_discounts,
)
from markethall.shared.kernel.ids import new_id
from tests.orders.conftest import CANCEL, OrdersApp, attempt_without_key
from tests.orders.promotions.shop import create, voucher

SOUND = PromotionCounts(new_id(), 3, 2, 3, 3, 2, 0)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"used": 2}, "used is 2, 3 orders use it"),
        ({"usage_limit": 2}, "3 orders use it, usage_limit is 2"),
        ({"per_customer_limit": 1}, "one customer has 2 uses, per_customer_limit is 1"),
        ({"wrong_customers": 1}, "the counters of 1 customers differ from their uses"),
    ],
)
def test_wrong_count_is_named(wrong: dict[str, Any], problem: str) -> None:
    assert [row.problem for row in judge_counts(replace(SOUND, **wrong))] == [problem]
    assert list(judge_counts(SOUND)) == []


def test_promotion_without_limits_may_have_any_number_of_uses() -> None:
    counts = replace(SOUND, usage_limit=None, per_customer_limit=None, used=0)

    assert list(judge_counts(counts)) == []


def test_order_that_has_ended_has_no_uses() -> None:
    promotions = frozenset({new_id()})
    pending = DiscountedOrderFacts(new_id(), OrderStatus.PENDING, promotions, promotions)
    expired = replace(pending, status=OrderStatus.EXPIRED)

    assert list(judge_discounts(pending)) == []
    assert len(list(judge_discounts(replace(pending, used=frozenset())))) == 1
    assert len(list(judge_discounts(expired))) == 1
    assert list(judge_discounts(replace(expired, used=frozenset()))) == []


async def test_facts_of_sound_orders_are_read(orders_app: OrdersApp) -> None:
    product_id = orders_app.stock_up(9)
    made = await create(orders_app, voucher(usage_limit=3, per_customer_limit=2))
    orders = [await orders_app.place(product_id, voucher_code="SPRING") for _ in range(2)]
    await orders_app.orders.cancel(
        orders_app.buyer, orders[0].order_id, CANCEL, attempt_without_key()
    )
    await orders_app.place(product_id)

    async with orders_app.container.snapshots().snapshot() as reads:
        counts = await reads.list_promotion_counts(None, 10)
        discounted = await reads.list_discounted_orders(None, 10)
        assert await reads.list_promotion_counts(made.promotion_id, 10) == []

    used = frozenset({made.promotion_id})
    assert counts == [PromotionCounts(made.promotion_id, 3, 2, 1, 1, 1, 0)]
    assert discounted == [
        DiscountedOrderFacts(orders[0].order_id, OrderStatus.CANCELLED, used, frozenset()),
        DiscountedOrderFacts(orders[1].order_id, OrderStatus.PENDING, used, used),
    ]
