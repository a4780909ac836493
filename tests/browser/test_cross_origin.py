"""Test in a real Chromium that pages of allowed origins can use the API, and others cannot."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Error

from tests.browser.chromium import OpenPage
from tests.e2e.servers import ADMIN, running
from tests.local_cluster.cluster_process import ready_cluster

# returns the parts of a response that the JavaScript of a page can read
FETCH: Final = """
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
SIGN_IN: Final = """
async ([url, form]) =>
  (await fetch(url, {method: "POST", body: new URLSearchParams(form)})).json()
"""
PASSWORD: Final = "a long and quiet sentence"
REFUSED: Final = "Failed to fetch"


@dataclass
class PageClient:
    """Calls the API at `url` by `fetch` in the page, and records the paths of preflights."""

    opened: OpenPage
    url: str
    token: str = ""
    preflights: set[str] = field(default_factory=set)

    async def call(
        self, method: str, path: str, *, json_text: str | None = None, **headers: str
    ) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        if json_text is not None:
            sent["Content-Type"] = "application/json"
        options = {"method": method, "headers": sent, "body": json_text}
        return await self.opened.page.evaluate(FETCH, [self.url + path, options])

    async def sign_in(self, name: str, password: str) -> None:
        form = {"grant_type": "password", "username": name, "password": password}
        answer = await self.opened.page.evaluate(SIGN_IN, [f"{self.url}/token", form])
        self.token = answer["access_token"]


@asynccontextmanager
async def page_client(opened: OpenPage, origin: str, url: str) -> AsyncIterator[PageClient]:
    """Open the page of the origin, and yield its client."""
    await opened.page.goto(origin)
    client = PageClient(opened, url)
    network = await opened.page.context.new_cdp_session(opened.page)

    def record(event: Any) -> None:
        if event["initiator"]["type"] == "preflight":
            client.preflights.add(event["request"]["url"].removeprefix(url))

    network.on("Network.requestWillBeSent", record)
    await network.send("Network.enable")
    yield client
    await network.detach()


@pytest.fixture(scope="module", params=["monolith", "cluster"])
def api_url(request: pytest.FixtureRequest, scratch: Path, page_origin: str) -> Iterator[str]:
    """The address of the API as one process, and as one process per context behind a proxy."""
    folder = scratch / f"browser-{request.param}"
    folder.mkdir()
    if request.param == "cluster":
        with ready_cluster(folder, cors_origins=page_origin) as cluster:
            yield cluster.url
        return
    settings = {"MARKETHALL_DATA_DIR": str(folder), "MARKETHALL_CORS_ORIGINS": page_origin}
    with running(folder, settings, "--memory") as server:
        yield server.url("/").removesuffix("/")


@pytest.fixture
async def client(opened: OpenPage, page_origin: str, api_url: str) -> AsyncIterator[PageClient]:
    async with page_client(opened, page_origin, api_url) as found:
        yield found


async def add_product(client: PageClient) -> str:
    """Add a product with stock from the page, as the admin. Return its id."""
    await client.sign_in(*ADMIN)
    product = await client.call(
        "POST",
        "/products",
        json_text=f'{{"sku": "B-{secrets.token_hex(4)}", "name": "Basket", '
        '"price": {"amount": 1999, "currency": "EUR"}}',
        Idempotency_Key=secrets.token_hex(8),
    )
    assert product["status"] == 201, product
    product_id: str = product["body"]["product_id"]
    received = await client.call(
        "POST",
        f"/products/{product_id}/stock-adjustments",
        json_text='{"delta": 5, "reason": "received"}',
        Idempotency_Key=secrets.token_hex(8),
    )
    assert received["status"] == 201, received
    client.token = ""
    return product_id


async def test_page_of_another_origin_registers_orders_and_pays(client: PageClient) -> None:
    product_id = await add_product(client)
    name, key = f"anna_{secrets.token_hex(4)}", secrets.token_hex(8)
    account = f'{{"username": "{name}", "email": "{name}@example.com", "password": "{PASSWORD}"}}'

    registered = await client.call("POST", "/users", json_text=account)
    await client.sign_in(name, PASSWORD)
    listed = await client.call("GET", "/products?in_stock=true")
    shown = await client.call("GET", f"/products/{product_id}")
    order = f'{{"product_id": "{product_id}", "quantity": 2, "shipping_address": "Market 1"}}'
    placed = await client.call("POST", "/orders", json_text=order, Idempotency_Key=key)
    replayed = await client.call("POST", "/orders", json_text=order, Idempotency_Key=key)
    order_id = placed["body"]["order_id"]
    path = f"/orders/{order_id}/status"
    before = await client.call("GET", path)
    paid = await client.call(
        "POST",
        f"/payments/{placed['body']['payment']['payment_id']}/confirm",
        json_text='{"payment_method": "sandbox_ok"}',
        Idempotency_Key=secrets.token_hex(8),
    )
    status = await wait_until_paid(client, path, before)

    assert [one["status"] for one in (registered, listed, shown)] == [201, 200, 200]
    assert product_id in {item["product_id"] for item in listed["body"]["items"]}
    assert (placed["status"], replayed["status"], paid["status"]) == (201, 201, 200)
    assert (status["status"], status["payment_status"]) == ("processing", "paid")
    # a page can read these headers only if the server lists them in Access-Control-Expose-Headers
    assert placed["headers"]["location"] == f"/orders/{order_id}"
    assert replayed["headers"]["idempotency-replayed"] == "true"
    assert shown["headers"]["etag"]
    assert placed["headers"]["x-request-id"]
    assert {"/users", "/orders", path} <= client.preflights
    assert client.opened.errors == []


async def wait_until_paid(client: PageClient, path: str, known: Any) -> Any:
    """Read with `?wait=` and the known ETag, as a page does, until the order is paid."""
    while known["body"]["payment_status"] != "paid":
        answer = await client.call("GET", f"{path}?wait=10", If_None_Match=known["headers"]["etag"])
        assert answer["status"] in {200, 304}, answer
        known = answer if answer["status"] == 200 else known
    return known["body"]


async def test_page_reads_a_problem_and_its_headers(client: PageClient) -> None:
    answer = await client.call("GET", "/orders")

    assert (answer["status"], answer["body"]["code"]) == (401, "auth.unauthenticated")
    assert answer["headers"]["x-request-id"] == answer["body"]["request_id"]


async def test_page_of_a_foreign_origin_is_refused(
    opened: OpenPage, foreign_origin: str, api_url: str
) -> None:
    async with page_client(opened, foreign_origin, api_url) as client:
        for method, path in (("GET", "/products"), ("POST", "/users"), ("POST", "/orders")):
            with pytest.raises(Error, match=REFUSED):
                await client.call(method, path, json_text="{}" if method == "POST" else None)

    assert any("blocked by CORS policy" in line for line in opened.errors)
