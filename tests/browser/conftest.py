"""Fixtures of the tests with a real browser."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser

from tests.browser.chromium import (
    OpenPage,
    chromium_path,
    opened_page,
    running_chromium,
    static_site,
)
from tests.browser.storefront_process import running_storefront
from tests.browser.storefront_tab import (
    AddShirt,
    Storefront,
    Tab,
    filled_storefront,
    opened_tab,
)
from tests.e2e.servers import free_port, running

NO_CHROMIUM: Final = (
    "no Chromium on this machine, so nothing is tested in a browser: install it (on Debian: "
    "apt-get install chromium), or set MARKETHALL_TEST_CHROMIUM to its path"
)
EMPTY_PAGE: Final = (
    "<!doctype html><meta charset='utf-8'><title>A page</title><link rel='icon' href='data:,'>"
)


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """A running Chromium. Without one, the tests are skipped, which is a failure in CI."""
    path = chromium_path()
    if path is None:
        pytest.skip(NO_CHROMIUM)
    async with running_chromium(path) as browser:
        yield browser


@pytest.fixture
async def opened(chromium: Browser) -> AsyncIterator[OpenPage]:
    """A new page of 1280 x 900 CSS pixels, and its errors."""
    async with opened_page(chromium) as page:
        yield page


@pytest.fixture(scope="session")
def page_origin() -> Iterator[str]:
    """The origin of an empty page, such as `http://127.0.0.1:40123`."""
    with static_site({"/index.html": EMPTY_PAGE}) as origin:
        yield origin


@pytest.fixture(scope="session")
def foreign_origin() -> Iterator[str]:
    """The origin of an empty page that no server under test allows."""
    with static_site({"/index.html": EMPTY_PAGE}) as origin:
        yield origin


@pytest.fixture(scope="session")
def shop(scratch: Path) -> Iterator[Storefront]:
    """The storefront, and a shop in memory with products, shipping methods and a voucher."""
    folder = scratch / "storefront"
    folder.mkdir()
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    settings = {
        "MARKETHALL_DATA_DIR": str(folder),
        "MARKETHALL_CORS_ORIGINS": origin,
        "MARKETHALL_ORDER_LINK_URL": f"{origin}/order.html",
        # a short time, so that pages must open streams again
        "MARKETHALL_ORDER_STREAM_MAX_SECONDS": "4",
    }
    with running(folder, settings, "--memory") as server:
        api = server.url("/").removesuffix("/")
        with running_storefront(folder, port, api) as output:
            yield filled_storefront(origin, api, output, server.log.read_text)


@pytest.fixture
async def tab(chromium: Browser, shop: Storefront) -> AsyncIterator[Tab]:
    """A tab with an empty storage."""
    async with opened_tab(chromium, shop) as found:
        yield found


@pytest.fixture
def add_shirt(shop: Storefront) -> Iterator[AddShirt]:
    """Return a function that adds a product for this test, by its SKU.

    The products are archived after the test, because other tests count the listed products.
    """
    added = []

    def add(sku: str, *, stock: int = 5) -> None:
        shop.staff.add_shirt(sku, stock=stock)
        added.append(sku)

    yield add
    for sku in added:
        shop.staff.change_product(sku, status="archived")
