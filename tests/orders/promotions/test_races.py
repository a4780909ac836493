"""Races for the uses of promotions, in the real contexts.

After each race, the counted uses equal the live orders with the promotion, and stay within the
limits.
"""

from asyncio import gather
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, Final

import pytest

from markethall.orders.contract import (
    OrderStatus,
    OrderView,
    TotalChanged,
    VoucherExhausted,
    VoucherInvalid,
)
from markethall.orders.promotions.contract import PromotionView
from markethall.shared.kernel.call_context import CallContext
from tests.containers import orders_of
from tests.orders.conftest import STAFF, attempt_without_key
from tests.orders.promotions.shop import promotion, voucher
from tests.race_rounds import FULL, Place, place, race_database, race_rounds
from tests.real_shop import LARGE_STOCK, Shop, open_real_shop

__all__ = ["place", "race_database"]  # fixtures

RACERS: Final = 50
ROUNDS: Final = race_rounds(20, memory=2, near=1, far=1)
# the number of guests who are claimed at the same time
BATCH: Final = 8
SECOND: Final = timedelta(seconds=1)
ENDED: Final = {OrderStatus.CANCELLED, OrderStatus.EXPIRED}
# limits that are lower than, equal to and higher than the number of racing requests
LIMITS: Final = (1, 7, RACERS, RACERS + 10) if FULL else (7, RACERS + 10)


@pytest.fixture
async def shop(place: Place, race_database: str) -> AsyncIterator[Shop]:
    async with open_real_shop(*place, race_database) as shop:
        yield shop


async def create(shop: Shop, fields: Any) -> PromotionView:
    promotions = orders_of(shop.container).promotions()
    return await promotions.create(STAFF, fields, attempt_without_key())


async def used(shop: Shop, made: PromotionView) -> int | None:
    return (await orders_of(shop.container).promotions().get(STAFF, made.promotion_id)).used


async def delete(shop: Shop, made: PromotionView) -> None:
    await orders_of(shop.container).promotions().delete(STAFF, made.promotion_id, None)


async def create_guests(shop: Shop, number: int = RACERS) -> list[CallContext]:
    return [ctx for _, ctx in await gather(*(shop.create_guest() for _ in range(number)))]


async def race_for_orders(
    shop: Shop, buyers: Sequence[CallContext], **fields: Any
) -> tuple[list[OrderView], list[BaseException]]:
    """Let all buyers place an order at the same time. Return the orders and the errors."""
    results = await gather(*(shop.place(ctx, **fields) for ctx in buyers), return_exceptions=True)
    return (
        [result for result in results if isinstance(result, OrderView)],
        [result for result in results if isinstance(result, BaseException)],
    )


@pytest.mark.parametrize("limit", LIMITS)
async def test_voucher_is_used_as_often_as_its_limit_allows(
    shop: Shop, place: Place, limit: int
) -> None:
    buyers, expected = await create_guests(shop), min(limit, RACERS)
    for number in range(ROUNDS[place]):
        product_id = await shop.add_product()
        made = await create(shop, voucher(f"CODE{number}", usage_limit=limit))

        orders, errors = await race_for_orders(
            shop, buyers, product_id=product_id, voucher_code=made.code
        )

        assert len(orders) == expected
        assert {order.discount.amount for order in orders} == {100}
        assert {type(error) for error in errors} <= {VoucherExhausted}, errors
        assert await used(shop, made) == expected
        assert await shop.stock(product_id) == (LARGE_STOCK, expected)


@pytest.mark.parametrize("limit", LIMITS)
async def test_automatic_promotion_is_used_as_often_as_its_limit_allows(
    shop: Shop, place: Place, limit: int
) -> None:
    """A buyer who gets no use either gets an error with the new total, or pays the full price."""
    buyers, expected = await create_guests(shop), min(limit, RACERS)
    for _ in range(ROUNDS[place]):
        product_id = await shop.add_product()
        made = await create(shop, promotion(usage_limit=limit))

        orders, errors = await race_for_orders(shop, buyers, product_id=product_id)

        totals = Counter((order.total.amount, len(order.discounts)) for order in orders)
        assert totals[900, 1] == expected
        assert set(totals) <= {(900, 1), (1000, 0)}
        assert {type(error) for error in errors} <= {TotalChanged}, errors
        assert await used(shop, made) == expected
        assert await shop.stock(product_id) == (LARGE_STOCK, len(orders))
        await delete(shop, made)


