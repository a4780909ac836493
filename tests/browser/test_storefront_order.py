"""Test the order page of the example storefront in a real Chromium. The page updates by itself."""

import re
from typing import Any

import pytest
from playwright.async_api import Browser, Request, Route, expect

from tests.browser.storefront_tab import WIDTHS, Storefront, Tab, opened_tab


@pytest.mark.parametrize("width", WIDTHS)
async def test_shipment_and_delivery_appear_without_a_reload(
    chromium: Browser, shop: Storefront, width: int
) -> None:
    async with opened_tab(chromium, shop, width) as tab:
        page, staff = tab.page, shop.staff
        path = await tab.order_paid_shirt()
        await expect(page.locator("#timeline li")).to_contain_text(
            ["Your payment arrived.", "You ordered."]
        )

        parcel = {"carrier": "DHL", "tracking_number": "JD0123"}
        shipment = staff.post(f"{path}/fulfilments", parcel)
        await expect(page.locator("#status")).to_have_text("Your order is on its way.")
        await expect(page.locator("#shipments")).to_contain_text("DHL: JD0123")
        await expect(page.locator("#cancellation")).to_be_hidden()
        await tab.check_view()
        staff.post(f"/fulfilments/{shipment['fulfilment_id']}/deliver", {}, 200)
        await expect(page.locator("#status")).to_have_text("Your order has been delivered.")
        await expect(page.locator("#shipments")).to_contain_text("Delivered")
        await expect(page.locator("#timeline li").first).to_contain_text("The order is complete.")
        await tab.check_view()

    assert tab.opened.errors == []


async def test_buyer_cancels_a_paid_order_before_shipping(tab: Tab) -> None:
    page = tab.page
    await tab.order_paid_shirt()

    await page.get_by_text("Cancel this order").click()
    await tab.check_view()
    await page.get_by_label("Reason").fill("too large")
    await page.get_by_role("button", name="Cancel the order").click()

    await expect(page.locator("#status")).to_contain_text("This order was cancelled.")
    await expect(page.locator("#timeline")).to_contain_text("The order was cancelled. “too large”")
    await expect(page.locator("#status")).to_contain_text("Your payment was refunded.")
    await expect(page.locator("#cancellation")).to_be_hidden()
    await page.reload()
    await expect(page.locator("#status")).to_contain_text("Your payment was refunded.")
    await tab.check_view()


async def test_cancellation_after_shipping_is_refused_in_words(tab: Tab) -> None:
    page = tab.page
    path = await tab.order_paid_shirt()
    await page.get_by_text("Cancel this order").click()
    # the page has not shown the shipment before the click
    await page.route(re.compile(r"/(events|status|fulfilments|timeline)\b"), lose)
    tab.shop.staff.post(f"{path}/fulfilments", {})

    await page.get_by_role("button", name="Cancel the order").click()

    await expect(page.locator("#cancel-message")).to_contain_text("cannot be cancelled any more")


async def lose(route: Route) -> None:
    await route.abort()


def is_stream(request: Request) -> bool:
    return request.url.endswith("/events")


async def test_stream_continues_after_the_version_that_the_page_shows(tab: Tab) -> None:
    page, sent = tab.page, list[Request]()

    def record(request: Request) -> None:
        sent.append(request)

    def versions() -> list[str]:
        return [one.headers["last-event-id"] for one in filter(is_stream, sent)]

    page.on("request", record)
    await tab.order_shirt()

    # the server of these tests ends each stream after a few seconds
    while len(versions()) < 3:
        await page.wait_for_event("request", is_stream)
    before = versions()
    await tab.pay()
    while versions()[-1] == before[0]:
        await page.wait_for_event("request", is_stream)

    assert before == before[:1] * len(before)
    assert int(versions()[-1]) > int(before[0])
    assert not [one for one in sent if "/status" in one.url]
    assert tab.opened.errors == []


@pytest.mark.parametrize("failure", ["refused", "unreachable"])
async def test_page_polls_while_there_is_no_stream(tab: Tab, failure: str) -> None:
    page = tab.page

    async def fail(route: Route) -> None:
        if failure == "unreachable":
            await route.abort()
        else:
            await route.fulfill(status=429, json=TOO_MANY, headers=ALLOWED)

    await page.route(re.compile(r"/events$"), fail)
    path = await tab.order_paid_shirt()
    tab.shop.staff.post(f"{path}/fulfilments", {"carrier": "DHL"})

    await expect(page.locator("#status")).to_have_text("Your order is on its way.")
    await expect(page.locator("#connection")).to_be_empty()


TOO_MANY: dict[str, Any] = {
    "code": "request.rate_limited", "status": 429, "title": "Too many requests", "detail": "",
    "details": {}, "retryable": True,
}  # fmt: skip
ALLOWED = {"Access-Control-Allow-Origin": "*", "Retry-After": "10"}


async def test_lost_connection_is_shown_and_the_page_catches_up(tab: Tab) -> None:
    page = tab.page
    path = await tab.order_paid_shirt()
    await page.route(re.compile(rf"^{re.escape(tab.shop.api)}/"), lose)

    await expect(page.locator("#connection")).to_contain_text("The shop cannot be reached.")
    await tab.check_view()
    tab.shop.staff.post(f"{path}/fulfilments", {"carrier": "DHL"})
    await page.unroute_all()

    await expect(page.locator("#status")).to_have_text("Your order is on its way.")
    await expect(page.locator("#connection")).to_be_empty()


async def test_declined_payment_can_be_repeated_with_another_method(tab: Tab) -> None:
    page = tab.page
    await tab.order_shirt()

    await page.get_by_label("Sandbox declined").check()
    await page.get_by_role("button", name="Pay").click()
    await expect(page.get_by_text("The payment was declined.")).to_be_visible()
    await tab.check_view()
    await page.get_by_label("Sandbox ok").check()
    await tab.pay()


async def test_order_of_another_buyer_is_not_shown(tab: Tab, chromium: Browser) -> None:
    await tab.order_shirt()
    async with opened_tab(chromium, tab.shop) as other:
        await other.put_shirt_into_cart()
        await other.page.goto(tab.page.url)

        await expect(other.page.get_by_text("There is no such order")).to_be_visible()
        await other.check_view()
