"""The contract suite of carts. It runs on each storage."""

from asyncio import gather
from datetime import timedelta

import pytest

from markethall.inventory.contract import ProductNotFound
from markethall.orders.carts.contract import (
    CartNotFound,
    CartStatus,
    CartVoucherChange,
    LineChangeKind,
    NewCart,
    TooManyCartLines,
    TooManyCarts,
)
from markethall.orders.contract import MAX_LINES, OrderCurrencyMismatch
from markethall.orders.shipping.contract import NewShippingMethod
from markethall.shared.kernel.errors import PreconditionFailed, PreconditionRequired
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import MAX_AMOUNT
from markethall.shared.kernel.money import Money
from markethall.shared.observability.metrics import STATEMENTS
from tests.orders.carts.conftest import (
    ANY_VERSION,
    amounts,
    at_version,
    change_cart,
    check_out,
    create_cart,
    get_cart,
    guest_context,
    lines_of,
    readiness,
    set_line,
)
from tests.orders.conftest import STAFF, OrdersApp, attempt_without_key, user_context
from tests.orders.test_totals import change_shop

ADDRESS = {
    "recipient": "Ada Lovelace",
    "line1": "Keizersgracht 1",
    "city": "Amsterdam",
    "postal_code": "1015 CJ",
    "country": "NL",
}


def euros(amount: int) -> Money:
    return Money(amount=amount, currency="EUR")


FLAT = {"kind": "flat", "currency": "EUR", "price": 490}


# Creating and reading


async def test_created_cart_has_current_prices_and_totals(orders_app: OrdersApp) -> None:
    tea, cup = (
        orders_app.fake_inventory.add_product(5, amount=1250),
        orders_app.fake_inventory.add_product(9, amount=300),
    )

    cart = await create_cart(orders_app, (tea, 2), (cup, 1), shipping_address="Market 1")

    assert (cart.status, cart.version, cart.currency) == (CartStatus.OPEN, 1, "EUR")
    assert [(line.product_id, line.quantity) for line in cart.lines] == [(tea, 2), (cup, 1)]
    prices = [(line.unit_price, line.total) for line in cart.lines]
    assert prices == [(euros(1250), euros(2500)), (euros(300), euros(300))]
    assert [line.available for line in cart.lines] == [5, 9]
    assert cart.totals
    assert (cart.totals.subtotal.amount, cart.totals.total.amount) == (2800, 2800)
    assert (cart.changes, cart.readiness) == ((), ())
    assert orders_app.fake_inventory.available(tea) == 5  # nothing is reserved


async def test_read_cart_equals_created_cart(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5)
    cart = await create_cart(
        orders_app,
        (tea, 2),
        email="ada@example.com",
        shipping_address=ADDRESS,
        billing_address='Straße 1, "Köln"',
        note="wrap it",
        currency="EUR",
        metadata={"source": "ä"},
    )

    assert await get_cart(orders_app, cart) == cart


async def test_repeated_creation_returns_the_same_cart(orders_app: OrdersApp) -> None:
    attempt = attempt_without_key()
    tea = orders_app.fake_inventory.add_product(5)
    command = NewCart.model_validate({"lines": lines_of((tea, 2))})

    first = await orders_app.container.carts().create(orders_app.buyer, command, attempt)
    again = await orders_app.container.carts().create(orders_app.buyer, command, attempt)

    assert first == again


async def test_empty_cart_has_no_totals(orders_app: OrdersApp) -> None:
    cart = await create_cart(orders_app)

    assert (cart.lines, cart.totals, cart.currency) == ((), None, None)
    assert readiness(cart) == [("missing", "/lines"), ("missing", "/shipping_address")]
    assert orders_app.call_failures.calls == []


async def test_unknown_product_is_rejected_and_no_cart_is_created(orders_app: OrdersApp) -> None:
    unknown = new_id()

    with pytest.raises(ProductNotFound) as raised:
        await create_cart(orders_app, (unknown, 1))

    assert raised.value.details == {"product_ids": [str(unknown)]}


async def test_owner_and_staff_see_a_cart_and_others_do_not(orders_app: OrdersApp) -> None:
    cart = await create_cart(orders_app)
    stranger = user_context(new_id(), "customer")

    assert (await get_cart(orders_app, cart, STAFF)).cart_id == cart.cart_id
    for attempt in (
        get_cart(orders_app, cart, stranger),
        change_cart(orders_app, cart, stranger, note="mine"),
        orders_app.container.carts().get(orders_app.buyer, new_id()),
    ):
        with pytest.raises(CartNotFound):
            await attempt


