"""Promotions in carts, on each storage."""

import pytest

from markethall.orders.carts.contract import CartVoucherChange
from markethall.orders.contract import VoucherExhausted, VoucherInvalid
from tests.orders.carts.conftest import (
    ANY_VERSION,
    check_out,
    create_cart,
    get_cart,
    readiness,
)
from tests.orders.conftest import OrdersApp
from tests.orders.promotions.shop import create, read, voucher

CHANGE = CartVoucherChange(code="spring")


async def test_voucher_of_a_cart_is_used_by_its_order(orders_app: OrdersApp) -> None:
    product_id, made = orders_app.stock_up(5), await create(orders_app, voucher(usage_limit=1))
    cart = await create_cart(orders_app, (product_id, 1), shipping_address="Market 1")
    carts = orders_app.container.carts()

    shown = await carts.set_voucher(orders_app.buyer, cart.cart_id, CHANGE, ANY_VERSION)
    used_before = (await read(orders_app, made)).used
    order = await check_out(orders_app, cart)

    assert shown.totals
    assert shown.totals.discount.amount == 100
    assert (used_before, order.discount.amount) == (0, 100)
    assert (await read(orders_app, made)).used == 1


async def test_cart_says_that_its_voucher_is_used_up_meanwhile(orders_app: OrdersApp) -> None:
    product_id, _ = orders_app.stock_up(5), await create(orders_app, voucher(usage_limit=1))
    cart = await create_cart(orders_app, (product_id, 1), shipping_address="Market 1")
    carts = orders_app.container.carts()
    await carts.set_voucher(orders_app.buyer, cart.cart_id, CHANGE, ANY_VERSION)
    await orders_app.place(product_id, voucher_code="SPRING")

    shown = await get_cart(orders_app, cart)
    with pytest.raises(VoucherExhausted):
        await check_out(orders_app, cart)
    with pytest.raises(VoucherExhausted):
        await carts.set_voucher(orders_app.buyer, cart.cart_id, CHANGE, ANY_VERSION)

    assert ("orders.voucher_exhausted", "/voucher_code") in readiness(shown)
    assert shown.totals
    assert shown.totals.total.amount == 1000


async def test_unknown_voucher_is_not_stored_in_a_cart(orders_app: OrdersApp) -> None:
    cart = await create_cart(orders_app, (orders_app.stock_up(5), 1))

    with pytest.raises(VoucherInvalid):
        await orders_app.container.carts().set_voucher(
            orders_app.buyer, cart.cart_id, CHANGE, ANY_VERSION
        )

    assert (await get_cart(orders_app, cart)).voucher_code is None
