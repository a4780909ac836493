"""Races for carts in the real contexts: one order per cart, of the lines that were priced."""

from asyncio import gather, sleep
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from uuid import UUID

import pytest

from markethall.inventory.catalogue.contract.products import ProductChange
from markethall.orders.carts.contract import (
    CartChanged,
    CartClosed,
    CartLineChange,
    CartPrecondition,
    CartStatus,
    CartView,
    MergeCart,
)
from markethall.orders.contract import OrderView, TotalChanged
from markethall.shared.http.idempotent_routes import (
    IDEMPOTENCY_RETENTION_EXTENDED,
    created_response,
)
from markethall.shared.idempotency.records import (
    IdempotentRequest,
    InFlight,
    LeaseLost,
    StoredResponse,
)
from markethall.shared.kernel.call_context import CallContext
from tests.containers import inventory_of, orders_of, payments_of
from tests.orders.conftest import STAFF, attempt_without_key
from tests.race_rounds import Place, place, race_database, race_rounds
from tests.real_shop import Shop, open_real_shop

__all__ = ["place", "race_database"]  # fixtures

ROUNDS: Final = race_rounds(200, memory=40, near=20, far=5)
# rounds in which many requests race for one cart
CHECKOUT_ROUNDS: Final = race_rounds(20, memory=3, near=2, far=1)
# the number of carts that are raced for at the same time
BATCH: Final = 5
RACERS: Final = 50
ANY_VERSION: Final = CartPrecondition(is_given=False, expected_versions=None)


@pytest.fixture
async def shop(place: Place, race_database: str) -> AsyncIterator[Shop]:
    async with open_real_shop(*place, race_database) as shop:
        yield shop


async def test_many_checkouts_of_one_cart_give_one_order(shop: Shop, place: Place) -> None:
    for _ in range(CHECKOUT_ROUNDS[place]):
        _, ctx = await shop.create_guest()
        cart = await shop.create_cart(ctx, quantity=2)
        before = await available(shop, shop.product_id)

        results = await gather(
            *(shop.check_out(ctx, cart) for _ in range(RACERS)), return_exceptions=True
        )

        orders = [result for result in results if isinstance(result, OrderView)]
        losers = [result for result in results if not isinstance(result, OrderView)]
        assert len(orders) == 1
        for loser in losers:
            assert isinstance(loser, CartClosed), repr(loser)
            assert loser.details["order_id"] == str(orders[0].order_id)
        (stored,) = await shop.orders_of(ctx.user_id)
        assert stored.order_id == orders[0].order_id
        assert before - await available(shop, shop.product_id) == 2
        assert await charged(shop, ctx, orders[0]) == 2000


async def test_many_checkouts_with_one_key_get_one_answer(shop: Shop, place: Place) -> None:
    for _ in range(CHECKOUT_ROUNDS[place]):
        _, ctx = await shop.create_guest()
        cart = await shop.create_cart(ctx)

        answers = await gather(*(check_out_until_answered(shop, ctx, cart) for _ in range(RACERS)))

        assert len(set(answers)) == 1
        (order,) = await shop.orders_of(ctx.user_id)
        assert str(order.order_id) in answers[0].body
        assert (answers[0].status, answers[0].location) == (201, f"/orders/{order.order_id}")


async def test_changes_of_lines_during_a_checkout_never_change_the_order(
    shop: Shop, place: Place
) -> None:
    others = [await shop.add_product(amount) for amount in (7, 30)]

    async def race(number: int) -> None:
        _, ctx = await shop.create_guest()
        cart = await shop.create_cart(ctx, shop.product_id, others[0], quantity=2)
        add_raise_or_remove = (
            lambda: set_line(shop, ctx, cart, others[1], 3),
            lambda: set_line(shop, ctx, cart, shop.product_id, 5),
            lambda: remove_line(shop, ctx, cart, others[0]),
        )[number % 3]
        checkout, changed = await gather(
            shop.check_out(ctx, cart), add_raise_or_remove(), return_exceptions=True
        )
        await assert_order_is_the_closed_cart(shop, ctx, cart, checkout)
        assert not isinstance(changed, BaseException) or isinstance(changed, CartClosed)

    for start in range(0, ROUNDS[place], BATCH):
        await gather(*(race(number) for number in range(start, start + BATCH)))


async def test_change_of_a_price_during_a_checkout_gives_the_quoted_total_or_409(
    shop: Shop, place: Place
) -> None:
    async def race(number: int) -> None:
        products = [await shop.add_product(1000), await shop.add_product(500)]
        _, ctx = await shop.create_guest()
        cart = await shop.create_cart(ctx, *products, quantity=2)
        assert cart.totals
        expected = cart.totals.total.model_dump()
        checkout, *_ = await gather(
            shop.check_out(ctx, cart, expected_total=expected),
            *(reprice(shop, product_id, 100 + number) for product_id in products),
            return_exceptions=True,
        )
        if isinstance(checkout, TotalChanged):
            assert await shop.orders_of(ctx.user_id) == []
            assert await available(shop, products[0]) == await available(shop, products[1])
        else:
            assert isinstance(checkout, OrderView), repr(checkout)
            assert checkout.total == cart.totals.total
            assert await charged(shop, ctx, checkout) == 3000

    for start in range(0, ROUNDS[place], BATCH):
        await gather(*(race(number) for number in range(start, start + BATCH)))


