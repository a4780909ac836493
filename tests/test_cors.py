"""Test that pages of allowed origins can use the API from a browser, and others cannot."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
import pytest

from markethall.app import Gateway, create_app
from markethall.local.demo import shop
from markethall.shared.http.rate_limits import REQUESTS
from markethall.shared.kernel.call_context import system_context
from markethall.shared.observability.metrics import REGISTRY
from tests.containers import inventory_of
from tests.cors_transport import BrowserTransport, RefusedByBrowser
from tests.e2e.servers import ADMIN
from tests.e2e.shop import Shop, expect_status
from tests.partitions.in_process import open_partitioned_app
from tests.partitions.partitions import FULL_SPLIT, MONOLITH, PARTITIONS
from tests.test_app import memory_settings

SHOP: Final = "https://shop.example"
LOCAL: Final = "http://localhost:3000"
FOREIGN: Final = "https://evil.example"
ORIGINS: Final = (SHOP, LOCAL)
ALLOWED_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Accept-Language, "
    "X-Request-ID, traceparent, Last-Event-ID"
)
EXPOSED_HEADERS: Final = (
    "ETag, Location, Idempotency-Replayed, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
)
# Vary of a response whose texts depend on the language
VARY: Final = "Accept-Language, Origin"
AN_ID: Final = "01890000-0000-7000-8000-000000000000"


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[tuple[Gateway, httpx2.AsyncClient]]:
    app = create_app(memory_settings(**{"cors_origins": ORIGINS, **settings}))
    transport = httpx2.ASGITransport(app)
    async with (
        app.lifespan(),
        httpx2.AsyncClient(transport=transport, base_url="http://api.example") as http,
    ):
        inventory = inventory_of(app.container)
        await shop.fill(inventory.catalogue(), inventory.stockroom(), system_context("test"))
        yield app, http


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with running() as (_, http):
        yield http


async def send_preflight(
    http: httpx2.AsyncClient, path: str, method: str = "GET", origin: str = SHOP
) -> httpx2.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    return await http.options(path, headers=headers)


def cors_headers(response: httpx2.Response) -> dict[str, str]:
    return {k: v for k, v in response.headers.items() if k.startswith("access-control-")}


# Preflight


async def test_preflight_allows_methods_and_headers_of_the_path(http: httpx2.AsyncClient) -> None:
    response = await send_preflight(http, f"/products/{AN_ID}", "PATCH")

    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["vary"] == "Origin"
    assert cors_headers(response) == {
        "access-control-allow-origin": SHOP,
        "access-control-allow-methods": "DELETE, GET, PATCH",
        "access-control-allow-headers": ALLOWED_HEADERS,
        "access-control-expose-headers": EXPOSED_HEADERS,
        "access-control-max-age": "7200",
    }


async def test_preflight_of_every_documented_operation_allows_it(
    http: httpx2.AsyncClient,
) -> None:
    operations = [
        (path, method.upper())
        for path, item in (await http.get("/openapi.json")).json()["paths"].items()
        for method in item
    ]

    refused = [
        (path, method)
        for path, method in operations
        for response in [await send_preflight(http, path, method)]
        if response.status_code != 204
        or method not in response.headers["access-control-allow-methods"].split(", ")
    ]

    assert len(operations) > 70
    assert refused == []


async def test_page_can_read_that_a_path_does_not_exist(http: httpx2.AsyncClient) -> None:
    async with page(http, SHOP) as browser:
        response = await browser.delete("/nowhere", headers={"Authorization": "Bearer x"})

    assert (response.status_code, response.json()["code"]) == (404, "request.not_found")


async def test_preflight_needs_no_token_and_has_no_rate_limit() -> None:
    async with running(rate_limits="on") as (_, http):
        preflights = [
            await send_preflight(http, "/orders", "POST") for _ in range(REQUESTS.quota + 1)
        ]
        counted = await http.get("/products", headers={"Origin": SHOP})

    assert {response.status_code for response in preflights} == {204}
    assert not any("ratelimit" in response.headers for response in preflights)
    assert f"r={REQUESTS.quota - 1};" in counted.headers["ratelimit"]


async def test_preflight_is_counted_by_its_route(http: httpx2.AsyncClient) -> None:
    labels = {"method": "OPTIONS", "route": "/products/{product_id}", "status": "204"}
    before = REGISTRY.get_sample_value("markethall_http_requests_total", labels) or 0

    await send_preflight(http, f"/products/{AN_ID}")

    assert REGISTRY.get_sample_value("markethall_http_requests_total", labels) == before + 1


async def test_options_without_preflight_headers_is_not_allowed(http: httpx2.AsyncClient) -> None:
    response = await http.options("/products", headers={"Origin": SHOP})

    assert (response.status_code, response.json()["code"]) == (405, "request.method_not_allowed")
    assert response.headers["access-control-allow-origin"] == SHOP


# Origins


@pytest.mark.parametrize(
    "origin",
    [FOREIGN, "null", "https://shop.example:444", "http://shop.example", "https://a.shop.example"],
)
async def test_foreign_origin_gets_no_cors_headers(http: httpx2.AsyncClient, origin: str) -> None:
    preflight = await send_preflight(http, "/orders", "POST", origin)
    read = await http.get("/products", headers={"Origin": origin})

    assert cors_headers(preflight) == cors_headers(read) == {}
    assert (preflight.headers["vary"], read.headers["vary"]) == ("Origin", VARY)


async def test_response_without_origin_varies_with_it(http: httpx2.AsyncClient) -> None:
    response = await http.get("/products")

    assert cors_headers(response) == {}
    assert response.headers["vary"] == VARY


async def test_without_the_setting_no_response_has_cors_headers() -> None:
    async with running(cors_origins=()) as (_, http):
        preflight = await send_preflight(http, "/orders", "POST")
        read = await http.get("/products", headers={"Origin": SHOP})

    assert preflight.status_code == 405
    assert cors_headers(preflight) == cors_headers(read) == {}
    assert read.headers["vary"] == "Accept-Language"


async def test_cached_response_has_headers_of_the_asking_origin(http: httpx2.AsyncClient) -> None:
    responses = [
        await http.get("/products", headers={"Origin": origin})
        for origin in (SHOP, LOCAL, FOREIGN, SHOP)
    ]
    etag = responses[0].headers["etag"]
    unchanged = await http.get("/products", headers={"Origin": LOCAL, "If-None-Match": etag})

    allowed = [response.headers.get("access-control-allow-origin") for response in responses]
    assert allowed == [SHOP, LOCAL, None, SHOP]
    assert {response.headers["vary"] for response in responses} == {VARY}
    assert unchanged.status_code == 304
    assert unchanged.headers["access-control-allow-origin"] == LOCAL


async def test_internal_api_is_closed_to_pages(http: httpx2.AsyncClient) -> None:
    path = "/internal/users/get_active_customer"

    preflight = await send_preflight(http, path, "POST")
    call = await http.post(path, headers={"Origin": SHOP})

    assert preflight.status_code == call.status_code == 404
    assert cors_headers(preflight) == cors_headers(call) == {}


# Errors


ERRORS: Final[dict[int, tuple[str, str, dict[str, Any]]]] = {
    400: ("POST", "/users", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    401: ("GET", "/orders", {}),
    404: ("GET", f"/products/{AN_ID}", {}),
    405: ("DELETE", "/health", {}),
    413: ("POST", "/users", {"json": {"username": "x" * 70_000}}),
    415: ("POST", "/users", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
    422: ("POST", "/users", {"json": {}}),
    431: ("GET", "/products", {"headers": {"X-Much": "x" * 40_000}}),
}


@pytest.mark.parametrize("status", ERRORS)
async def test_error_response_has_cors_headers(http: httpx2.AsyncClient, status: int) -> None:
    method, path, options = ERRORS[status]
    headers = {"Origin": SHOP, **options.get("headers", {})}

    response = await http.request(method, path, **{**options, "headers": headers})

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert cors_headers(response) == {
        "access-control-allow-origin": SHOP,
        "access-control-expose-headers": EXPOSED_HEADERS,
    }


async def test_page_reads_when_to_retry_after_too_many_requests() -> None:
    body = {"username": "eve", "email": "eve@example.com", "password": "short"}
    async with running(rate_limits="on") as (_, http), page(http, SHOP) as browser:
        responses = [await browser.post("/users", json=body) for _ in range(11)]

    assert [response.status_code for response in responses] == [422] * 10 + [429]
    assert int(responses[-1].headers["retry-after"]) > 0
    assert responses[-1].headers["ratelimit-policy"] == '"register";q=10;w=60'


async def test_page_reads_that_the_service_is_not_ready() -> None:
    async with running() as (app, http), page(http, SHOP) as browser:
        app.readiness.draining = True
        response = await browser.get("/ready")

    assert (response.status_code, response.json()["code"]) == (503, "system.not_ready")
    assert response.headers["retry-after"]


async def test_page_follows_the_redirect_of_a_trailing_slash(http: httpx2.AsyncClient) -> None:
    async with page(http, SHOP) as browser:
        response = await browser.get("/products/", headers={"Authorization": "Bearer x"})

    assert (response.status_code, response.headers["location"]) == (307, "/products")


# A page that buys


@asynccontextmanager
async def page(http: httpx2.AsyncClient, origin: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that sees what a page of `origin` sees in a browser."""
    transport = BrowserTransport(http._transport, origin)
    async with httpx2.AsyncClient(transport=transport, base_url=http.base_url) as browser:
        yield browser


