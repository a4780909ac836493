"""Test in a real Chromium that a reader of /docs can sign in, order and pay, with clicks only."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from playwright.async_api import Locator

from tests.browser.chromium import OpenPage
from tests.e2e.servers import ADMIN, RunningServer, running
from tests.e2e.shop import Person, Shop

SCROLL_SECONDS: Final = 60
# half a screen further, or back to the top from the end; then two frames, in which the page renders
SCROLL: Final = """async () => {
    const before = scrollY;
    scrollBy(0, innerHeight / 2);
    if (scrollY === before) scrollTo(0, 0);
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
}"""


@pytest.fixture(scope="module")
def server(scratch: Path) -> Iterator[RunningServer]:
    folder = scratch / "docs-page"
    folder.mkdir()
    with running(folder, {"MARKETHALL_DATA_DIR": str(folder)}, "--memory") as found:
        yield found


@pytest.fixture
async def shop(server: RunningServer) -> AsyncIterator[Shop]:
    async with httpx2.AsyncClient(timeout=20) as http:
        shop = Shop(server, http)
        await shop.sign_in_admin(*ADMIN)
        yield shop


@pytest.fixture
async def docs(opened: OpenPage, server: RunningServer) -> "DocsPage":
    await opened.page.goto(server.url("/docs"))
    await opened.page.wait_for_selector(".opblock")
    return DocsPage(opened)


class DocsPage:
    """The page of Swagger UI, with the actions of a reader as methods."""

    def __init__(self, opened: OpenPage) -> None:
        self.opened = opened
        self.page = opened.page

    async def authorize(self, person: Person) -> None:
        await self.page.click("button.authorize")
        await self.page.fill("#oauth_username", person.name)
        await self.page.fill("#oauth_password", person.password)
        await self.page.click(".modal-ux button.authorize")
        await self.page.wait_for_selector(".modal-ux button:has-text('Logout')")
        await self.page.click(".modal-ux .btn-done")

    async def open(self, tag: str, operation_id: str) -> Locator:
        """Open an operation for a request, and return its block."""
        block = self.page.locator(f"#operations-{tag}-{operation_id}")
        await self._scroll_to(block)
        await block.locator(".opblock-summary-control").click()
        await block.locator(".try-out__btn").click()
        return block

    async def _scroll_to(self, block: Locator) -> None:
        """Scroll until the page has the block, because it renders only what is near the view."""
        async with asyncio.timeout(SCROLL_SECONDS):
            while not await block.count():
                await self.page.evaluate(SCROLL)

    async def execute(self, block: Locator) -> tuple[int, Any]:
        """Send the request. Return the status and the body that the page shows."""
        await block.locator("button.execute").click()
        shown = block.locator(".live-responses-table tbody tr.response")
        status = await shown.locator(".response-col_status").inner_text()
        text = await shown.locator("pre.microlight, .highlight-code pre").first.inner_text()
        return int(status.split()[0]), json.loads(text)


async def fill_parameter(block: Locator, name: str, value: str) -> None:
    await block.locator(f"tr[data-param-name='{name}'] input").fill(value)


async def test_reader_signs_in_orders_and_pays(docs: DocsPage, shop: Shop) -> None:
    product, buyer = await shop.product(stock=3), await shop.customer()

    await docs.authorize(buyer)
    place = await docs.open("orders", "place_order")
    await fill_parameter(place, "Idempotency-Key", secrets.token_hex(8))
    await place.locator("textarea.body-param__text").fill(
        json.dumps(
            {
                "product_id": product["product_id"],
                "quantity": 2,
                "shipping_address": "1 Market Square",
            }
        )
    )
    placed, order = await docs.execute(place)
    confirm = await docs.open("payments", "confirm_payment")
    await fill_parameter(confirm, "payment_id", order["payment"]["payment_id"])
    await fill_parameter(confirm, "Idempotency-Key", secrets.token_hex(8))
    await confirm.locator("textarea.body-param__text").fill('{"payment_method": "sandbox_ok"}')
    confirmed, payment = await docs.execute(confirm)

    assert (placed, confirmed) == (201, 200)
    assert order["lines"][0]["quantity"] == 2
    assert payment["status"] == "captured"
    assert docs.opened.errors == []


async def test_order_without_a_key_is_not_sent(docs: DocsPage, shop: Shop) -> None:
    await docs.authorize(await shop.customer())
    place = await docs.open("orders", "place_order")

    await place.locator("button.execute").click()

    assert await place.locator("tr[data-param-name='Idempotency-Key'] input.invalid").count() == 1
    assert await place.locator(".live-responses-table").count() == 0


async def test_page_asks_no_other_host(docs: DocsPage, server: RunningServer) -> None:
    loaded = await docs.page.evaluate(
        "() => performance.getEntriesByType('resource').map(entry => entry.name)"
    )

    assert loaded
    assert [url for url in loaded if not url.startswith((server.url("/"), "data:"))] == []