async def test_merge_and_checkout_of_one_cart_exclude_each_other(shop: Shop, place: Place) -> None:
    async def race() -> None:
        _, ctx = await shop.create_guest()
        source, target = await shop.create_cart(ctx, quantity=2), await shop.create_cart(ctx)

        checkout, _ = await gather(
            shop.check_out(ctx, source), merge(shop, ctx, target, source), return_exceptions=True
        )

        carts = orders_of(shop.container).carts()
        closed = await carts.get(ctx, source.cart_id)
        units = [line.quantity for line in (await carts.get(ctx, target.cart_id)).lines]
        if isinstance(checkout, OrderView):
            assert (closed.status, units) == (CartStatus.CHECKED_OUT, [1])
        else:
            assert (closed.status, units) == (CartStatus.MERGED, [3])
            assert await shop.orders_of(ctx.user_id) == []

    for _ in range(0, ROUNDS[place], BATCH):
        await gather(*(race() for _ in range(BATCH)))


async def assert_order_is_the_closed_cart(
    shop: Shop, ctx: CallContext, cart: CartView, checkout: object
) -> None:
    """Check that the order has the lines of the closed cart, and that the payment has its total."""
    stored = await orders_of(shop.container).carts().get(ctx, cart.cart_id)
    if isinstance(checkout, CartChanged):
        assert stored.status is CartStatus.OPEN
        assert await shop.orders_of(ctx.user_id) == []
        return
    assert isinstance(checkout, OrderView), repr(checkout)
    assert (stored.status, stored.order_id) == (CartStatus.CHECKED_OUT, checkout.order_id)
    assert quantities(checkout.lines) == quantities(stored.lines)
    assert await charged(shop, ctx, checkout) == sum(
        line.unit_price.amount * line.quantity for line in checkout.lines
    )


def quantities(lines: Sequence[Any]) -> dict[UUID, int]:
    return {line.product_id: line.quantity for line in lines}


async def check_out_until_answered(shop: Shop, ctx: CallContext, cart: CartView) -> StoredResponse:
    """Check out with one key. Repeat the request while another request with this key runs."""
    request = IdempotentRequest(
        principal=ctx.actor.audit_name,
        method="POST",
        path=f"/carts/{cart.cart_id}/checkout",
        key="key",
        payload={},
    )
    while True:
        try:
            response, _ = (
                await orders_of(shop.container)
                .idempotency()
                .run(
                    request,
                    IDEMPOTENCY_RETENTION_EXTENDED,
                    created_response(lambda order: f"/orders/{order.order_id}"),
                    lambda attempt: shop.check_out(ctx, cart, attempt),
                )
            )
        except (InFlight, LeaseLost):
            await sleep(0.02)  # let the other request run
            continue
        return response


async def set_line(
    shop: Shop, ctx: CallContext, cart: CartView, product_id: UUID, quantity: int
) -> CartView:
    return (
        await orders_of(shop.container)
        .carts()
        .set_line(ctx, cart.cart_id, product_id, CartLineChange(quantity=quantity), ANY_VERSION)
    )


async def remove_line(shop: Shop, ctx: CallContext, cart: CartView, product_id: UUID) -> int:
    carts = orders_of(shop.container).carts()
    return await carts.remove_line(ctx, cart.cart_id, product_id, ANY_VERSION)


async def merge(shop: Shop, ctx: CallContext, target: CartView, source: CartView) -> CartView:
    return (
        await orders_of(shop.container)
        .cart_merges()
        .merge(
            ctx,
            target.cart_id,
            MergeCart(source_cart_id=source.cart_id),
            ANY_VERSION,
            attempt_without_key(),
        )
    )


async def reprice(shop: Shop, product_id: UUID, amount: int) -> None:
    change = ProductChange.model_validate({"price": {"amount": amount, "currency": "EUR"}})
    await inventory_of(shop.container).catalogue().change(STAFF, product_id, change, None)


async def available(shop: Shop, product_id: UUID) -> int:
    product = await inventory_of(shop.container).catalogue().get_product(STAFF, product_id)
    return product.available


async def charged(shop: Shop, ctx: CallContext, order: OrderView) -> int:
    """Return the amount of the payment. Check that the order shows the same total."""
    api = payments_of(shop.container).payment_api()
    payment = await api.get_payment(ctx, order.payment.payment_id)
    assert payment.amount == order.total
    return payment.amount.amount
