"""Test that orders charge the amounts of their breakdown, on each storage."""

from dataclasses import replace
from typing import Any

import pytest

from markethall.inventory.contract import ReservationClosed
from markethall.orders.contract import (
    CancelOrder,
    CountryNotServed,
    FulfilmentLineRequest,
    FulfilOrder,
    OrderCurrencyMismatch,
    OrderQuery,
    OrderView,
    PlaceOrder,
    RegionRequired,
    ShippingUnavailable,
    TotalChanged,
    TotalTooLarge,
)
from markethall.orders.domain.integrity import OrderSums, judge_total
from markethall.orders.shipping.contract import NewShippingMethod, ShippingMethodChange
from markethall.orders.shop.contract import ShopChange
from markethall.orders.tax.contract import NewTaxRate
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import MAX_AMOUNT
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.observability.metrics import STATEMENTS
from tests.orders.conftest import STAFF, OrdersApp, attempt_without_key, order_command
from tests.orders.fakes import Killed
from tests.orders.totals.test_worked_examples import TABLES

BERLIN = {
    "recipient": "Ada Lovelace",
    "line1": "Market 1",
    "city": "Berlin",
    "postal_code": "10115",
    "country": "DE",
}
NEW_YORK = BERLIN | {"city": "New York", "region": "NY", "postal_code": "10001", "country": "US"}


async def configure(
    orders_app: OrdersApp, taxes: list[dict[str, Any]], shipping: int | None, currency: str = "EUR"
) -> None:
    rates, methods = orders_app.container.tax_rates(), orders_app.container.shipping_methods()
    for tax in taxes:
        rate = NewTaxRate.model_validate({"name": "VAT", **tax})
        await rates.create(STAFF, rate, attempt_without_key())
    if shipping is not None:
        rate_fields = {"kind": "flat", "currency": currency, "price": shipping}
        method = NewShippingMethod.model_validate(
            {"code": "post", "name": "Post", "rate": rate_fields, "tax_class": "standard"}
        )
        await methods.create(STAFF, method, attempt_without_key())


async def change_shop(orders_app: OrdersApp, **fields: Any) -> None:
    shop = orders_app.container.shop()
    change = ShopChange.model_validate(fields)
    await shop.change(STAFF, change, {(await shop.get(STAFF)).version})


async def place(
    orders_app: OrdersApp, *lines: tuple[int, int, str], address: Any = BERLIN, **more: Any
) -> OrderView:
    """Place an order of lines, given as (quantity, unit price, tax class)."""
    command = new_order(orders_app, *lines, address=address, **more)
    return await orders_app.orders.place(orders_app.buyer, command, attempt_without_key())


def new_order(
    orders_app: OrdersApp,
    *lines: tuple[int, int, str],
    address: Any = BERLIN,
    product_currency: str = "EUR",
    **more: Any,
) -> PlaceOrder:
    products = [
        orders_app.fake_inventory.add_product(
            2 * quantity, price, product_currency, tax_class=tax_class
        )
        for quantity, price, tax_class in lines
    ]
    wanted = [
        {"product_id": product, "quantity": quantity}
        for product, (quantity, *_) in zip(products, lines, strict=True)
    ]
    return PlaceOrder.model_validate({"lines": wanted, "shipping_address": address, **more})


GERMAN_TAXES = [
    {"country": "DE", "rate": "0.19"},
    {"country": "DE", "rate": "0.07", "tax_class": "reduced"},
]
TEA_AND_KETTLE = ((3, 499, "reduced"), (1, 5995, "standard"))
NEW_YORK_TAX = [{"country": "US", "region": "NY", "rate": "0.08875", "name": "Sales tax"}]
US_LINES = ((2, 1250, "standard"), (1, 999, "untaxed"), (3, 333, "standard"))


async def test_shop_without_configuration_charges_the_prices(orders_app: OrdersApp) -> None:
    order = await place(orders_app, *TEA_AND_KETTLE)

    assert [order.discount.amount, order.shipping.amount, order.tax.amount] == [0, 0, 0]
    assert (order.total, order.included_tax.amount) == (order.subtotal, 0)
    assert (order.discounts, order.tax_lines, order.shipping_line) == ((), (), None)
    assert order.number.startswith("MH-")


