"""A page of the example storefront, with the actions of a buyer as methods."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

import httpx2
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Locator, Page, Route, expect

from tests.browser.chromium import OpenPage, opened_page
from tests.browser.storefront_process import Staff, add_prices, add_products

WIDTHS: Final = (1280, 400)
PASSWORD: Final = "a long and quiet sentence"
EMAIL: Final = "ada@example.com"
ADDRESS: Final = {
    "Name": "Ada Lovelace",
    "Street and number": "1 Market Square",
    "Postal code": "10115",
    "City": "Berlin",
}


class AddShirt(Protocol):
    def __call__(self, sku: str, *, stock: int = 5) -> None: ...


@dataclass(frozen=True)
class Storefront:
    """The addresses of the pages and of the API, the staff, and the output of the command.

    `read_log` returns the log of the API as JSON lines.
    """

    origin: str
    api: str
    staff: Staff
    output: Path
    read_log: Callable[[], str]


def filled_storefront(
    origin: str, api: str, output: Path, read_log: Callable[[], str]
) -> Storefront:
    """Return the storefront of a shop with products, shipping methods and a voucher."""
    staff = Staff(api)
    add_products(staff)
    add_prices(staff)
    return Storefront(origin, api, staff, output, read_log)


@dataclass
class Tab:
    """A page of the storefront, and the origins of all requests that it has sent."""

    opened: OpenPage
    shop: Storefront
    origins: set[str] = field(default_factory=set)

    @property
    def page(self) -> Page:
        return self.opened.page

    @property
    def alert(self) -> Locator:
        return self.page.get_by_role("alert")

    @property
    def place(self) -> Locator:
        return self.page.get_by_role("button", name="Place the order")

    async def go(self, path: str) -> None:
        await self.page.goto(self.shop.origin + path)

    async def check_accessibility(self) -> None:
        """Assert that axe finds no serious or critical problem."""
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
        await self.put_into_cart("linen-shirt", f"SHIRT-white-{size}")

    async def put_into_cart(self, slug: str, sku: str) -> None:
        await self.go(f"/product.html?slug={slug}&sku={sku}")
        await self.page.get_by_role("button", name="Add to cart").click()
        await expect(self.page.get_by_text("is in the cart")).to_be_visible()

    async def open_checkout(self) -> None:
        await self.go("/checkout.html")
        await expect(self.place).to_be_visible()

    async def fill_email(self, email: str = EMAIL) -> None:
        await self.page.get_by_label("E-mail", exact=True).fill(email)

    async def fill_address(self) -> None:
        """Fill in the address, and wait until the shipping options for it are shown."""
        for label, value in ADDRESS.items():
            await self.page.get_by_label(label, exact=True).fill(value)
        await self.page.get_by_label("Country").select_option("DE")
        await expect(self.page.get_by_label("Parcel")).to_be_checked()

    async def place_order(self) -> None:
        await self.place.click()
        await self.page.wait_for_url("**/order.html?id=*")

    async def order_shirt(self) -> None:
        """Order a shirt as a guest, and wait for the page of the order."""
        await self.put_shirt_into_cart()
        await self.open_checkout()
        await self.fill_email()
        await self.fill_address()
        await self.place_order()

    async def sign_in_by_header(self, name: str) -> None:
        """Sign in from the page that is open, and wait until it is open again."""
        await self.page.locator("#account-links").get_by_role("link", name="Sign in").click()
        await self.page.get_by_label("User name or e-mail").fill(name)
        await self.page.get_by_label("Password").fill(PASSWORD)
        await self.page.get_by_role("button", name="Sign in").click()
        await expect(self.page.locator("#account-links")).to_contain_text(name)

    async def sign_in(self, name: str) -> None:
        await self.open_checkout()
        await self.fill_credentials(name, PASSWORD)
        await expect(self.page.get_by_text(f"You buy as {name}.")).to_be_visible()

    async def fill_credentials(self, name: str, password: str) -> None:
        """Enter the credentials at the checkout, and click the button."""
        await self.page.get_by_label("Sign in").check()
        await self.page.get_by_label("User name or e-mail").fill(name)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Sign in").click()

    async def pay(self) -> None:
        await self.page.get_by_role("button", name="Pay").click()
        await expect(self.page.locator("#status")).to_have_text("Paid. We prepare your order.")

    async def order_paid_shirt(self) -> str:
        """Order a shirt and pay it. Return the path of the order in the API."""
        await self.order_shirt()
        await self.pay()
        return f"/orders/{parse_qs(urlsplit(self.page.url).query)['id'][0]}"

    async def deliver(self, path: str) -> None:
        """Ship and deliver the whole order, and wait until the page shows it."""
        staff = self.shop.staff
        shipment = staff.post(f"{path}/fulfilments", {"carrier": "DHL"})
        staff.post(f"/fulfilments/{shipment['fulfilment_id']}/deliver", {}, 200)
        await expect(self.page.locator("#status")).to_have_text("Your order has been delivered.")

    async def count_orders(self) -> int:
        count: int = await self.page.evaluate(_COUNT_ORDERS)
        return count

    async def stored_names(self) -> list[str]:
        """Return the names of the values in the local storage, sorted."""
        names: list[str] = await self.page.evaluate("Object.keys(localStorage).sort()")
        return names


_COUNT_ORDERS: Final = """
async () => {
  const { read } = await import("/modules/api.js");
  return (await read("/orders")).items.length;
}
"""


def new_account(shop: Storefront) -> str:
    """Create an account, and return its name."""
    name = f"grace_{secrets.token_hex(4)}"
    account = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    httpx2.post(f"{shop.api}/users", json=account, timeout=60).raise_for_status()
    return name


async def lose_response(route: Route) -> None:
    """Let the API handle the request, and abort it for the page."""
    await route.fetch()
    await route.abort()


@asynccontextmanager
async def opened_tab(browser: Browser, shop: Storefront, width: int = 1280) -> AsyncIterator[Tab]:
    async with opened_page(browser, width) as opened:
        yield watched_tab(opened, shop)


def watched_tab(opened: OpenPage, shop: Storefront) -> Tab:
    tab = Tab(opened, shop)
    opened.page.on("request", lambda request: tab.origins.add(origin_of(request.url)))
    return tab


async def second_tab(tab: Tab) -> Tab:
    """Open another tab of the same browser profile: it has the same local storage."""
    opened = OpenPage(await tab.page.context.new_page())
    return watched_tab(opened, tab.shop)


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
