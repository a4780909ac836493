"""Fixtures of the tests with a real browser."""

from collections.abc import AsyncIterator, Iterator
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