@pytest.fixture(scope="module", params=[MONOLITH, FULL_SPLIT])
async def partitioned_shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> AsyncIterator[Shop]:
    async with open_partitioned_app(
        PARTITIONS[request.param],
        tmp_path_factory.mktemp("shop"),
        storage="memory",
        redis_url=redis_url,
        cors_origins=ORIGINS,
    ) as app:
        yield Shop(app.server, app.http)


async def test_page_of_another_origin_registers_orders_and_pays(partitioned_shop: Shop) -> None:
    transport = BrowserTransport(partitioned_shop.http._transport, LOCAL)
    async with httpx2.AsyncClient(transport=transport, timeout=20) as http:
        shop = Shop(partitioned_shop.server, http)
        await shop.sign_in_admin(*ADMIN)
        product = await shop.product(stock=3)
        buyer = await shop.customer()
        listed = await shop.get(f"/products/{product['product_id']}")
        key = secrets.token_hex(16)
        placed = await shop.place(buyer, product["product_id"], 2, key)
        replayed = await shop.place(buyer, product["product_id"], 2, key)
        order = expect_status(placed, 201)
        await shop.confirm(buyer, order["payment"]["payment_id"])
        status = await shop.wait_for_status(
            buyer, order["order_id"], status="processing", payment_status="paid"
        )
        cancelled = await shop.post(
            f"/orders/{order['order_id']}/cancel", buyer, json={"reason": "changed my mind"}
        )

    assert listed.headers["etag"]
    assert placed.headers["location"] == f"/orders/{order['order_id']}"
    assert replayed.headers["idempotency-replayed"] == "true"
    assert status["order_id"] == order["order_id"]
    assert cancelled.status_code == 200
    assert {("POST", "/users"), ("POST", "/orders")} <= set(transport.preflights)


