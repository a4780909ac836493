"""Test in a real Chromium that buyers find an order by its number and e-mail address."""

import asyncio
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, expect

from tests.browser.storefront_tab import EMAIL, WIDTHS, Storefront, Tab, opened_tab

TIMEOUT_SECONDS = 60


def logged_links(shop: Storefront, order_id: str) -> list[str]:
    lines = [line for line in shop.read_log().splitlines() if "order.link_issued" in line]
    found = [json.loads(line) for line in lines]
    return [line["link"] for line in found if line["order_id"] == order_id]


async def new_link(shop: Storefront, order_id: str) -> str:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not (links := logged_links(shop, order_id)):
            await asyncio.sleep(0.02)
    return links[-1]


async def look_up(tab: Tab, number: str, email: str) -> None:
    await tab.go("/find-order.html")
    await tab.page.get_by_label("Order number").fill(number)
    await tab.page.get_by_label("E-mail").fill(email)
    await tab.page.get_by_role("button", name="Send the link").click()
    await expect(tab.page.get_by_text("we have sent a link to the address")).to_be_visible()


def order_id_of(tab: Tab) -> str:
    return parse_qs(urlsplit(tab.page.url).query)["id"][0]


async def order_number(tab: Tab) -> str:
    await expect(tab.page.locator("#status")).to_be_visible()
    title = await tab.page.get_by_role("heading", level=1).inner_text()
    return title.removeprefix("Order ")


@pytest.mark.parametrize("width", WIDTHS)
async def test_guest_without_token_finds_pays_and_cancels_the_order(
    tab: Tab, chromium: Browser, shop: Storefront, width: int
) -> None:
    await tab.order_shirt()
    order_id, number = order_id_of(tab), await order_number(tab)
    async with opened_tab(chromium, shop, width) as other:
        page = other.page
        await page.goto(tab.page.url)
        await page.get_by_role("link", name="Find my order").click()
        await other.check_view()
        # the prefix of the number in small letters
        await look_up(other, number.lower(), EMAIL)
        await other.check_view()

        await page.goto(await new_link(shop, order_id))
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"Order {number}")
        assert page.url == f"{shop.origin}/order.html?id={order_id}"
        await other.pay()
        await page.reload()
        await expect(page.get_by_role("button", name="Download the invoice")).to_be_visible()
        await other.check_view()
        await page.get_by_text("Cancel this order").click()
        await page.get_by_role("button", name="Cancel the order").click()
        await expect(page.locator("#status")).to_contain_text("Your payment was refunded.")
        assert await other.stored_names() == []


async def test_link_shows_its_order_only_and_updates_by_itself(
    tab: Tab, chromium: Browser, shop: Storefront
) -> None:
    await tab.order_shirt()
    first = tab.page.url
    path = await tab.order_paid_shirt()
    order_id, number = order_id_of(tab), await order_number(tab)
    async with opened_tab(chromium, shop) as other:
        await look_up(other, number.removeprefix("MH-"), EMAIL)
        await other.page.goto(await new_link(shop, order_id))
        await expect(other.page.locator("#status")).to_have_text("Paid. We prepare your order.")

        await other.deliver(path)
        await other.page.goto(first)

        await expect(other.page.get_by_text("You are not signed in")).to_be_visible()


async def test_link_also_works_for_a_browser_with_another_buyer(
    tab: Tab, chromium: Browser, shop: Storefront
) -> None:
    await tab.order_shirt()
    order_id, number = order_id_of(tab), await order_number(tab)
    async with opened_tab(chromium, shop) as other:
        await other.put_shirt_into_cart()
        await look_up(other, number, EMAIL)
        await other.page.goto(await new_link(shop, order_id))

        await expect(other.page.get_by_role("heading", level=1)).to_have_text(f"Order {number}")
        # the cart of the other buyer
        await expect(other.page.get_by_role("link", name="Cart (1)")).to_be_visible()


async def test_expired_link_leads_to_another_one(tab: Tab) -> None:
    page = tab.page
    await tab.go("/order.html#order_id=01a22db0-28fa-70bc-97d8-fd9cda601d47&order_token=expired")

    await expect(page.get_by_text("The link to this order has expired.")).to_be_visible()
    await tab.check_view()
    await page.get_by_role("link", name="Find my order").click()
    await page.wait_for_url("**/find-order.html")


async def test_lookup_explains_what_is_missing_or_refused(tab: Tab) -> None:
    page = tab.page
    await tab.go("/find-order.html")
    await page.get_by_role("button", name="Send the link").click()
    await expect(page.get_by_text("Fill in this field.")).to_have_count(2)
    await tab.check_view()

    await page.get_by_label("Order number").fill("no number")
    await page.get_by_label("E-mail").fill("no address")
    await page.get_by_role("button", name="Send the link").click()

    await expect(page.locator("#number")).to_have_attribute("aria-invalid", "true")
    await expect(page.locator("#email")).to_have_attribute("aria-invalid", "true")
    await expect(page.locator("#number")).to_be_focused()
    await tab.check_view()
    await expect(page.locator("#number-error")).to_have_text(
        "This does not look right. Please check it."
    )