async def test_order_with_included_tax_equals_the_worked_example(orders_app: OrdersApp) -> None:
    await configure(orders_app, GERMAN_TAXES, 490)

    order = await place(orders_app, *TEA_AND_KETTLE)

    tea, kettle = order.lines
    rows = TABLES["D1"]
    assert sums(order) == pick(rows["order"])
    assert line_sums(tea) == pick(rows["tea"])
    assert line_sums(kettle) == pick(rows["kettle"])
    assert order.shipping_line is not None
    assert (order.shipping_line.code, order.shipping_line.included_tax.amount) == ("post", 78)
    assert [(t.rate, t.amount.amount, t.included) for t in order.tax_lines] == [
        ("0.07", 98, True),
        ("0.19", 957 + 78, True),
    ]
    assert await orders_app.orders.get_order(orders_app.buyer, order.order_id) == order


async def test_order_with_added_tax_equals_the_worked_example(orders_app: OrdersApp) -> None:
    await configure(orders_app, NEW_YORK_TAX, 599, "USD")
    await change_shop(orders_app, prices_include_tax=False)

    order = await place(orders_app, *US_LINES, address=NEW_YORK, product_currency="USD")

    assert sums(order) == pick(TABLES["U1"]["order"])
    assert [line_sums(line) for line in order.lines] == [
        pick(TABLES["U1"][name]) for name in ("mug", "book", "cable")
    ]
    payment = orders_app.fake_payments.payment(order.payment.payment_id)
    assert payment.amount == order.total == Money(amount=5461, currency="USD")
    assert await orders_app.orders.get_order(orders_app.buyer, order.order_id) == order


async def test_cancelled_units_get_their_share_of_tax(orders_app: OrdersApp) -> None:
    await configure(orders_app, NEW_YORK_TAX, 599, "USD")
    await change_shop(orders_app, prices_include_tax=False)
    placed = await place(orders_app, *US_LINES, address=NEW_YORK, product_currency="USD")
    orders_app.fake_payments.capture(placed.payment.payment_id)
    await orders_app.process_events()

    refunded = []
    for line, units in ((placed.lines[0], 1), (placed.lines[2], 2), (placed.lines[2], 1)):
        lines = (FulfilmentLineRequest(line_id=line.line_id, quantity=units),)
        command = CancelOrder(reason="broken", lines=lines)
        await orders_app.orders.cancel(STAFF, placed.order_id, command, attempt_without_key())
        await orders_app.process_events()
        payment = orders_app.fake_payments.payment(placed.payment.payment_id)
        refunded.append(payment.refunded.amount)

    # 1361 is 1250 plus 111 of tax. The tax of three cables is 89, split into 30, 30 and 29.
    assert refunded == [1361, 1361 + 666 + 60, 1361 + 999 + 89]


async def test_amounts_due_add_up_for_shipped_and_cancelled_units(orders_app: OrdersApp) -> None:
    await configure(orders_app, NEW_YORK_TAX, 599, "USD")
    await change_shop(orders_app, prices_include_tax=False)
    placed = await place(orders_app, *US_LINES, address=NEW_YORK, product_currency="USD")
    orders_app.fake_payments.capture(placed.payment.payment_id)
    await orders_app.process_events()
    cable = placed.lines[2]

    lines = (FulfilmentLineRequest(line_id=cable.line_id, quantity=1),)
    ship = FulfilOrder(carrier="DHL", tracking_number="1", lines=lines)
    await orders_app.fulfilments.fulfil(STAFF, placed.order_id, ship, attempt_without_key())

    async with orders_app.persistence.database.read_session() as store:
        order = await store.get_order(placed.order_id)
    # one cable with the last share of the tax, and shipping with its tax
    assert order.shipped_due == 333 + 29 + 599 + 53
    assert order.total_due == order.total


async def test_expected_total_guards_the_whole_total(orders_app: OrdersApp) -> None:
    await configure(orders_app, GERMAN_TAXES, 490)
    command = new_order(
        orders_app, *TEA_AND_KETTLE, expected_total={"amount": 7492, "currency": "EUR"}
    )

    with pytest.raises(TotalChanged) as refused:
        await orders_app.orders.place(orders_app.buyer, command, attempt_without_key())

    assert refused.value.details["total"] == {"amount": 7982, "currency": "EUR"}
    for line in command.lines:
        assert orders_app.fake_inventory.available(line.product_id) == 2 * line.quantity


