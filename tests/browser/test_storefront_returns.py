"""Test returns and the invoice on the page of an order, in a real Chromium."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.browser.storefront_tab import WIDTHS, Storefront, Tab, opened_tab

TIMES = "\N{MULTIPLICATION SIGN}"
SHIRT = "Linen Shirt, white, M"


def summary(page: Page) -> Locator:
    """The control that opens the form."""
    return page.locator("#return-request > summary")


async def request_return(page: Page, reason: str) -> None:
    await summary(page).click()
    await page.get_by_label("Why do you send it back?").fill(reason)
    await page.get_by_role("button", name="Request the return").click()


def returns(page: Page) -> Locator:
    return page.locator("#return-list li")


def last_return_of(shop: Storefront, path: str) -> str:
    """Return the path of the return in the API."""
    return f"/returns/{shop.staff.get(f'{path}/returns').json()['items'][-1]['return_id']}"


@pytest.mark.parametrize("width", WIDTHS)
async def test_buyer_returns_a_delivered_shirt_and_sees_each_state(
    chromium: Browser, shop: Storefront, width: int
) -> None:
    async with opened_tab(chromium, shop, width) as tab:
        page, staff = tab.page, shop.staff
        path = await tab.order_paid_shirt()
        await expect(page.locator("#returns")).to_be_hidden()
        await tab.deliver(path)

        await summary(page).click()
        await page.get_by_role("button", name="Request the return").click()
        await expect(page.get_by_text("Fill in this field.")).to_have_count(1)
        await tab.check_view()
        await page.get_by_label(SHIRT).fill("7")
        await page.get_by_label("Why do you send it back?").fill("does not fit")
        await page.get_by_role("button", name="Request the return").click()
        await expect(page.get_by_text("Enter a number from 0 to 1.")).to_be_visible()
        await page.get_by_label(SHIRT).fill("0")
        await page.get_by_role("button", name="Request the return").click()
        await expect(page.get_by_text("Enter how many units you send back.")).to_be_visible()
        await tab.check_view()
        await page.get_by_label(SHIRT).fill("1")
        await page.get_by_role("button", name="Request the return").click()
        await expect(returns(page)).to_contain_text([f"1 {TIMES} {SHIRT}"])
        await expect(returns(page)).to_contain_text(["Requested"])
        await expect(summary(page)).to_be_hidden()
        await tab.check_view()

        made = last_return_of(shop, path)
        staff.post(f"{made}/approve", {}, 200)
        await expect(returns(page)).to_contain_text(["Approved"])
        units = {"line_id": staff.get(made).json()["lines"][0]["line_id"], "quantity": 1}
        arrived = {**units, "condition": "new", "disposition": "restock"}
        staff.post(f"{made}/receive", {"lines": [arrived]}, 200)
        await expect(returns(page)).to_contain_text(["Arrived"])
        staff.post(f"{made}/close", {}, 200)
        await expect(returns(page)).to_contain_text(["€49.90"])
        await expect(page.locator("#timeline")).to_contain_text(
            "A part of your payment was refunded."
        )
        await expect(page.get_by_text("Cancel the return")).to_have_count(0)
        await tab.check_view()

    assert tab.opened.errors == []


async def test_buyer_cancels_a_return_and_requests_another_one(tab: Tab) -> None:
    page = tab.page
    await tab.deliver(await tab.order_paid_shirt())
    await request_return(page, "does not fit")

    await page.get_by_role("button", name=f"Cancel the return of 1 {TIMES} {SHIRT}").click()
    await expect(returns(page)).to_contain_text(["Cancelled"])
    await request_return(page, "too red")

    # the newest first
    await expect(returns(page)).to_contain_text(["Requested", "Cancelled"])
    await expect(returns(page).first).to_contain_text("Your reason: too red")


async def test_rejected_return_is_shown_with_the_reason(tab: Tab) -> None:
    page = tab.page
    path = await tab.order_paid_shirt()
    await tab.deliver(path)
    await request_return(page, "does not fit")
    await expect(returns(page)).to_contain_text(["Requested"])

    reason = {"reason": "it was worn"}
    tab.shop.staff.post(f"{last_return_of(tab.shop, path)}/reject", reason, 200)

    await expect(returns(page)).to_contain_text(["Rejected"])
    await expect(page.locator("#timeline")).to_contain_text("“it was worn”")
    await expect(summary(page)).to_be_visible()


async def test_update_of_the_page_keeps_what_was_entered(tab: Tab) -> None:
    page = tab.page
    path = await tab.order_paid_shirt()
    await tab.deliver(path)
    await summary(page).click()
    await page.get_by_label("Why do you send it back?").fill("does not fit")
    await page.get_by_label(SHIRT).fill("0")

    async with page.expect_request_finished(lambda sent: sent.url.endswith("/returns?limit=100")):
        tab.shop.staff.patch(path, staff_note="called the buyer")

    await expect(page.get_by_label(SHIRT)).to_have_value("0")
    await expect(page.get_by_label("Why do you send it back?")).to_have_value("does not fit")


async def test_invoice_is_downloaded(tab: Tab, tmp_path: Path) -> None:
    page = tab.page
    await tab.order_shirt()
    button = page.get_by_role("button", name="Download the invoice")
    await expect(button).to_be_hidden()
    await tab.pay()
    title = await page.get_by_role("heading", level=1).inner_text()

    async with page.expect_download() as download:
        await button.click()
    file = await download.value
    await file.save_as(tmp_path / "invoice")

    assert file.suggested_filename == f"invoice-{title.removeprefix('Order ')}.pdf"
    assert (tmp_path / "invoice").read_bytes().startswith(b"%PDF-")
    assert tab.opened.errors == []


async def test_page_is_downloaded_if_the_api_makes_no_pdf_files(tab: Tab, tmp_path: Path) -> None:
    page = tab.page
    await page.route("**/invoice.pdf", lambda route: route.fulfill(
        status=404, json=UNAVAILABLE, headers={"Access-Control-Allow-Origin": "*"}))  # fmt: skip
    await tab.order_paid_shirt()

    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download the invoice").click()
    file = await download.value
    await file.save_as(tmp_path / "invoice")

    assert file.suggested_filename.endswith(".html")
    assert (tmp_path / "invoice").read_text().startswith("<!doctype html>")


UNAVAILABLE = {
    "code": "orders.invoice_pdf_unavailable", "status": 404, "title": "No PDF", "detail": "",
    "details": {"reason": "extra"}, "retryable": False,
}  # fmt: skip
