"""Test the checkout of the example storefront in a real Chromium."""

import re
import secrets
from typing import Any, Final

import pytest
from playwright.async_api import Browser, expect

from tests.browser.storefront_process import Staff
from tests.browser.storefront_tab import (
    EMAIL,
    PASSWORD,
    WIDTHS,
    AddShirt,
    Storefront,
    Tab,
    lose_response,
    new_account,
    opened_tab,
    second_tab,
)

TIMES: Final = "\N{MULTIPLICATION SIGN}"


@pytest.mark.parametrize("width", WIDTHS)
async def test_guest_finds_filters_chooses_orders_and_pays(
    chromium: Browser, shop: Storefront, width: int
) -> None:
    async with opened_tab(chromium, shop, width) as tab:
        page = tab.page
        await find_shirt(tab)
        await choose_medium(tab)
        await expect_cart(tab)
        await page.get_by_role("link", name="Check out").click()
        await tab.fill_email()
        await tab.fill_address()
        await page.get_by_label("Express").check()
        await expect(tab.place).to_have_text("Place the order for €62.80")
        await expect(page.locator(".sums")).to_contain_text("includes VAT 19 %€7.97")
        await tab.check_view()
        await tab.place_order()
        status = page.get_by_role("status").first
        await expect(status).to_have_text("We wait for your payment.")
        await expect(page.get_by_label("Sandbox ok")).to_be_checked()
        await tab.check_view()
        await page.get_by_role("button", name="Pay €62.80").click()
        await expect(status).to_have_text("Paid. We prepare your order.", timeout=30_000)
        await expect(page.get_by_role("button", name="Pay")).to_be_hidden()
        await tab.check_view()

    assert tab.opened.errors == []
    assert tab.origins == {shop.origin, shop.api}


async def find_shirt(tab: Tab) -> None:
    page = tab.page
    await tab.go("/")
    await page.get_by_label("Search products").fill("linen")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator(".card")).to_have_count(1)
    filters = page.get_by_text("Filters", exact=True)
    if await filters.is_visible():
        await filters.click()
    await page.get_by_label("blue (1)").check()
    await expect(page.get_by_role("button", name="Remove Colour: blue")).to_be_visible()
    await tab.check_view()
    await page.get_by_role("link", name="Linen Shirt").click()


async def choose_medium(tab: Tab) -> None:
    page = tab.page
    await page.get_by_role("radio", name="M", exact=True).check()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(", M")
    await expect(page.get_by_text("In stock", exact=True)).to_be_visible()
    await tab.check_view()
    await page.get_by_role("button", name="Add to cart").click()
    await page.get_by_role("link", name="Go to the cart").click()


async def expect_cart(tab: Tab) -> None:
    await expect(tab.page.locator(".sums")).to_contain_text("Subtotal€49.90")
    await expect(tab.page.get_by_role("link", name="Cart (1)")).to_be_visible()
    await tab.check_view()


async def test_reload_and_back_keep_what_was_entered(tab: Tab) -> None:
    page = tab.page
    await tab.put_shirt_into_cart()
    await tab.go("/cart.html")
    await page.get_by_role("link", name="Check out").click()
    await tab.fill_email()
    await tab.fill_address()
    await page.get_by_label("Express").check()
    await expect(tab.place).to_have_text("Place the order for €62.80")

    await page.reload()
    await expect(page.get_by_label("Express")).to_be_checked()
    await expect(page.get_by_label("City")).to_have_value("Berlin")
    await expect(page.get_by_label("E-mail", exact=True)).to_have_value(EMAIL)
    await page.go_back()
    await expect(page.get_by_role("heading", name="Cart")).to_be_visible()
    await page.go_forward()
    await expect(tab.place).to_have_text("Place the order for €62.80")
    await tab.place_order()
    await page.reload()
    await expect(page.get_by_role("button", name="Pay €62.80")).to_be_visible()
    await page.go_back()

    await expect(page.get_by_text("You have ordered this cart.")).to_be_visible()
    await tab.check_view()
    await page.get_by_role("link", name="See your order").click()
    await expect(page.get_by_role("button", name="Pay €62.80")).to_be_visible()
    assert await tab.count_orders() == 1


async def test_double_click_places_one_order(tab: Tab) -> None:
    sent: list[str] = []
    tab.page.on("request", lambda request: sent.append(f"{request.method} {request.url}"))
    await tab.put_shirt_into_cart()
    await tab.open_checkout()
    await tab.fill_email()
    await tab.fill_address()

    await tab.place.dblclick()
    await tab.page.wait_for_url("**/order.html?id=*")

    assert len([one for one in sent if re.match(r"POST .*/checkout$", one)]) == 1
    assert await tab.count_orders() == 1