async def test_order_in_any_currency_in_which_all_lines_have_a_price(orders_app: OrdersApp) -> None:
    both = orders_app.fake_inventory.add_product(5, 1000, "EUR", {"CHF": 950})
    eur_only = orders_app.fake_inventory.add_product(5, 700, "EUR")
    chf_only = orders_app.fake_inventory.add_product(5, 700, "CHF")

    order = await orders_app.place(both, 2, currency="CHF")

    assert order.total == Money(amount=1900, currency="CHF")
    assert (await orders_app.place(both, 2)).total == Money(amount=2000, currency="EUR")
    with pytest.raises(OrderCurrencyMismatch) as refused:
        await orders_app.place(eur_only, 1, currency="CHF")
    assert refused.value.details == {
        "currencies": ["CHF", "EUR"],
        "lines": [{"product_id": str(eur_only), "currency": "EUR"}],
    }
    mixed = PlaceOrder.model_validate(
        {
            "lines": [
                {"product_id": eur_only, "quantity": 1},
                {"product_id": chf_only, "quantity": 1},
            ],
            "shipping_address": "Market 1",
        }
    )
    with pytest.raises(OrderCurrencyMismatch) as refused:
        await orders_app.orders.place(orders_app.buyer, mixed, attempt_without_key())
    assert refused.value.details["lines"] == [{"product_id": str(chf_only), "currency": "CHF"}]
    assert orders_app.fake_inventory.available(eur_only) == 5


async def test_shop_limits_currencies_and_countries(orders_app: OrdersApp) -> None:
    await change_shop(
        orders_app, currencies=["CHF"], default_currency="CHF", countries=["CH", "DE"]
    )
    product = orders_app.fake_inventory.add_product(5, 1000, "EUR", {"CHF": 950})

    with pytest.raises(OrderCurrencyMismatch):
        await orders_app.place(product, currency="EUR")
    with pytest.raises(CountryNotServed):
        await orders_app.place(product, currency="CHF", shipping_address=NEW_YORK)
    order = await orders_app.place(product, currency="CHF", shipping_address=BERLIN)
    assert order.total == Money(amount=950, currency="CHF")


async def test_default_currency_applies_if_the_shop_lists_its_currencies(
    orders_app: OrdersApp,
) -> None:
    both = orders_app.fake_inventory.add_product(9, 1000, "EUR", {"CHF": 950})
    eur_only = orders_app.fake_inventory.add_product(9, 700, "EUR")

    await change_shop(orders_app, default_currency="CHF")
    assert (await orders_app.place(both)).total == Money(amount=1000, currency="EUR")

    await change_shop(orders_app, currencies=["CHF", "EUR"])
    assert (await orders_app.place(both)).total == Money(amount=950, currency="CHF")
    assert (await orders_app.place(both, currency="EUR")).total.currency == "EUR"
    with pytest.raises(OrderCurrencyMismatch) as refused:
        await orders_app.place(eur_only)
    assert refused.value.details["lines"] == [{"product_id": str(eur_only), "currency": "EUR"}]


@pytest.mark.parametrize("address", [NEW_YORK | {"region": None}, "1 Market Street, New York"])
async def test_no_order_escapes_a_regional_tax_by_leaving_out_the_region(
    orders_app: OrdersApp, address: Any
) -> None:
    await configure(orders_app, NEW_YORK_TAX, None, "USD")
    await change_shop(orders_app, prices_include_tax=False, address=NEW_YORK)
    command = new_order(orders_app, *US_LINES, address=address, product_currency="USD")

    with pytest.raises(RegionRequired) as refused:
        await orders_app.orders.place(orders_app.buyer, command, attempt_without_key())

    assert refused.value.details == {"country": "US"}
    for line in command.lines:
        assert orders_app.fake_inventory.available(line.product_id) == 2 * line.quantity


