"""The demo data of orders: settings of the shop, shipping methods, tax rates and vouchers."""

import pytest

from markethall.local.demo import configuration
from markethall.orders.carts.contract import CartVoucherChange
from markethall.orders.promotions.contract import PromotionQuery
from markethall.orders.shipping.contract import ShippingMethodChange
from markethall.orders.shop.contract import ShopChange
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.pagination import PageQuery
from tests.orders.carts.conftest import ANY_VERSION, create_cart
from tests.orders.conftest import STAFF, OrdersApp

CALL = system_context("demo")
ALL = PageQuery(limit=100)
NOTHING = (0, 0, 0)


async def fill(app: OrdersApp) -> tuple[int, int, int]:
    """Return the numbers of new shipping methods, tax rates and vouchers."""
    services = configuration.ConfigurationServices(
        app.container.shop(),
        app.container.shipping_methods(),
        app.container.tax_rates(),
        app.container.promotions(),
    )
    new = await configuration.fill_configuration(services, CALL)
    return new.shipping_methods, new.tax_rates, new.vouchers


async def test_demo_data_is_created_once(orders_app: OrdersApp) -> None:
    first = await fill(orders_app)
    again = await fill(orders_app)

    methods = await orders_app.container.shipping_methods().list_page(STAFF, ALL)
    rates = await orders_app.container.tax_rates().list_page(STAFF, ALL)
    vouchers = await orders_app.container.promotions().list_page(STAFF, PromotionQuery())
    shop = await orders_app.container.shop().get(STAFF)
    assert (first, again) == ((3, 6, 2), NOTHING)
    assert {method.code for method in methods.items} == {"standard", "express", "pickup"}
    assert len(rates.items) == 6
    assert {voucher.code for voucher in vouchers.items} == {"WELCOME10", "FREESHIP"}
    assert {voucher.kind for voucher in vouchers.items} == {"percent", "free_shipping"}
    assert (shop.name, shop.countries, shop.version) == ("Tea House", ("AT", "DE", "NL"), 2)


def test_printed_line_names_the_vouchers() -> None:
    assert all(f"{code} (" in configuration.VOUCHER_LINE for code in ("WELCOME10", "FREESHIP"))


async def test_second_run_keeps_changes_of_staff(orders_app: OrdersApp) -> None:
    await fill(orders_app)
    shop, methods = orders_app.container.shop(), orders_app.container.shipping_methods()
    await shop.change(STAFF, ShopChange(name="My Shop"), None)
    (first, *_) = (await methods.list_page(STAFF, ALL)).items
    change = ShippingMethodChange(is_active=False)
    await methods.change(STAFF, first.shipping_method_id, change, None)

    assert await fill(orders_app) == NOTHING

    assert (await shop.get(STAFF)).name == "My Shop"
    assert not (await methods.get(STAFF, first.shipping_method_id)).is_active


async def test_settings_of_an_existing_shop_are_kept(orders_app: OrdersApp) -> None:
    shop = orders_app.container.shop()
    await shop.change(STAFF, ShopChange(name="My Shop"), None)

    await fill(orders_app)

    assert (await shop.get(STAFF)).name == "My Shop"


ADDRESS = {"recipient": "Ada", "line1": "1 Market Square", "postal_code": "1", "city": "X"}


@pytest.mark.parametrize(
    ("country", "quantity", "options"),
    [
        ("DE", 4, {"standard": 490, "express": 1290, "pickup": 0}),
        ("DE", 5, {"standard": 0, "express": 1290, "pickup": 0}),
        ("NL", 4, {"standard": 490, "pickup": 0}),
    ],
)
async def test_countries_of_the_demo_have_shipping_methods(
    orders_app: OrdersApp, country: str, quantity: int, options: dict[str, int]
) -> None:
    await fill(orders_app)
    product_id = orders_app.stock_up(10)  # a unit costs 10.00 EUR
    address = {**ADDRESS, "country": country}
    cart = await create_cart(orders_app, (product_id, quantity), shipping_address=address)

    carts = orders_app.container.carts()
    found = await carts.list_shipping_options(orders_app.buyer, cart.cart_id)

    assert {option.code: option.price.amount for option in found.items} == options


@pytest.mark.parametrize(
    ("code", "total"), [("WELCOME10", 900 + 490), ("FREESHIP", 1000), (None, 1490)]
)
async def test_vouchers_of_the_demo_lower_the_total(
    orders_app: OrdersApp, code: str | None, total: int
) -> None:
    await fill(orders_app)
    address = {**ADDRESS, "country": "DE"}
    cart = await create_cart(orders_app, (orders_app.stock_up(), 1), shipping_address=address)

    if code is not None:
        change = CartVoucherChange(code=code)
        carts = orders_app.container.carts()
        cart = await carts.set_voucher(orders_app.buyer, cart.cart_id, change, ANY_VERSION)

    assert cart.totals
    assert cart.totals.total.amount == total
    assert {(line.name, line.rate) for line in cart.totals.tax_lines} == {("VAT", "0.19")}


async def test_address_without_a_country_is_in_the_country_of_the_demo(
    orders_app: OrdersApp,
) -> None:
    await fill(orders_app)

    order = await orders_app.place(orders_app.stock_up())

    assert order.shipping_line
    assert order.shipping_line.code == "standard"