async def test_customer_uses_a_voucher_as_often_as_the_limit_per_customer_allows(
    shop: Shop, place: Place
) -> None:
    for number in range(ROUNDS[place]):
        (ctx, other) = await create_guests(shop, 2)
        made = await create(shop, voucher(f"CODE{number}", usage_limit=40, per_customer_limit=3))

        orders, errors = await race_for_orders(
            shop, [ctx, other] * (RACERS // 2), voucher_code=made.code
        )

        assert Counter(order.user_id for order in orders) == {ctx.user_id: 3, other.user_id: 3}
        assert {type(error) for error in errors} == {VoucherExhausted}, errors
        assert await used(shop, made) == 6


async def test_customer_has_one_first_order_of_several_promotions(shop: Shop, place: Place) -> None:
    for number in range(ROUNDS[place]):
        (ctx,) = await create_guests(shop, 1)
        made = [
            await create(shop, voucher(f"FIRST{number}-{index}", conditions={"first_order": True}))
            for index in range(2)
        ]

        results = await gather(
            *(shop.place(ctx, voucher_code=made[racer % 2].code) for racer in range(RACERS)),
            return_exceptions=True,
        )

        orders = [result for result in results if isinstance(result, OrderView)]
        errors = [result for result in results if isinstance(result, BaseException)]
        assert len(orders) == 1
        for error in errors:
            assert isinstance(error, VoucherInvalid), repr(error)
            assert error.details["condition"] == "first_order"
        assert [order.order_id for order in await shop.orders_of(ctx.user_id)] == [
            orders[0].order_id
        ]


async def test_use_is_given_back_once_by_cancel_or_expiry_and_taken_again_by_late_payment(
    shop: Shop, place: Place
) -> None:
    """All orders are overdue. Their late payments and new orders race for the same uses."""
    for number in range(ROUNDS[place]):
        limit = 10
        guests = await create_guests(shop, 2 * limit)
        made = await create(shop, voucher(f"CODE{number}", usage_limit=limit))
        old, _ = await race_for_orders(shop, guests[:limit], voucher_code=made.code)
        for order in old:
            await shop.confirm(user_of(order, guests), order, "sandbox_action_required")
        await shop.events.drain()
        shop.clock.now = max(order.expires_at for order in old) + SECOND

        *_, new = await shop.events.race(
            *(shop.cancel(user_of(order, guests), order) for order in old[: limit // 2]),
            *(shop.pay_at_the_provider(order) for order in old),
            shop.run_periodic_jobs(),
            race_for_orders(shop, guests[limit:], voucher_code=made.code),
        )

        placed, errors = new
        assert {type(error) for error in errors} <= {VoucherExhausted}, errors
        await assert_uses_are_live_orders(shop, made, [*old, *placed], limit)
    # end the open payments: of buyers who got no use, and of orders of earlier rounds
    await shop.run_periodic_jobs()
    await shop.end_overdue_payments()
    await shop.events.drain()
    assert await shop.find_offending_rows() == []


async def test_claim_and_cancel_of_an_order_give_its_use_back_once(
    shop: Shop, place: Place
) -> None:
    """A user claims the guests and so has their uses. Cancelled orders give their uses back."""
    for number in range(ROUNDS[place]):
        guests = await gather(*(shop.create_guest() for _ in range(BATCH)))
        made = await create(shop, voucher(f"CODE{number}", usage_limit=2 * BATCH))
        orders, _ = await race_for_orders(shop, [ctx for _, ctx in guests], voucher_code=made.code)
        contexts = [ctx for _, ctx in guests]

        await shop.events.race(
            *(shop.claim(tokens) for tokens, _ in guests),
            *(shop.cancel(STAFF, order) for order in orders[: BATCH // 2]),
            *(shop.confirm(user_of(order, contexts), order) for order in orders[BATCH // 4 :]),
        )

        assert len(orders) == BATCH
        await assert_uses_are_live_orders(shop, made, orders, 2 * BATCH)
    assert await shop.find_offending_rows() == []


def user_of(order: OrderView, guests: Sequence[CallContext]) -> CallContext:
    return next(ctx for ctx in guests if ctx.user_id == order.user_id)


async def assert_uses_are_live_orders(
    shop: Shop, made: PromotionView, orders: Sequence[OrderView], limit: int
) -> None:
    """Check that each live order counts one use, and that only paid orders keep money."""
    after = [await shop.read_order(order) for order in orders]
    live = [order for order in after if order.status not in ENDED]
    assert await used(shop, made) == len(live) <= limit
    for order in after:
        is_paid = order.status is OrderStatus.PROCESSING
        assert await shop.kept_money(order) == (order.total.amount if is_paid else 0), order
