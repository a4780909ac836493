"""Test the billing address at the checkout of the example storefront in a real Chromium."""

import pytest
from playwright.async_api import Browser, Response, expect

from tests.browser.storefront_tab import ADDRESS, WIDTHS, Storefront, Tab, opened_tab

COMPANY = {**ADDRESS, "Name": "Babbage Ltd"}


async def open_filled_checkout(tab: Tab) -> None:
    await tab.put_shirt_into_cart()
    await tab.open_checkout()
    await tab.fill_email()
    await tab.fill_address()


def is_saved_cart(response: Response) -> bool:
    return response.request.method == "PUT" and "/carts/" in response.url


async def enter_billing_address(tab: Tab) -> None:
    """Enter the address, and wait until it is saved in the cart."""
    billing = tab.page.locator("#billing-address")
    for label, value in COMPANY.items():
        await billing.get_by_label(label, exact=True).fill(value)
    async with tab.page.expect_response(is_saved_cart):
        await billing.get_by_label("Country").select_option("GB")


@pytest.mark.parametrize("width", WIDTHS)
async def test_another_billing_address_is_kept_and_ordered(
    chromium: Browser, shop: Storefront, width: int
) -> None:
    async with opened_tab(chromium, shop, width) as tab:
        page = tab.page
        await open_filled_checkout(tab)
        same, billing = page.get_by_label("The same as"), page.locator("#billing-address")
        await expect(same).to_be_checked()
        await same.uncheck()
        await tab.place.click()
        await expect(billing.get_by_text("Fill in this field.")).to_have_count(5)
        await expect(billing.get_by_label("Name")).to_be_focused()
        await tab.check_view()

        await enter_billing_address(tab)
        await page.reload()
        await expect(same).not_to_be_checked()
        await expect(billing.get_by_label("Name")).to_have_value("Babbage Ltd")
        await tab.place_order()

        await expect(page.get_by_role("heading", name="Billing address")).to_be_visible()
        await expect(page.get_by_text("Babbage Ltd")).to_contain_text("United Kingdom")
        await tab.check_view()
    assert tab.opened.errors == []


async def test_order_has_no_billing_address_if_it_is_that_of_shipping(tab: Tab) -> None:
    page = tab.page
    await open_filled_checkout(tab)
    await page.get_by_label("The same as").uncheck()
    await enter_billing_address(tab)

    async with page.expect_response(is_saved_cart):
        await page.get_by_label("The same as").check()
    await tab.place_order()

    await expect(page.get_by_role("heading", name="Shipping address")).to_be_visible()
    await expect(page.get_by_role("heading", name="Billing address")).to_have_count(0)
