"""Test the page of an order of the example storefront in a real Chromium."""

from playwright.async_api import expect

from tests.browser.storefront_tab import Tab


async def test_declined_payment_can_be_repeated_with_another_method(tab: Tab) -> None:
    page = tab.page
    await tab.order_shirt()

    await page.get_by_label("Sandbox declined").check()
    await page.get_by_role("button", name="Pay").click()
    await expect(page.get_by_text("the payment was declined")).to_be_visible()
    await tab.check_view()
    await page.get_by_label("Sandbox ok").check()
    await page.get_by_role("button", name="Pay").click()

    await expect(page.get_by_role("status").first).to_have_text("Paid. We prepare your order.")
