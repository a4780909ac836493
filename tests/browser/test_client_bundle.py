"""Test the bundle of the TypeScript client in a real Chromium, on a page of another origin."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.browser.chromium import OpenPage, static_site
from tests.browser.conftest import EMPTY_PAGE
from tests.e2e.servers import ADMIN, RunningServer, running

BUNDLE: Final = Path(__file__).parents[2] / "clients/typescript/browser/markethall-client.js"
STORY: Final = """
async ([baseUrl, username]) => {
  const { createMarkethall, idempotencyKey, items, ProblemError, unwrap, WebTokenStorage } =
    await import("/markethall-client.js");
  const tokenStorage = new WebTokenStorage(localStorage);
  const shop = createMarkethall({ baseUrl, tokenStorage });
  const password = "a long and quiet sentence";
  const body = { username, email: `${username}@example.com`, password };
  await unwrap(shop.POST("/users", { params: { header: idempotencyKey() }, body }));
  await shop.session.login(username, password);

  const names = [];
  let productId;
  const query = { limit: 1, sort: "name", option: { "option.size": ["S", "M"] } };
  for await (const product of items(shop, "/products", { params: { query } })) {
    names.push(product.name);
    productId = product.product_id;
  }

  const placeOrder = (quantity, key) =>
    shop.POST("/orders", {
      params: { header: idempotencyKey(key) },
      body: { product_id: productId, quantity, shipping_address: "Anna, 1 Market Square, Berlin" },
    });
  const placed = await placeOrder(1, "first");
  const order = await unwrap(placed);
  const replayed = await placeOrder(1, "first");
  const refused = await unwrap(placeOrder(900)).catch((error) => error);

  tokenStorage.save({ ...tokenStorage.load(), access_token: "expired" });
  const payment = await unwrap(
    shop.POST("/payments/{payment_id}/confirm", {
      params: { path: { payment_id: order.payment.payment_id }, header: idempotencyKey() },
      body: { payment_method: "sandbox_ok" },
    }),
  );
  const path = { order_id: order.order_id };
  const status = await unwrap(
    shop.GET("/orders/{order_id}/status", { params: { path, query: { wait: 10 } } }),
  );
  const cancelled = await unwrap(
    shop.POST("/orders/{order_id}/cancel", {
      params: { path, header: idempotencyKey() },
      body: { reason: "changed my mind" },
    }),
  );
  await shop.session.logout();
  return {
    names,
    location: placed.response.headers.get("Location") === `/orders/${order.order_id}`,
    replayed: replayed.response.headers.get("Idempotency-Replayed"),
    refused: refused instanceof ProblemError ? refused.code : String(refused),
    statuses: [payment.status, status.status, cancelled.status],
    tokens: localStorage.length,
  };
}
"""


@pytest.fixture(scope="module")
def storefront() -> Iterator[str]:
    """The origin of a page beside the bundle."""
    files = {"/index.html": EMPTY_PAGE, "/markethall-client.js": BUNDLE.read_text()}
    with static_site(files) as origin:
        yield origin


@pytest.fixture(scope="module")
def server(scratch: Path, storefront: str) -> Iterator[RunningServer]:
    folder = scratch / "client-bundle"
    folder.mkdir()
    settings = {"MARKETHALL_DATA_DIR": str(folder), "MARKETHALL_CORS_ORIGINS": storefront}
    with running(folder, settings, "--memory") as found:
        add_shirts(found)
        yield found


def add_shirts(server: RunningServer) -> None:
    username, password = ADMIN
    form = {"grant_type": "password", "username": username, "password": password}
    token = httpx2.post(server.url("/token"), data=form).json()["access_token"]
    with httpx2.Client(headers={"Authorization": f"Bearer {token}"}) as admin:
        for size in ("S", "M", "L"):
            product = admin.post(
                server.url("/products"),
                json={
                    "sku": f"SHIRT-{size}",
                    "name": f"Shirt {size}",
                    "price": {"amount": 1999, "currency": "EUR"},
                    "options": {"size": size},
                },
            ).json()
            admin.post(
                server.url(f"/products/{product['product_id']}/stock-adjustments"),
                json={"delta": 5, "reason": "received"},
                headers={"Idempotency-Key": size},
            ).raise_for_status()


async def test_page_of_another_origin_runs_the_story_through_the_bundle(
    server: RunningServer, opened: OpenPage, storefront: str
) -> None:
    await opened.page.goto(storefront)

    result = await opened.page.evaluate(STORY, [server.url("/"), "anna"])

    assert result == {
        "names": ["Shirt M", "Shirt S"],
        "location": True,
        "replayed": "true",
        "refused": "inventory.out_of_stock",
        "statuses": ["captured", "processing", "cancelled"],
        "tokens": 0,
    }
    # Chromium reports each response with an error status: the refused order, the expired token
    assert sorted(line.split("(")[0] for line in opened.errors) == [
        "Failed to load resource: the server responded with a status of 401 ",
        "Failed to load resource: the server responded with a status of 409 ",
    ]
