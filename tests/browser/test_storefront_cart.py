"""Test the cart of the example storefront in a real Chromium. The API has the cart."""

import re
from typing import Final

import pytest
from playwright.async_api import Browser, expect

from tests.browser.storefront_tab import WIDTHS, AddShirt, Storefront, Tab, opened_tab, second_tab

VOUCHER_ERROR: Final = "#voucher-message"


async def test_browser_stores_only_tokens_and_ids(tab: Tab) -> None:
    await tab.put_shirt_into_cart()

    stored = await tab.page.evaluate("JSON.stringify(localStorage)")
    assert await tab.stored_names() == ["storefront.buyer", "storefront.carts", "storefront.tokens"]
    assert "shirt" not in stored.lower()
    assert "quantity" not in stored


async def test_cart_survives_a_reload_and_counts_its_units(tab: Tab) -> None:
    page = tab.page
    await tab.put_shirt_into_cart()
    await page.get_by_role("button", name="Add to cart").click()
    await expect(page.get_by_role("link", name="Cart (2)")).to_be_visible()
    await tab.go("/cart.html")
    await page.reload()

    await expect(page.get_by_label("Quantity of Linen Shirt, white, M")).to_have_value("2")
    await page.get_by_label("Quantity of").fill("3")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Cart (3)")).to_be_visible()
    await page.get_by_role("button", name="Remove Linen Shirt, white, M").click()
    await expect(page.get_by_text("The cart is empty.")).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("The cart is empty.")).to_be_visible()
    await tab.check_view()
    assert tab.opened.errors == []


@pytest.mark.parametrize("width", WIDTHS)
async def test_voucher_is_used_explained_and_removed(
    chromium: Browser, shop: Storefront, width: int
) -> None:
    async with opened_tab(chromium, shop, width) as tab:
        page = tab.page
        await tab.put_shirt_into_cart()
        await tab.go("/cart.html")
        await page.get_by_label("Voucher").fill("NO-SUCH-CODE")
        await page.get_by_role("button", name="Use").click()
        await expect(page.locator(VOUCHER_ERROR)).to_have_text("There is no such voucher.")
        await tab.check_view()

        await page.get_by_label("Voucher").fill(" spring10 ")
        await page.get_by_role("button", name="Use").click()
        await expect(page.get_by_role("button", name="Remove the voucher")).to_be_focused()
        sums = page.locator(".sums")
        await expect(sums).to_contain_text("Spring (SPRING10)-€4.99")
        await expect(sums).to_contain_text("Shipping: Parcel€4.90")
        await expect(sums).to_contain_text("Total€49.81")
        await tab.check_view()
        await page.get_by_role("button", name="Remove the voucher").click()
        await expect(sums).to_contain_text("Total€54.80")


async def test_exhausted_and_unfit_vouchers_are_explained(tab: Tab) -> None:
    page, staff = tab.page, tab.shop.staff
    fields = {"name": "Never", "kind": "percent", "percent": "10"}
    large = {"min_total": [{"amount": 900_000, "currency": "EUR"}]}
    staff.post("/promotions", {**fields, "code": "LARGE", "conditions": large})
    staff.post("/promotions", {**fields, "code": "OVER", "ends_at": "2020-01-01T00:00:00Z"})
    await tab.put_shirt_into_cart()
    await tab.go("/cart.html")

    for code, text in (("LARGE", "too small"), ("OVER", "expired")):
        await page.get_by_label("Voucher").fill(code)
        await page.get_by_role("button", name="Use").click()
        await expect(page.locator(VOUCHER_ERROR)).to_contain_text(text)


async def test_changes_since_the_last_look_are_shown_once(tab: Tab, add_shirt: AddShirt) -> None:
    page, staff = tab.page, tab.shop.staff
    add_shirt("CHANGES")
    await tab.put_into_cart("changes", "CHANGES")
    await page.get_by_label("Quantity").fill("2")
    await page.get_by_role("button", name="Add to cart").click()
    await expect(page.get_by_role("link", name="Cart (3)")).to_be_visible()

    staff.change_product("CHANGES", price={"amount": 5990, "currency": "EUR"})
    staff.change_stock("CHANGES", -4)
    # another page reads the cart first, to show the number of units
    await tab.go("/")
    await expect(page.get_by_role("link", name="Cart (3)")).to_be_visible()
    await tab.go("/cart.html")

    changes = page.locator("#changes")
    await expect(changes).to_contain_text("Shirt CHANGES now costs €59.90. It was €49.90.")
    await expect(changes).to_contain_text("Only 1 of Shirt CHANGES are left.")
    await expect(page.get_by_text("Shirt CHANGES: 1 left, 3 in the cart.")).to_be_visible()
    await expect(page.get_by_role("link", name="Check out")).to_have_count(0)
    await tab.check_view()
    await page.reload()
    await expect(page.get_by_text("Only 1 left")).to_be_visible()
    await expect(changes).to_be_empty()