async def test_read_needs_one_call_and_one_statement(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5)
    cart = await create_cart(orders_app, (tea, 2))
    await get_cart(orders_app, cart)
    orders_app.call_failures.calls.clear()
    before = STATEMENTS._value.get()

    await get_cart(orders_app, cart)

    assert orders_app.call_failures.calls == ["list_offers"]
    assert STATEMENTS._value.get() - before <= 1


# Lines


async def test_lines_are_added_changed_and_removed(orders_app: OrdersApp) -> None:
    tea, cup = orders_app.fake_inventory.add_product(5), orders_app.fake_inventory.add_product(5)
    cart = await create_cart(orders_app, (tea, 1))

    added = await set_line(orders_app, cart, cup, 3)
    changed = await set_line(orders_app, cart, tea, 2)
    version = await orders_app.container.carts().remove_line(
        orders_app.buyer, cart.cart_id, cup, ANY_VERSION
    )

    assert (amounts(added), added.version) == ({tea: 1, cup: 3}, 2)
    assert (amounts(changed), changed.version) == ({tea: 2, cup: 3}, 3)
    read = await get_cart(orders_app, cart)
    assert (amounts(read), read.version, version) == ({tea: 2}, 4, 4)


async def test_change_without_effect_keeps_the_version(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5)
    cart = await create_cart(orders_app, (tea, 1), note="wrap it")
    carts = orders_app.container.carts()

    await set_line(orders_app, cart, tea, 1)
    await change_cart(orders_app, cart, note="wrap it")
    await carts.remove_line(orders_app.buyer, cart.cart_id, new_id(), ANY_VERSION)
    await carts.remove_voucher(orders_app.buyer, cart.cart_id, ANY_VERSION)

    assert (await get_cart(orders_app, cart)).version == 1


async def test_cart_has_a_limit_of_lines(orders_app: OrdersApp) -> None:
    products = [orders_app.fake_inventory.add_product(5) for _ in range(MAX_LINES + 1)]
    cart = await create_cart(orders_app, *((product_id, 1) for product_id in products[:-1]))

    with pytest.raises(TooManyCartLines) as raised:
        await set_line(orders_app, cart, products[-1], 1)

    assert raised.value.details == {"limit": MAX_LINES}
    assert len((await set_line(orders_app, cart, products[0], 2)).lines) == MAX_LINES


async def test_concurrent_changes_of_different_lines_all_apply(orders_app: OrdersApp) -> None:
    products = [orders_app.fake_inventory.add_product(5) for _ in range(8)]
    cart = await create_cart(orders_app)

    await gather(*(set_line(orders_app, cart, product_id, 2) for product_id in products))

    read = await get_cart(orders_app, cart)
    assert (amounts(read), read.version) == (dict.fromkeys(products, 2), 9)


# Fields


async def test_absent_fields_stay_and_null_clears(orders_app: OrdersApp) -> None:
    cart = await create_cart(orders_app, email="ada@example.com", note="wrap it")

    changed = await change_cart(orders_app, cart, shipping_address=ADDRESS, note=None)

    assert (changed.email, changed.note) == ("ada@example.com", None)
    assert changed.shipping_address is not None
    assert changed.version == 2


async def test_metadata_is_replaced(orders_app: OrdersApp) -> None:
    cart = await create_cart(orders_app, metadata={"a": "1", "b": "2"})

    changed = await change_cart(orders_app, cart, metadata={"b": "3"})
    cleared = await change_cart(orders_app, cart, metadata=None)

    assert (changed.metadata, cleared.metadata) == ({"b": "3"}, {})


async def test_voucher_is_stored_and_removed(orders_app: OrdersApp) -> None:
    cart = await create_cart(orders_app)
    carts = orders_app.container.carts()

    change = CartVoucherChange(code="SPRING-10")
    changed = await carts.set_voucher(orders_app.buyer, cart.cart_id, change, ANY_VERSION)
    version = await carts.remove_voucher(orders_app.buyer, cart.cart_id, ANY_VERSION)

    assert (changed.voucher_code, changed.version, version) == ("SPRING-10", 2, 3)
    assert (await get_cart(orders_app, cart)).voucher_code is None


# Versions


async def test_owner_may_leave_out_the_version_and_staff_may_not(orders_app: OrdersApp) -> None:
    cart = await create_cart(orders_app)

    with pytest.raises(PreconditionRequired):
        await change_cart(orders_app, cart, STAFF, note="by staff")
    by_staff = await change_cart(orders_app, cart, STAFF, at_version(1), note="by staff")
    by_owner = await change_cart(orders_app, cart, note="by the owner")

    assert (by_staff.version, by_owner.version) == (2, 3)


