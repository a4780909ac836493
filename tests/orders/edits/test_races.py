"""Races of edits of discounted orders in the real contexts: each order ends in one legal state."""

from asyncio import gather
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from markethall.orders.contract import EditOrder, OrderStatus, OrderView
from markethall.orders.promotions.contract import PromotionChange, PromotionView
from markethall.shared.kernel.errors import DomainError
from tests.containers import orders_of
from tests.orders.conftest import STAFF, attempt_without_key
from tests.orders.promotions.shop import voucher
from tests.race_rounds import Place, place, race_database, race_rounds
from tests.real_shop import Shop, open_real_shop

__all__ = ["place", "race_database"]  # fixtures

ROUNDS: Final = race_rounds(40, memory=3, near=3, far=1)
# the number of orders that are raced for at the same time
BATCH: Final = 5
PRICE, QUANTITY, PERCENT = 1000, 2, 10
MIN_TOTAL: Final = PRICE * QUANTITY
SECOND: Final = timedelta(seconds=1)
ENDED: Final = {OrderStatus.CANCELLED, OrderStatus.EXPIRED}
CHANGES: Final = ({"percent": "50"}, {"is_active": False}, None)


@pytest.fixture
async def shop(place: Place, race_database: str) -> AsyncIterator[Shop]:
    async with open_real_shop(*place, race_database) as shop:
        yield shop


async def create_voucher(shop: Shop, code: str) -> PromotionView:
    """Create a voucher of 10 % for orders of at least two units, with a use for each order."""
    fields = voucher(
        code,
        usage_limit=BATCH,
        conditions={"min_total": [{"amount": MIN_TOTAL, "currency": "EUR"}]},
    )
    return await orders_of(shop.container).promotions().create(STAFF, fields, attempt_without_key())


async def change_promotion(shop: Shop, made: PromotionView, fields: dict[str, Any] | None) -> None:
    """Change the promotion, or delete it."""
    promotions = orders_of(shop.container).promotions()
    if fields is None:
        await promotions.delete(STAFF, made.promotion_id, None)
    else:
        change = PromotionChange.model_validate(fields)
        await promotions.change(STAFF, made.promotion_id, change, None)


async def edit(shop: Shop, order: OrderView, product_id: UUID, quantity: int) -> OrderView:
    line = {"product_id": product_id, "quantity": quantity}
    command = EditOrder.model_validate({"lines": [line]})
    edits = orders_of(shop.container).order_edits()
    return await edits.edit(STAFF, order.order_id, command, attempt_without_key())


async def place_orders(shop: Shop, made: PromotionView, product_id: UUID) -> list[OrderView]:
    return await gather(
        *(shop.place(shop.user, product_id, QUANTITY, voucher_code=made.code) for _ in range(BATCH))
    )


async def pay_open_edits(shop: Shop, orders: Sequence[OrderView]) -> None:
    """Pay the additional payments of half of the orders."""
    edits = orders_of(shop.container).order_edits()
    for number, order in enumerate(orders):
        found = await shop.read_order(order)
        if found.open_edit is None:
            continue
        if number % 2:
            await edits.cancel_edit(
                STAFF, order.order_id, found.open_edit.edit_id, attempt_without_key()
            )
        else:
            await shop.confirm_payment(shop.user, found.open_edit.payment_id)
    await shop.events.drain()


async def race(shop: Shop, *commands: Coroutine[Any, Any, Any]) -> None:
    """Run the commands while events are handled. Each may be rejected."""
    for result in await shop.events.race(*commands):
        assert result is None or isinstance(result, OrderView | DomainError), repr(result)


async def assert_legal(shop: Shop, orders: Sequence[OrderView], made: PromotionView) -> None:
    """Check the amounts, the uses and the money of the orders."""
    after = [await shop.read_order(order) for order in orders]
    for order in after:
        off = order.subtotal.amount * PERCENT // 100
        assert order.discount.amount in {0, off}, order
        assert order.subtotal.amount >= MIN_TOTAL or not order.discounts, order
        is_paid = order.status is OrderStatus.PROCESSING
        assert await shop.kept_money(order) == (order.total.amount if is_paid else 0), order
    live = [order for order in after if order.discounts and order.status not in ENDED]
    found = await orders_of(shop.container).promotions().get(STAFF, made.promotion_id)
    assert found.used == len(live)


@pytest.mark.parametrize("is_paid", [False, True])
async def test_edits_and_cancellations_give_each_use_back_once(
    shop: Shop, place: Place, is_paid: bool
) -> None:
    for number in range(ROUNDS[place]):
        product_id = await shop.add_product(PRICE)
        made = await create_voucher(shop, f"CODE{number}")
        orders = await place_orders(shop, made, product_id)
        if is_paid:
            await gather(*(shop.confirm(shop.user, order) for order in orders))
            await shop.events.drain()

        await race(
            shop,
            *(edit(shop, order, product_id, 1) for order in orders),
            *(edit(shop, order, product_id, 3) for order in orders),
            *(shop.cancel(STAFF, order) for order in orders[: BATCH // 2]),
            change_promotion(shop, made, {"percent": "50"}),
        )
        await pay_open_edits(shop, orders)

        await assert_legal(shop, orders, made)
    await end_all(shop)
    assert await shop.find_offending_rows() == []


@pytest.mark.parametrize("change", CHANGES, ids=str)
async def test_edits_keep_the_terms_of_a_promotion_that_changes_meanwhile(
    shop: Shop, place: Place, change: dict[str, Any] | None
) -> None:
    for number in range(ROUNDS[place]):
        product_id = await shop.add_product(PRICE)
        made = await create_voucher(shop, f"CODE{number}")
        orders = await place_orders(shop, made, product_id)

        await race(
            shop,
            *(edit(shop, order, product_id, 3) for order in orders),
            change_promotion(shop, made, change),
        )

        for order in orders:
            found = await shop.read_order(order)
            assert (found.discount.amount, found.total.amount) == (300, 2700)
    await end_all(shop)
    assert await shop.find_offending_rows() == []


async def test_edits_and_expiry_give_each_use_back_once(shop: Shop, place: Place) -> None:
    for number in range(ROUNDS[place]):
        product_id = await shop.add_product(PRICE)
        made = await create_voucher(shop, f"CODE{number}")
        orders = await place_orders(shop, made, product_id)
        shop.clock.now = max(order.expires_at for order in orders) - SECOND

        async def expire() -> None:
            shop.clock.now += 2 * SECOND
            await shop.run_periodic_jobs()

        await race(
            shop,
            *(edit(shop, order, product_id, 1) for order in orders),
            *(edit(shop, order, product_id, 3) for order in orders),
            expire(),
        )

        await assert_legal(shop, orders, made)
    await end_all(shop)
    assert await shop.find_offending_rows() == []


async def end_all(shop: Shop) -> None:
    """Let the unpaid orders and edits expire."""
    shop.clock.now += timedelta(days=2)
    await shop.run_periodic_jobs()
    await shop.end_overdue_payments()
    await shop.events.drain()
