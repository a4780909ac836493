"""Test in a real Chromium that pages of allowed origins can use the API, and others cannot."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import OpenPage
from tests.e2e.servers import RunningServer, running

FETCH = """
async ([url, options]) => {
  const response = await fetch(url, options);
  const text = await response.text();
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    body: text ? JSON.parse(text) : null,
  };
}
"""


@pytest.fixture(scope="module")
def server(scratch: Path, page_origin: str) -> Iterator[RunningServer]:
    folder = scratch / "browser"
    folder.mkdir()
    settings = {
        "MARKETHALL_DATA_DIR": str(folder),
        "MARKETHALL_CORS_ORIGINS": page_origin,
    }
    with running(folder, settings, "--memory") as found:
        yield found


async def fetch(opened: OpenPage, url: str, **options: Any) -> Any:
    """Call `fetch` in the page. Return the status, body and headers that the page can read."""
    return await opened.page.evaluate(FETCH, [url, options])


async def test_page_of_an_allowed_origin_reads_products(
    server: RunningServer, opened: OpenPage, page_origin: str
) -> None:
    await opened.page.goto(page_origin)

    response = await fetch(opened, server.url("/products"))

    assert (response["status"], response["body"]["items"]) == (200, [])
    assert response["headers"]["etag"]
    assert opened.errors == []