async def test_stale_version_is_rejected(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5)
    cart = await create_cart(orders_app, (tea, 1))
    await set_line(orders_app, cart, tea, 2, precondition=at_version(1))

    for change in (
        set_line(orders_app, cart, tea, 3, precondition=at_version(1)),
        change_cart(orders_app, cart, precondition=at_version(1), note="late"),
    ):
        with pytest.raises(PreconditionFailed):
            await change
    assert amounts(await get_cart(orders_app, cart)) == {tea: 2}


async def test_concurrent_changes_of_one_version_apply_once(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(50)
    cart = await create_cart(orders_app, (tea, 1))

    results = await gather(
        *(set_line(orders_app, cart, tea, n, precondition=at_version(1)) for n in range(2, 8)),
        return_exceptions=True,
    )

    assert sum(isinstance(result, PreconditionFailed) for result in results) == 5
    assert (await get_cart(orders_app, cart)).version == 2


# Changes since the last look


async def test_price_change_is_reported_once(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5, amount=1000)
    cart = await create_cart(orders_app, (tea, 2))
    orders_app.fake_inventory.reprice(tea, 1100)

    (change,) = (await get_cart(orders_app, cart)).changes
    again = await get_cart(orders_app, cart)

    assert change.kind is LineChangeKind.PRICE_CHANGED
    assert change.previous_price
    assert change.price
    assert (change.previous_price.amount, change.price.amount) == (1000, 1100)
    assert again.changes == ()
    assert (again.version, again.totals and again.totals.total.amount) == (1, 2200)


async def test_look_of_staff_does_not_use_up_the_changes(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5, amount=1000)
    cart = await create_cart(orders_app, (tea, 2))
    orders_app.fake_inventory.reprice(tea, 1100)

    assert len((await get_cart(orders_app, cart, STAFF)).changes) == 1
    assert len((await get_cart(orders_app, cart)).changes) == 1


async def test_availability_changes_are_reported_when_the_line_is_affected(
    orders_app: OrdersApp,
) -> None:
    tea = orders_app.fake_inventory.add_product(9)
    cart = await create_cart(orders_app, (tea, 4))
    seen = []

    for sold in (3, 3, 3):
        orders_app.fake_inventory.remove_stock(tea, sold)
        seen.append(await get_cart(orders_app, cart))
    orders_app.fake_inventory.receive_stock(tea, 5)
    seen.append(await get_cart(orders_app, cart))

    kinds = [
        [(change.kind, change.previous_available, change.available) for change in cart.changes]
        for cart in seen
    ]
    assert kinds == [
        [],  # 6 units are left, which is more than the 4 units of the line
        [(LineChangeKind.LESS_AVAILABLE, 4, 3)],
        [(LineChangeKind.UNAVAILABLE, 3, 0)],
        [(LineChangeKind.AVAILABLE_AGAIN, 0, 4)],
    ]
    assert [("inventory.out_of_stock", "/lines/0/quantity") in readiness(one) for one in seen] == [
        False,
        True,
        True,
        False,
    ]


async def test_removed_product_stays_in_the_cart_without_a_price(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5, amount=1000)
    cup = orders_app.fake_inventory.add_product(5, amount=300)
    cart = await create_cart(orders_app, (tea, 2), (cup, 1), shipping_address="Market 1")
    orders_app.fake_inventory.archive(tea)

    first, again = await get_cart(orders_app, cart), await get_cart(orders_app, cart)

    assert [change.kind for change in first.changes] == [LineChangeKind.REMOVED]
    assert again.changes == ()
    line = again.lines[0]
    assert (line.product_id, line.sku, line.unit_price, line.available) == (tea, "SKU-0", None, 0)
    assert again.totals
    assert again.totals.total.amount == 300
    assert readiness(again) == [("inventory.product_not_found", "/lines/0/product_id")]


# Currencies


async def test_cart_in_any_currency_of_all_lines(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5, amount=1000, prices={"USD": 1200})
    cart = await create_cart(orders_app, (tea, 2))

    changed = await change_cart(orders_app, cart, currency="USD")

    assert changed.totals
    assert (changed.totals.total.amount, changed.totals.total.currency) == (2400, "USD")
    assert changed.changes == ()  # the owner has chosen the other price


async def test_cart_without_a_currency_has_the_default_of_the_shop(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5, amount=1000, prices={"CHF": 950})
    await change_shop(orders_app, currencies=["CHF", "EUR"], default_currency="CHF")
    cart = await create_cart(orders_app, (tea, 2), shipping_address="Market 1")

    order = await check_out(orders_app, cart)

    assert cart.totals
    assert cart.totals.total == order.total == Money(amount=1900, currency="CHF")
    assert cart.lines[0].unit_price == Money(amount=950, currency="CHF")
    assert cart.currency == "CHF"


async def test_lines_without_a_price_in_the_currency_are_named(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5, prices={"USD": 1200})
    cup = orders_app.fake_inventory.add_product(5)
    cart = await create_cart(orders_app, (tea, 2), (cup, 1))
    dollars = await create_cart(orders_app, (tea, 2), currency="USD")

    for change in (
        change_cart(orders_app, cart, currency="USD"),
        set_line(orders_app, dollars, cup, 1),
        create_cart(orders_app, (tea, 1), (cup, 1), currency="USD"),
    ):
        with pytest.raises(OrderCurrencyMismatch) as raised:
            await change
        assert raised.value.details["lines"] == [{"product_id": str(cup), "currency": "EUR"}]
    assert (await get_cart(orders_app, cart)).version == 1


# Readiness and shipping


async def test_guest_needs_an_address_and_an_email(orders_app: OrdersApp) -> None:
    guest, tea = guest_context(), orders_app.fake_inventory.add_product(5)
    cart = await create_cart(orders_app, (tea, 1), ctx=guest)

    ready = await change_cart(
        orders_app, cart, guest, email="ada@example.com", shipping_address=ADDRESS
    )

    assert cart.is_guest
    assert readiness(cart) == [("missing", "/shipping_address"), ("missing", "/email")]
    assert ready.readiness == ()


async def test_shipping_options_follow_the_address(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5, amount=1000)
    for code, countries in (("post", ["NL"]), ("courier", ["DE", "NL"])):
        method = {"code": code, "name": code, "rate": FLAT, "zones": [{"countries": countries}]}
        await orders_app.container.shipping_methods().create(
            STAFF, NewShippingMethod.model_validate(method), attempt_without_key()
        )
    cart = await create_cart(orders_app, (tea, 1), shipping_address=ADDRESS)
    carts = orders_app.container.carts()

    in_the_netherlands = await carts.list_shipping_options(orders_app.buyer, cart.cart_id)
    germany = await change_cart(orders_app, cart, shipping_address={**ADDRESS, "country": "DE"})
    in_germany = await carts.list_shipping_options(orders_app.buyer, cart.cart_id)
    france = await change_cart(orders_app, cart, shipping_address={**ADDRESS, "country": "FR"})

    assert {option.code for option in in_the_netherlands.items} == {"courier", "post"}
    assert [(option.code, option.price.amount) for option in in_germany.items] == [("courier", 490)]
    assert germany.totals
    assert (germany.totals.shipping.amount, germany.totals.total.amount) == (490, 1490)
    assert germany.totals.shipping_line
    assert germany.totals.shipping_line.code == "courier"
    assert readiness(france) == [("orders.shipping_unavailable", "/shipping_method")]
    assert france.totals
    assert france.totals.total.amount == 1000


# Limits and expiry


async def test_cart_with_a_total_out_of_range_is_shown_without_it(orders_app: OrdersApp) -> None:
    yacht = orders_app.fake_inventory.add_product(999, amount=MAX_AMOUNT)

    cart = await create_cart(orders_app, (yacht, 999), shipping_address="Market 1")

    assert (cart.lines[0].unit_price, cart.lines[0].total) == (euros(MAX_AMOUNT), None)
    assert (cart.totals, readiness(cart)) == (None, [("orders.total_too_large", "/lines")])
    fewer = await set_line(orders_app, cart, yacht, 1)
    assert fewer.lines[0].total == euros(MAX_AMOUNT)


async def test_number_of_open_carts_is_limited(orders_app: OrdersApp) -> None:
    limit = orders_app.container.settings().max_open_carts_per_owner

    results = await gather(
        *(create_cart(orders_app) for _ in range(limit + 3)), return_exceptions=True
    )

    assert sum(isinstance(result, TooManyCarts) for result in results) == 3
    assert await create_cart(orders_app, ctx=guest_context())


async def test_unchanged_carts_are_deleted_after_their_retention(orders_app: OrdersApp) -> None:
    guest = guest_context()
    of_guest, of_customer = (
        await create_cart(orders_app, ctx=guest),
        await create_cart(orders_app, (orders_app.fake_inventory.add_product(1), 1)),
    )
    changed = await create_cart(orders_app, ctx=guest)
    orders_app.advance_clock(timedelta(days=29))
    await change_cart(orders_app, changed, guest, note="still here")
    orders_app.advance_clock(timedelta(days=2))

    await orders_app.run_periodic_jobs()

    with pytest.raises(CartNotFound):
        await get_cart(orders_app, of_guest, guest)
    assert await get_cart(orders_app, changed, guest)
    assert await get_cart(orders_app, of_customer)
    orders_app.advance_clock(timedelta(days=60))
    await orders_app.run_periodic_jobs()
    with pytest.raises(CartNotFound):
        await get_cart(orders_app, of_customer)
    assert of_customer.expires_at - of_customer.updated_at == timedelta(days=90)