async def test_shipping_method_is_chosen_by_code(orders_app: OrdersApp) -> None:
    await configure(orders_app, [], 490)
    methods = orders_app.container.shipping_methods()
    fields = {
        "code": "courier",
        "name": "Courier",
        "rate": {"kind": "flat", "currency": "EUR", "price": 990},
    }
    courier = NewShippingMethod.model_validate(fields)
    await methods.create(STAFF, courier, attempt_without_key())

    cheapest = await place(orders_app, (1, 1000, "standard"))
    chosen = await place(orders_app, (1, 1000, "standard"), shipping_method="courier")

    assert (cheapest.shipping.amount, chosen.shipping.amount) == (490, 990)
    with pytest.raises(ShippingUnavailable):
        await place(orders_app, (1, 1000, "standard"), shipping_method="drone")
    with pytest.raises(ShippingUnavailable):
        await place(orders_app, (1, 1000, "standard"), product_currency="CHF")


async def test_shop_whose_methods_are_all_inactive_does_not_ship_for_nothing(
    orders_app: OrdersApp,
) -> None:
    await configure(orders_app, [], 490)
    methods = orders_app.container.shipping_methods()
    (post,) = (await methods.list_page(STAFF, PageQuery())).items
    change = ShippingMethodChange(is_active=False)
    await methods.change(STAFF, post.shipping_method_id, change, {post.version})

    with pytest.raises(ShippingUnavailable) as refused:
        await place(orders_app, (1, 1000, "standard"))

    assert refused.value.details["available"] == []


@pytest.mark.parametrize(
    ("shop_address", "region", "tax"), [(NEW_YORK, "CA", 89), (None, "NY", 89), (None, "CA", 0)]
)
async def test_pickup_has_the_tax_of_the_region_of_the_shop(
    orders_app: OrdersApp, shop_address: Any, region: str, tax: int
) -> None:
    """If the place of the shop is not known, the tax at the address of the customer applies."""
    await configure(orders_app, NEW_YORK_TAX, None)
    await change_shop(orders_app, prices_include_tax=False, address=shop_address)
    fields = {
        "code": "counter",
        "name": "At the counter",
        "pickup": True,
        "rate": {"kind": "flat", "currency": "USD", "price": 0},
    }
    pickup = NewShippingMethod.model_validate(fields)
    await orders_app.container.shipping_methods().create(STAFF, pickup, attempt_without_key())

    order = await place(
        orders_app,
        (1, 1000, "standard"),
        address=NEW_YORK | {"region": region},
        product_currency="USD",
        shipping_method="counter",
    )

    assert (order.tax.amount, order.total.amount) == (tax, 1000 + tax)


async def test_number_has_the_prefix_of_the_shop_when_it_was_placed(orders_app: OrdersApp) -> None:
    product = orders_app.fake_inventory.add_product(9)
    old = await orders_app.place(product)
    await change_shop(orders_app, order_number_prefix="TEA/".replace("/", "-"))
    new = await orders_app.place(product)

    assert old.number.startswith("MH-")
    assert new.number == f"TEA-{int(old.number.removeprefix('MH-')) + 1}"
    assert (await orders_app.read_order(old)).number == old.number
    for order in (old, new):
        found = await orders_app.orders.list_orders(STAFF, OrderQuery(number=order.number))
        assert [one.order_id for one in found.items] == [order.order_id]
    other = OrderQuery(number=new.number.replace("TEA-", "MH-"))
    assert (await orders_app.orders.list_orders(STAFF, other)).items == ()


async def test_retry_after_a_change_of_prices_charges_no_other_amount(
    orders_app: OrdersApp,
) -> None:
    """The payment of the first attempt has the old total, so the retry places no order."""
    command, attempt = new_order(orders_app, *TEA_AND_KETTLE), attempt_without_key()
    orders_app.call_failures.fail_call(3, "killed after")
    with pytest.raises(Killed):
        await place_attempt(orders_app, command, attempt)
    await configure(orders_app, [], 490)

    with pytest.raises(ReservationClosed):
        await place_attempt(orders_app, command, attempt)

    for line in command.lines:
        assert orders_app.fake_inventory.available(line.product_id) == 2 * line.quantity


