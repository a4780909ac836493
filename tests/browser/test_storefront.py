"""Test the example storefront in a real Chromium, with the API on another origin."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, Route, expect

from tests.browser.chromium import OpenPage, opened_page
from tests.browser.storefront_process import XSS_NAME, add_products, running_storefront
from tests.e2e.servers import RunningServer, free_port, running

WIDTHS: Final = (1280, 400)
ADDRESS: Final = {
    "Name": "Ada Lovelace",
    "Street and number": "1 Market Square",
    "Postal code": "10115",
    "City": "Berlin",
}


@dataclass
class Storefront:
    """The address of the pages, that of the API, and the output of the command."""

    origin: str
    api: str
    output: Path


@dataclass
class Tab:
    """A page of the storefront, and the origins of all requests that it has sent."""

    opened: OpenPage
    shop: Storefront
    origins: set[str] = field(default_factory=set)

    @property
    def page(self) -> Page:
        return self.opened.page

    async def go(self, path: str) -> None:
        await self.page.goto(self.shop.origin + path)

    async def check_accessibility(self) -> None:
        """Assert that axe finds nothing serious or critical."""
        results = await Axe().run(self.page)
        found = results.response["violations"]
        serious = [one for one in found if one["impact"] in {"serious", "critical"}]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious] == []

    async def check_width(self) -> None:
        """Assert that nothing is wider than the page."""
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await self.page.evaluate(width) == 0

    async def check_view(self) -> None:
        await self.check_accessibility()
        await self.check_width()

    async def put_shirt_into_cart(self, size: str = "M") -> None:
        await self.go(f"/product.html?slug=linen-shirt&sku=SHIRT-white-{size}")
        await self.page.get_by_role("button", name="Add to cart").click()
        await expect(self.page.get_by_text("is in the cart")).to_be_visible()

    async def fill_address(self) -> None:
        for label, value in ADDRESS.items():
            await self.page.get_by_label(label, exact=True).fill(value)
        await self.page.get_by_label("Country").select_option("DE")

    async def place_order(self) -> None:
        await self.page.get_by_role("button", name="Place the order").click()
        await self.page.wait_for_url("**/order.html?id=*")


@pytest.fixture(scope="module")
def shop(scratch: Path) -> Iterator[Storefront]:
    folder = scratch / "storefront"
    folder.mkdir()
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    settings = {"MARKETHALL_DATA_DIR": str(folder), "MARKETHALL_CORS_ORIGINS": origin}
    with running(folder, settings, "--memory") as server:
        add_products(server)
        api = api_address(server)
        with running_storefront(folder, port, api) as output:
            yield Storefront(origin, api, output)


def api_address(server: RunningServer) -> str:
    return server.url("/").removesuffix("/")


@asynccontextmanager
async def opened_tab(browser: Browser, shop: Storefront, width: int = 1280) -> AsyncIterator[Tab]:
    async with opened_page(browser, width) as opened:
        tab = Tab(opened, shop)
        opened.page.on("request", lambda request: tab.origins.add(origin_of(request.url)))
        yield tab


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@pytest.fixture
async def tab(chromium: Browser, shop: Storefront) -> AsyncIterator[Tab]:
    async with opened_tab(chromium, shop) as found:
        yield found


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
        await page.get_by_label("E-mail", exact=True).fill("ada@example.com")
        await tab.fill_address()
        await tab.check_view()
        await tab.place_order()
        status = page.get_by_role("status").first
        await expect(status).to_have_text("We wait for your payment.")
        await expect(page.get_by_label("Sandbox ok")).to_be_checked()
        await tab.check_view()
        await page.get_by_role("button", name="Pay €49.90").click()
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
    await expect(tab.page.get_by_text("Subtotal €49.90")).to_be_visible()
    await expect(tab.page.get_by_role("link", name="Cart (1)")).to_be_visible()
    await tab.check_view()


async def test_facets_take_several_values_and_can_be_removed(tab: Tab) -> None:
    page = tab.page
    await tab.go("/")
    await expect(page.locator(".card")).to_have_count(4)

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


async def test_customer_signs_in_orders_and_signs_out(tab: Tab) -> None:
    page, password = tab.page, "a long and quiet sentence"
    account = {"username": "grace", "email": "grace@example.com", "password": password}
    httpx2.post(f"{tab.shop.api}/users", json=account).raise_for_status()
    await tab.put_shirt_into_cart()
    await tab.go("/checkout.html")
    await page.get_by_label("Sign in").check()
    await expect(page.get_by_label("E-mail", exact=True)).to_be_hidden()
    await tab.check_view()
    await tab.fill_address()

    await page.get_by_label("User name or e-mail").fill("grace")
    await page.get_by_label("Password").fill("not her password")
    await page.get_by_role("button", name="Place the order").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await page.get_by_label("Password").fill(password)
    await tab.place_order()
    await expect(page.get_by_text("Messages go to grace@example.com")).to_be_visible()

    await tab.put_shirt_into_cart()
    await tab.go("/checkout.html")
    await expect(page.get_by_text("You buy as grace.")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Buy as a guest")).to_be_visible()


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


async def test_checkout_shows_what_is_missing_and_what_the_api_refuses(tab: Tab) -> None:
    page = tab.page
    await tab.put_shirt_into_cart()
    await tab.go("/checkout.html")

    await page.get_by_role("button", name="Place the order").click()
    await expect(page.get_by_text("Fill in this field.")).to_have_count(6)
    await expect(page.get_by_label("E-mail", exact=True)).to_be_focused()
    await tab.check_view()
    await page.get_by_label("E-mail", exact=True).fill("not an address")
    await tab.fill_address()
    await page.get_by_role("button", name="Place the order").click()

    await expect(page.locator("#email")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_role("alert")).to_be_focused()
    await tab.check_view()


async def test_order_of_too_many_units_names_the_product(tab: Tab) -> None:
    page = tab.page
    await tab.put_shirt_into_cart("S")
    await tab.go("/checkout.html")
    await page.get_by_label("E-mail", exact=True).fill("ada@example.com")
    await tab.fill_address()
    await page.evaluate(MORE_UNITS)
    await page.reload()
    await page.get_by_label("E-mail", exact=True).fill("ada@example.com")
    await tab.fill_address()
    await page.get_by_role("button", name="Place the order").click()

    await expect(page.get_by_text("Linen Shirt, white, S: 2 left, 900 in the cart")).to_be_visible()
    await page.get_by_role("link", name="Change the cart").click()
    await expect(page.get_by_text("Only 2 left")).to_be_visible()
    await tab.check_view()


MORE_UNITS: Final = """
() => {
  const [line] = JSON.parse(localStorage.getItem("storefront.cart"));
  localStorage.setItem("storefront.cart", JSON.stringify([{ ...line, quantity: 900 }]));
}
"""


async def test_repeated_click_after_lost_responses_places_one_order(tab: Tab) -> None:
    page = tab.page
    await tab.put_shirt_into_cart()
    await tab.go("/checkout.html")
    await page.get_by_label("E-mail", exact=True).fill("ada@example.com")
    await tab.fill_address()
    orders = re.compile(rf"{re.escape(tab.shop.api)}/orders$")

    await page.route(orders, lose_response)
    await page.get_by_role("button", name="Place the order").click()
    await expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    await page.unroute(orders)
    await tab.place_order()

    assert await page.evaluate(COUNT_ORDERS) == 1


async def lose_response(route: Route) -> None:
    """Let the API place the order, and abort the request of the page."""
    await route.fetch()
    await route.abort()


COUNT_ORDERS: Final = """
async () => {
  const { read } = await import("/modules/api.js");
  return (await read("/orders")).items.length;
}
"""


async def test_declined_payment_can_be_repeated_with_another_method(tab: Tab) -> None:
    page = tab.page
    await tab.put_shirt_into_cart()
    await tab.go("/checkout.html")
    await page.get_by_label("E-mail", exact=True).fill("ada@example.com")
    await tab.fill_address()
    await tab.place_order()

    await page.get_by_label("Sandbox declined").check()
    await page.get_by_role("button", name="Pay").click()
    await expect(page.get_by_text("the payment was declined")).to_be_visible()
    await tab.check_view()
    await page.get_by_label("Sandbox ok").check()
    await page.get_by_role("button", name="Pay").click()

    await expect(page.get_by_role("status").first).to_have_text("Paid. We prepare your order.")


async def test_damaged_cart_of_the_browser_counts_as_empty(tab: Tab) -> None:
    await tab.go("/cart.html")
    for stored in ("{", "7", '[null, {"product_id": 5}]'):
        await tab.page.evaluate("text => localStorage.setItem('storefront.cart', text)", stored)
        await tab.page.reload()
        await expect(tab.page.get_by_text("The cart is empty.")).to_be_visible()

    await tab.check_view()
    assert tab.opened.errors == []


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
        async with opened_tab(chromium, Storefront(origin, shop.api, output)) as tab:
            await tab.go("/")
            alert = tab.page.get_by_role("alert")
            await expect(alert).to_contain_text(f"MARKETHALL_CORS_ORIGINS={origin}")

    assert f"MARKETHALL_CORS_ORIGINS={origin}" in output.read_text()


async def test_command_tells_the_addresses(shop: Storefront) -> None:
    lines = shop.output.read_text().splitlines()

    assert lines[0] == f"Storefront: {shop.origin}"
    assert lines[1] == f"API: {shop.api}, which needs MARKETHALL_CORS_ORIGINS={shop.origin}"
    assert "refuses" not in shop.output.read_text()