async def test_repeated_click_after_lost_responses_places_one_order(tab: Tab) -> None:
    page = tab.page
    await tab.put_shirt_into_cart()
    await tab.open_checkout()
    await tab.fill_email()
    await tab.fill_address()
    checkouts = re.compile(rf"{re.escape(tab.shop.api)}/carts/[^/]+/checkout$")

    await page.route(checkouts, lose_response)
    await tab.place.click()
    await expect(tab.alert).to_contain_text("cannot be reached")
    await page.unroute(checkouts)
    await tab.place_order()

    assert await tab.count_orders() == 1


async def test_orders_of_two_tabs_are_one_order(tab: Tab) -> None:
    other = await second_tab(tab)
    await tab.put_shirt_into_cart()
    await tab.open_checkout()
    await tab.fill_email()
    await tab.fill_address()
    await other.open_checkout()
    await expect(other.page.get_by_label("Parcel")).to_be_checked()

    await tab.place_order()
    await other.place.click()

    await expect(other.page.get_by_text("You have ordered this cart.")).to_be_visible()
    assert await tab.count_orders() == 1


async def test_changed_total_is_shown_before_the_order(tab: Tab, add_shirt: AddShirt) -> None:
    page, staff = tab.page, tab.shop.staff
    add_shirt("DEARER")
    await tab.put_into_cart("dearer", "DEARER")
    await tab.open_checkout()
    await tab.fill_email()
    await tab.fill_address()
    staff.change_product("DEARER", price={"amount": 5990, "currency": "EUR"})

    await tab.place.click()
    await expect(tab.alert).to_contain_text("The total is now €64.80.")
    await expect(tab.alert).to_be_focused()
    await expect(page.locator("#changes")).to_contain_text("now costs €59.90")
    await tab.check_view()
    await expect(tab.place).to_have_text("Place the order for €64.80")
    await tab.place_order()

    await expect(page.get_by_role("button", name="Pay €64.80")).to_be_visible()


async def test_cart_that_another_tab_changes_is_not_ordered_unseen(tab: Tab) -> None:
    other = await second_tab(tab)
    await tab.put_shirt_into_cart()
    await tab.open_checkout()
    await tab.fill_email()
    await tab.fill_address()
    await other.put_shirt_into_cart()

    await tab.place.click()
    await expect(tab.alert).to_contain_text("The total is now €104.70.")
    assert await tab.count_orders() == 0
    await tab.place_order()

    await expect(tab.page.get_by_text(f"2 {TIMES} Linen Shirt, white, M")).to_be_visible()


async def test_checkout_shows_what_is_missing_and_what_the_api_refuses(tab: Tab) -> None:
    page = tab.page
    await tab.put_shirt_into_cart()
    await tab.open_checkout()

    await tab.place.click()
    await expect(page.get_by_text("Fill in this field.")).to_have_count(6)
    await expect(page.get_by_label("E-mail", exact=True)).to_be_focused()
    await tab.check_view()
    await tab.fill_email("not an address")
    await page.keyboard.press("Tab")
    # the error message of the input does not move the focus away from the next input
    await expect(page.locator("#email")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_label("Name", exact=True)).to_be_focused()
    await tab.fill_email()
    await tab.fill_address()
    await expect(page.locator("#email[aria-invalid]")).to_have_count(0)


async def test_order_of_too_many_units_names_the_product(tab: Tab, add_shirt: AddShirt) -> None:
    page, staff = tab.page, tab.shop.staff
    add_shirt("FEW", stock=2)
    await tab.put_into_cart("few", "FEW")
    await tab.open_checkout()
    await tab.fill_email()
    await tab.fill_address()
    staff.change_stock("FEW", -2)

    await tab.place.click()
    await expect(page.locator("#problems")).to_contain_text("Shirt FEW is sold out.")
    await tab.check_view()
    await page.get_by_role("link", name="Change the cart").click()
    await expect(page.get_by_text("Sold out", exact=True)).to_be_visible()
    assert await tab.count_orders() == 0


