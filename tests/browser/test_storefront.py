"""Test the list and the product page of the example storefront in a real Chromium."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser.storefront_process import XSS_NAME, running_storefront
from tests.browser.storefront_tab import Storefront, Tab, opened_tab
from tests.e2e.servers import free_port


async def test_facets_take_several_values_and_can_be_removed(tab: Tab) -> None:
    page = tab.page
    await tab.go("/")

    await page.get_by_label("shirts (1)").check()
    await page.get_by_label("kitchen (2)").check()
    await expect(page.locator(".card")).to_have_count(3)
    await page.get_by_role("button", name="Remove Category: Shirts").click()
    await expect(page.locator(".card")).to_have_count(2)
    await page.reload()
    await expect(page.locator(".card")).to_have_count(2)
    await page.go_back()

    await expect(page.locator(".card")).to_have_count(3)
    assert tab.opened.errors == []


async def test_second_filter_does_not_wait_for_the_list_of_the_first(tab: Tab) -> None:
    page = tab.page
    await tab.go("/")
    boxes = [page.get_by_label(label) for label in ("shirts (1)", "kitchen (2)")]
    handles = [await box.element_handle() for box in boxes]

    await page.evaluate("boxes => boxes.forEach(box => box.click())", handles)

    await expect(page.locator(".card")).to_have_count(3)
    assert tab.opened.errors == []


async def test_text_that_is_entered_while_the_page_loads_is_kept(tab: Tab) -> None:
    page, is_entered = tab.page, asyncio.Event()

    async def wait_for_entry(route: Route) -> None:
        await is_entered.wait()
        await route.continue_()

    await page.route("**/config.json", wait_for_entry)
    await tab.go("/")
    await page.get_by_label("Search products").fill("linen")
    is_entered.set()
    await expect(page.locator(".card")).to_have_count(4)
    await page.get_by_role("button", name="Search").click()

    await expect(page.locator(".card")).to_have_count(1)


@pytest.mark.parametrize(
    ("path", "selector"),
    [
        ("/sign-in.html", "#account button"),
        ("/find-order.html", "#lookup button"),
        ("/", "#sort"),
    ],
)
async def test_control_is_disabled_until_its_module_has_run(
    tab: Tab, path: str, selector: str
) -> None:
    page, is_checked = tab.page, asyncio.Event()

    async def wait_for_check(route: Route) -> None:
        await is_checked.wait()
        await route.continue_()

    await page.route("**/config.json", wait_for_check)
    await tab.go(path)
    await expect(page.locator(selector)).to_be_disabled()
    is_checked.set()

    await expect(page.locator(selector)).to_be_enabled()
    assert tab.opened.errors == []


async def test_search_without_result_says_so(tab: Tab) -> None:
    await tab.go("/?q=nothing-like-this")

    await expect(tab.page.get_by_text("No product has all of these filters")).to_be_visible()
    await tab.check_view()
    assert tab.opened.errors == []


async def test_markup_in_texts_of_products_is_shown_as_text(tab: Tab) -> None:
    page = tab.page
    await tab.go("/?category=kitchen")
    await expect(page.get_by_role("link", name=XSS_NAME)).to_be_visible()
    await page.get_by_role("link", name=XSS_NAME).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(XSS_NAME)
    await page.get_by_role("button", name="Add to cart").click()
    await page.get_by_role("link", name="Go to the cart").click()
    await expect(page.get_by_role("link", name=XSS_NAME)).to_be_visible()

    assert await page.locator("img").count() == 0
    assert "attacked" not in await page.title()
    assert tab.opened.errors == []


async def test_picture_comes_from_the_api(tab: Tab) -> None:
    await tab.go("/?q=teapot")
    await tab.page.get_by_role("link", name="Teapot").click()
    await tab.page.wait_for_url("**/product.html?*")
    picture = tab.page.get_by_role("img", name="Teapot")

    await expect(picture).to_be_visible()
    await expect(picture).to_have_js_property("naturalWidth", 320)
    await tab.check_view()
    assert tab.origins == {tab.shop.origin, tab.shop.api}
    assert tab.opened.errors == []


async def test_product_without_stock_cannot_be_bought(tab: Tab) -> None:
    await tab.go("/product.html?slug=linen-shirt&sku=SHIRT-blue-L")

    await expect(tab.page.get_by_text("Sold out", exact=True)).to_be_visible()
    await expect(tab.page.get_by_role("button", name="Add to cart")).to_have_count(0)
    await expect(tab.page.get_by_text("L (sold out)")).to_be_visible()


async def test_unknown_product_and_order_are_explained(tab: Tab) -> None:
    await tab.go("/product.html?slug=no-such-product")
    await expect(tab.page.get_by_text("There is no such product")).to_be_visible()
    await tab.check_view()

    await tab.go("/order.html?id=01a22db0-28fa-70bc-97d8-fd9cda601d47")
    await expect(tab.page.get_by_text("You are not signed in")).to_be_visible()


async def test_prices_have_the_exponent_of_their_currency(tab: Tab) -> None:
    await tab.go("/cart.html")
    script = """async () => {
      const { formatMoney } = await import("/modules/money.js");
      const currencies = ["EUR", "JPY", "KWD", "AFN"];
      return currencies.map((currency) => formatMoney({ amount: 123456, currency }));
    }"""

    shown: list[Any] = await tab.page.evaluate(script)

    assert [text.replace("\xa0", " ") for text in shown] == [
        "€1,234.56",
        "¥123,456",
        "KWD 123.456",
        "AFN 1,234.56",
    ]


async def test_command_and_page_say_when_the_api_refuses_the_origin(
    chromium: Browser, shop: Storefront, scratch: Path
) -> None:
    folder = scratch / "refused-storefront"
    folder.mkdir()
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    with running_storefront(folder, port, shop.api) as output:
        assert f"refuses the pages of {origin}" in output.read_text()
        async with opened_tab(chromium, replace(shop, origin=origin, output=output)) as tab:
            await tab.go("/")
            alert = tab.page.get_by_role("alert")
            await expect(alert).to_contain_text(f"MARKETHALL_CORS_ORIGINS={origin}")

    assert f"MARKETHALL_CORS_ORIGINS={origin}" in output.read_text()


async def test_command_tells_the_addresses(shop: Storefront) -> None:
    lines = shop.output.read_text().splitlines()

    assert lines[0] == f"Storefront: {shop.origin}"
    assert lines[1] == f"API: {shop.api}, which needs MARKETHALL_CORS_ORIGINS={shop.origin}"
    assert "refuses" not in shop.output.read_text()