STORY: Final = (
    ("POST", "/users"),
    ("POST", "/token"),
    ("GET", "/users/me"),
    ("GET", "/products"),
    ("GET", f"/products/{AN_ID}"),
    ("GET", "/categories"),
    ("POST", "/orders"),
    ("GET", f"/orders/{AN_ID}"),
    ("GET", f"/orders/{AN_ID}/status"),
    ("POST", f"/orders/{AN_ID}/cancel"),
    ("GET", "/payment-methods"),
    ("GET", f"/payments/{AN_ID}"),
    ("POST", f"/payments/{AN_ID}/confirm"),
)


async def test_preflight_of_each_step_is_answered_by_its_service(partitioned_shop: Shop) -> None:
    http, server = partitioned_shop.http, partitioned_shop.server

    responses = {
        step: await send_preflight(http, server.url(step[1]), step[0], LOCAL) for step in STORY
    }

    assert {response.status_code for response in responses.values()} == {204}
    for (method, _), response in responses.items():
        assert method in response.headers["access-control-allow-methods"].split(", ")
        assert response.headers["access-control-allow-origin"] == LOCAL


async def test_page_of_a_foreign_origin_is_refused(partitioned_shop: Shop) -> None:
    transport = BrowserTransport(partitioned_shop.http._transport, FOREIGN)
    async with httpx2.AsyncClient(transport=transport) as http:
        for method, path in STORY:
            with pytest.raises(RefusedByBrowser):
                await http.request(method, partitioned_shop.server.url(path))