async def test_country_that_is_not_served_is_explained(tab: Tab) -> None:
    page, staff = tab.page, tab.shop.staff
    await tab.put_shirt_into_cart()
    await tab.open_checkout()
    await tab.fill_email()
    await tab.fill_address()
    limit_methods(staff, [{"countries": ["DE"]}])
    try:
        await page.get_by_label("Country").select_option("JP")
        await expect(page.locator("#problems")).to_contain_text("shipping method")
        await tab.check_view()
        await tab.place.click()
        await page.get_by_label("Country").select_option("DE")
        await expect(page.get_by_label("Parcel")).to_be_checked()
        assert await tab.count_orders() == 0
    finally:
        limit_methods(staff, [])


def limit_methods(staff: Staff, zones: list[dict[str, Any]]) -> None:
    for method in staff.get("/shipping-methods").json()["items"]:
        staff.patch(f"/shipping-methods/{method['shipping_method_id']}", zones=zones)


async def test_customer_signs_in_orders_and_signs_out(tab: Tab) -> None:
    page, name = tab.page, new_account(tab.shop)
    await tab.put_shirt_into_cart()
    await tab.open_checkout()
    await page.get_by_label("Sign in").check()
    # the button that orders is hidden until the sign-in
    await expect(tab.place).to_be_hidden()
    await tab.check_view()

    await tab.fill_credentials(name, "not her password")
    await expect(tab.alert).to_be_visible()
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text(f"You buy as {name}.")).to_be_visible()
    await expect(page.get_by_label("E-mail", exact=True)).to_be_hidden()
    await tab.check_view()
    await tab.fill_address()
    await tab.place_order()
    await expect(page.get_by_text(f"Messages go to {name}@example.com")).to_be_visible()

    await tab.put_shirt_into_cart("L")
    await tab.open_checkout()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_text("The cart is empty.")).to_be_visible()


async def test_sign_in_merges_the_carts_and_claims_the_orders_of_the_guest(tab: Tab) -> None:
    page, name = tab.page, new_account(tab.shop)
    await tab.put_shirt_into_cart("L")
    await tab.sign_in(name)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_text("The cart is empty.")).to_be_visible()
    await tab.order_shirt()
    await tab.put_shirt_into_cart()

    await tab.sign_in(name)

    summary = page.get_by_label("Your order")
    await expect(summary).to_contain_text(f"1 {TIMES} Linen Shirt, white, L")
    await expect(summary).to_contain_text(f"1 {TIMES} Linen Shirt, white, M")
    await expect(page.get_by_label("City")).to_have_value("")
    assert await tab.stored_names() == ["storefront.buyer", "storefront.carts", "storefront.tokens"]
    # an event changes the owner of the order soon after the response
    while await tab.count_orders() == 0:
        await page.reload()
    assert await tab.count_orders() == 1


async def test_takeover_continues_after_a_lost_response(tab: Tab) -> None:
    page, name = tab.page, new_account(tab.shop)
    await tab.put_shirt_into_cart()
    await tab.open_checkout()
    merges = re.compile(rf"{re.escape(tab.shop.api)}/carts/[^/]+/merge$")
    await page.route(merges, lose_response)
    await tab.fill_credentials(name, PASSWORD)
    await expect(tab.alert).to_contain_text("cannot be reached")

    await page.unroute(merges)
    await page.reload()

    await expect(page.get_by_label("Your order")).to_contain_text(
        f"1 {TIMES} Linen Shirt, white, M"
    )
    assert await tab.stored_names() == ["storefront.buyer", "storefront.carts", "storefront.tokens"]


async def test_guest_creates_an_account_and_keeps_the_cart(tab: Tab) -> None:
    page, name = tab.page, f"mary_{secrets.token_hex(4)}"
    await tab.put_shirt_into_cart()
    await tab.open_checkout()
    await page.get_by_label("Create an account").check()
    await page.get_by_role("button", name="Create the account").click()
    await expect(page.get_by_text("Fill in this field.")).to_have_count(3)
    await tab.check_view()
    await page.get_by_label("User name").fill(name)
    await page.get_by_label("E-mail of the account").fill(f"{name}@example.com")
    await page.get_by_label("Password").fill("short")
    await page.get_by_role("button", name="Create the account").click()
    await expect(page.get_by_text("The password is too short.")).to_be_visible()
    await expect(page.get_by_label("Password")).to_be_focused()
    await tab.check_view()
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Create the account").click()

    await expect(page.get_by_text(f"You buy as {name}.")).to_be_visible()
    await tab.fill_address()
    await tab.place_order()
    await expect(page.get_by_text(f"Messages go to {name}@example.com")).to_be_visible()
