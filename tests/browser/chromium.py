"""Starts a real Chromium, and serves pages to it from their own origin."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from threading import Thread
from typing import Final

from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS: Final = (
    # the sandbox of Chromium does not work for root, and the browser loads only test pages
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # otherwise Chromium sends requests to servers of its vendor at each start
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# long, because a busy machine needs half a minute to render the page of the documentation
_TIMEOUT_MILLISECONDS: Final = 180_000
_EXPECTATION_MILLISECONDS: Final = 60_000
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
}


def chromium_path() -> str | None:
    """Return the path of Chromium: `MARKETHALL_TEST_CHROMIUM`, or a program on PATH, or None."""
    configured = os.environ.get("MARKETHALL_TEST_CHROMIUM")
    return configured or next(filter(None, map(shutil.which, _PROGRAMS)), None)


@asynccontextmanager
async def running_chromium(path: str) -> AsyncIterator[Browser]:
    expect.set_options(timeout=_EXPECTATION_MILLISECONDS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield browser
        await browser.close()


@dataclass(frozen=True)
class OpenPage:
    """A page and its errors so far.

    `errors` holds uncaught exceptions and lines that the page or Chromium wrote as errors to the
    console. A refused request and a response with an error status is such a line, too.
    """

    page: Page
    errors: list[str] = field(default_factory=list)


@asynccontextmanager
async def opened_page(
    browser: Browser, width: int = 1280, height: int = 900
) -> AsyncIterator[OpenPage]:
    """Open a page without cookies and stored data of other pages. Sizes are in CSS pixels."""
    context: BrowserContext = await browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(_TIMEOUT_MILLISECONDS)
    found = OpenPage(await context.new_page())
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on(
        "console",
        lambda line: found.errors.append(line.text) if line.type == "error" else None,
    )
    yield found
    await context.close()


@contextmanager
def static_site(files: Mapping[str, str], host: str = "127.0.0.1") -> Iterator[str]:
    """Serve the files, by path such as `/index.html`, on a free port. Return the origin.

    `/` is `/index.html`. Origins differ by host or port, so each site has an origin of its own.
    """
    served = {"/": files["/index.html"], **files} if "/index.html" in files else dict(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            text = served.get(path)
            self.send_response(404 if text is None else 200)
            suffix = PurePosixPath(path).suffix or ".html"
            self.send_header("Content-Type", _MEDIA_TYPES.get(suffix, "text/plain"))
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer((host, 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
