"""Test the list of orders, and sign-in and sign-out in the header, in a real Chromium."""

import secrets
from typing import Any

import httpx2
import pytest
from playwright.async_api import Browser, expect

from tests.browser.storefront_tab import (
    PASSWORD,
    WIDTHS,
    Storefront,
    Tab,
    new_account,
    opened_tab,
)


def place_orders(shop: Storefront, name: str, count: int) -> list[str]:
    """Place orders of one shirt each. Return their numbers, the newest first."""
    product_id = shop.staff.get("/products/by-sku/SHIRT-white-M").json()["product_id"]
    with httpx2.Client(base_url=shop.api, timeout=60) as http:
        form = {"grant_type": "password", "username": name, "password": PASSWORD}
        token = http.post("/token", data=form).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        numbers = []
        for _ in range(count):
            body = {"product_id": product_id, "quantity": 1, "shipping_address": "1 Market Square"}
            key = {"Idempotency-Key": secrets.token_hex(8)}
            order: dict[str, Any] = http.post("/orders", json=body, headers=key).json()
            numbers.append(order["number"])
    return numbers[::-1]


async def shown_numbers(tab: Tab) -> list[str]:
    titles = await tab.page.locator("#orders h2").all_inner_texts()
    return [title.removeprefix("Order ") for title in titles]


@pytest.mark.parametrize("width", WIDTHS)
async def test_customer_sees_past_orders_page_by_page(
    chromium: Browser, shop: Storefront, width: int
) -> None:
    name = new_account(shop)
    numbers = place_orders(shop, name, 12)
    async with opened_tab(chromium, shop, width) as tab:
        page = tab.page
        await tab.go("/orders.html")
        await expect(page.get_by_text("Sign in to see your orders.")).to_be_visible()
        await tab.check_view()

        await tab.sign_in_by_header(name)
        await expect(page.locator("#orders li")).to_have_count(10)
        first = page.locator("#orders li").first
        await expect(first).to_contain_text("Waiting for payment")
        await expect(first).to_contain_text("Linen Shirt, white, M")
        await expect(first).to_contain_text("€54.80")
        await tab.check_view()
        await page.get_by_role("button", name="Show more orders").click()
        await expect(page.locator("#orders li")).to_have_count(12)
        await expect(page.get_by_role("button", name="Show more orders")).to_be_hidden()
        await expect(page.get_by_role("link", name=f"Order {numbers[10]}")).to_be_focused()

        assert await shown_numbers(tab) == numbers
        await tab.check_view()
        await page.get_by_role("link", name=f"Order {numbers[11]}").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"Order {numbers[11]}")
    assert tab.opened.errors == []


async def test_list_shows_the_status_of_each_order(tab: Tab) -> None:
    page = tab.page
    path = await tab.order_paid_shirt()
    order_page = page.url
    await page.get_by_role("link", name="Orders").click()
    await expect(page.locator(".order-status")).to_have_text("In preparation")

    await page.goto(order_page)
    await tab.deliver(path)
    await page.get_by_role("link", name="Orders").click()

    await expect(page.locator(".order-status")).to_have_text("Delivered")


async def test_sign_in_leads_back_and_sign_out_ends_the_session(tab: Tab) -> None:
    page, name = tab.page, new_account(tab.shop)
    await tab.go("/?q=linen")
    await expect(page.locator(".card")).to_have_count(1)

    await tab.sign_in_by_header(name)
    await expect(page.locator(".card")).to_have_count(1)
    await page.wait_for_url("**/index.html?q=linen")
    await tab.check_view()
    await tab.go("/orders.html")
    await expect(page.get_by_text("You have ordered nothing yet.")).to_be_visible()
    await tab.check_view()
    await page.get_by_role("button", name="Sign out").click()

    await expect(page.get_by_text("Sign in to see your orders.")).to_be_visible()
    await expect(page.get_by_role("button", name="Sign out")).to_have_count(0)
    assert await tab.stored_names() == []
    assert tab.opened.errors == []


@pytest.mark.parametrize("width", WIDTHS)
async def test_sign_in_page_explains_errors_and_creates_accounts(
    chromium: Browser, shop: Storefront, width: int
) -> None:
    async with opened_tab(chromium, shop, width) as tab:
        page, name = tab.page, f"kay_{secrets.token_hex(4)}"
        await tab.go("/sign-in.html")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_text("Fill in this field.")).to_have_count(2)
        await tab.check_view()
        await page.get_by_label("Create an account").check()
        await expect(page.get_by_text("Fill in this field.")).to_have_count(0)
        await page.get_by_label("I have an account").check()
        await page.get_by_label("User name or e-mail").fill(name)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await expect(tab.alert).to_be_visible()
        await tab.check_view()

        await page.get_by_label("Create an account").check()
        await page.get_by_label("E-mail of the account").fill(f"{name}@example.com")
        await page.get_by_role("button", name="Create the account").click()

        await page.wait_for_url("**/orders.html")
        await expect(page.locator("#account-links")).to_contain_text(name)
        await tab.go("/sign-in.html?next=cart.html")
        await expect(page.get_by_text(f"You are signed in as {name}.")).to_be_visible()
        await tab.check_view()


@pytest.mark.parametrize(
    "place", ["//example.com/", "https://example.com/a.html", "javascript:alert(1)", "../a.html"]
)
async def test_sign_in_leads_to_pages_of_the_storefront_only(tab: Tab, place: str) -> None:
    page, name = tab.page, new_account(tab.shop)
    await tab.go(f"/sign-in.html?next={place}")
    await page.get_by_label("User name or e-mail").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()

    await page.wait_for_url(f"{tab.shop.origin}/orders.html")