async def test_product_that_is_not_sold_any_more_can_be_removed(
    tab: Tab, add_shirt: AddShirt
) -> None:
    page, staff = tab.page, tab.shop.staff
    add_shirt("ARCHIVED")
    await tab.put_shirt_into_cart()
    await tab.put_into_cart("archived", "ARCHIVED")
    staff.change_product("ARCHIVED", status="archived")

    await tab.go("/cart.html")
    await expect(page.locator("#changes")).to_contain_text("Shirt ARCHIVED is not sold any more.")
    await tab.check_view()
    await page.get_by_role("button", name="Remove Shirt ARCHIVED").click()

    await expect(page.get_by_role("link", name="Check out")).to_be_visible()


async def test_two_tabs_change_one_cart(tab: Tab) -> None:
    page, other = tab.page, await second_tab(tab)
    await tab.put_shirt_into_cart()
    await tab.go("/cart.html")
    await expect(page.get_by_role("link", name="Cart (1)")).to_be_visible()
    await other.put_shirt_into_cart("L")
    await expect(other.page.get_by_role("link", name="Cart (2)")).to_be_visible()

    # the first tab still has the entity tag from before the change by the other tab
    await page.get_by_label("Quantity of Linen Shirt, white, M").fill("4")
    await page.keyboard.press("Tab")

    await expect(page.get_by_role("link", name="Cart (5)")).to_be_visible()
    await expect(page.get_by_label("Quantity of Linen Shirt, white, L")).to_have_value("1")
    await other.page.reload()
    await expect(other.page.get_by_role("link", name="Cart (5)")).to_be_visible()


async def test_first_products_of_two_tabs_are_in_one_cart(tab: Tab) -> None:
    other = await second_tab(tab)
    for one, size in ((tab, "M"), (other, "L")):
        await one.go(f"/product.html?slug=linen-shirt&sku=SHIRT-white-{size}")
        await expect(one.page.get_by_role("button", name="Add to cart")).to_be_visible()
    # both clicks happen before the first response
    for one in (tab, other):
        await one.page.get_by_role("button", name="Add to cart").click(no_wait_after=True)
    for one in (tab, other):
        await expect(one.page.get_by_text("is in the cart")).to_be_visible()

    await tab.go("/cart.html")
    await expect(tab.page.get_by_role("link", name="Cart (2)")).to_be_visible()


async def test_server_that_does_not_respond_is_explained_and_asked_again(tab: Tab) -> None:
    page = tab.page
    await tab.put_shirt_into_cart()
    api = re.compile(rf"^{re.escape(tab.shop.api)}/")
    await page.route(api, lambda route: route.abort())
    for path in ("/", "/product.html?slug=linen-shirt", "/cart.html", "/checkout.html"):
        await tab.go(path)
        await expect(tab.alert).to_contain_text("cannot be reached from this page")
        await tab.check_view()

    await page.unroute(api)
    await page.get_by_role("button", name="Try again").click()
    await expect(tab.place).to_be_visible()


async def test_damaged_storage_counts_as_no_cart(tab: Tab) -> None:
    await tab.put_shirt_into_cart()
    for stored in ("{", "7", "null", '{"a": 5}'):
        await tab.page.evaluate("text => localStorage.setItem('storefront.carts', text)", stored)
        await tab.go("/cart.html")
        await expect(tab.page.get_by_text("The cart is empty.")).to_be_visible()
    await tab.put_shirt_into_cart()
    await expect(tab.page.get_by_role("link", name="Cart (1)")).to_be_visible()


async def test_ended_session_of_a_guest_begins_a_new_cart(tab: Tab) -> None:
    await tab.put_shirt_into_cart()
    tokens = '{"access_token": "ended", "refresh_token": "ended"}'
    await tab.page.evaluate("text => localStorage.setItem('storefront.tokens', text)", tokens)
    await tab.go("/cart.html")
    await expect(tab.page.get_by_text("The cart is empty.")).to_be_visible()

    await tab.put_shirt_into_cart()
    await expect(tab.page.get_by_role("link", name="Cart (1)")).to_be_visible()