@pytest.mark.parametrize("expected", [None, {"amount": 7492, "currency": "EUR"}])
async def test_retry_returns_the_order_that_was_placed_before_prices_changed(
    orders_app: OrdersApp, expected: Any
) -> None:
    command, attempt = (
        new_order(orders_app, *TEA_AND_KETTLE, expected_total=expected),
        attempt_without_key(),
    )
    orders_app.call_failures.fail_call(4, "killed before")
    with pytest.raises(Killed):
        await place_attempt(orders_app, command, attempt)
    await configure(orders_app, [], 490)

    order = await place_attempt(orders_app, command, attempt)

    assert (order.order_id, order.total.amount) == (attempt.id, 7492)
    for line in command.lines:
        assert orders_app.fake_inventory.available(line.product_id) == line.quantity


async def place_attempt(
    orders_app: OrdersApp, command: PlaceOrder, attempt: IdempotentCommand
) -> OrderView:
    return await orders_app.orders.place(orders_app.buyer, command, attempt)


async def test_total_beyond_the_limit_is_rejected(orders_app: OrdersApp) -> None:
    await configure(orders_app, [], 1)

    with pytest.raises(TotalTooLarge):
        await place(orders_app, (1, MAX_AMOUNT, "standard"))


async def test_tax_beyond_the_limit_is_rejected(orders_app: OrdersApp) -> None:
    taxes = [{"country": "DE", "rate": "1", "name": name} for name in ("VAT", "Duty")]
    await configure(orders_app, taxes, None)
    await change_shop(orders_app, prices_include_tax=False)

    with pytest.raises(TotalTooLarge):
        await place(orders_app, (1, MAX_AMOUNT // 2 + 1, "standard"))
    with pytest.raises(TotalTooLarge):
        await place(orders_app, (1, MAX_AMOUNT, "standard"))


async def test_order_needs_no_statement_for_a_cached_configuration(orders_app: OrdersApp) -> None:
    product = orders_app.fake_inventory.add_product(9)
    statements = []
    for _ in range(3):
        before = STATEMENTS._value.get()
        await orders_app.orders.place(
            orders_app.buyer, order_command(product), attempt_without_key()
        )
        statements.append(STATEMENTS._value.get() - before)

    has_database = bool(statements[0])
    assert statements[0] - statements[1] == int(has_database)
    assert statements[1] == statements[2]


def pick(row: list[int]) -> list[int]:
    """Return subtotal, discount, tax, included tax and total of a row of the worked examples."""
    subtotal, discount, _, tax, included, total = row
    return [subtotal, discount, tax, included, total]


def sums(order: OrderView) -> list[int]:
    parts = (order.subtotal, order.discount, order.tax, order.included_tax, order.total)
    return [part.amount for part in parts]


def line_sums(line: Any) -> list[int]:
    parts = (line.total, line.discount, line.tax, line.included_tax, line.charged)
    return [part.amount for part in parts]


SUMS = OrderSums(
    order_id=new_id(),
    subtotal=1000,
    discount=150,
    shipping=500,
    tax=90,
    total=1440,
    line_total=1000,
    unit_total=1000,
    line_discount=100,
    line_tax=50,
)


@pytest.mark.parametrize(
    ("changes", "offences"),
    [
        ({}, 0),
        ({"line_discount": 150, "line_tax": 90}, 0),
        ({"line_discount": 151}, 1),
        ({"shipping": 49, "total": 989}, 1),
        ({"line_tax": 91}, 1),
        ({"shipping": 50, "total": 990}, 1),
        ({"line_total": 999}, 1),
        ({"total": 1441}, 1),
    ],
)
def test_integrity_check_finds_amounts_without_a_line(
    changes: dict[str, Any], offences: int
) -> None:
    assert len(list(judge_total(replace(SUMS, **changes)))) == offences


async def test_integrity_check_accepts_orders_with_taxes(orders_app: OrdersApp) -> None:
    await configure(orders_app, NEW_YORK_TAX, 599, "USD")
    await change_shop(orders_app, prices_include_tax=False)
    placed = await place(orders_app, *US_LINES, address=NEW_YORK, product_currency="USD")

    async with orders_app.container.snapshots().snapshot() as reads:
        [found] = await reads.list_order_sums(None, 10)

    assert (found.order_id, found.line_tax, found.tax) == (placed.order_id, 222 + 89, 364)
    assert list(judge_total(found)) == []
