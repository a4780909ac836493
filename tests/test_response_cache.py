"""Test that cached responses equal uncached ones and are invalidated with their data."""

import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, redirect_stdout
from typing import Any
from uuid import UUID

import httpx2
import pytest
from jsonschema import Draft202012Validator
from starlette.types import ASGIApp, Receive, Scope, Send

from markethall.app import Gateway, create_app
from markethall.inventory.catalogue.contract.products import ProductChange
from markethall.local.demo import shop
from markethall.shared.http.rate_limits import REQUESTS
from markethall.shared.kernel.call_context import system_context
from markethall.shared.observability.log import access_log
from markethall.shared.observability.metrics import REQUESTS as REQUESTS_METRIC
from tests.containers import inventory_of
from tests.test_app import memory_settings

# the test replaces {} with the id of a product
PATHS = [
    "/products",
    "/products?limit=3",
    "/products?limit=3&sort=price",
    "/products?category=tea&in_stock=true",
    "/products?q=%25",
    "/products?q=green+tea&facets=category,options,tag",
    "/products?q=gren&sort=relevance&limit=2",
    "/products?q=%F0%9F%8D%B5",
    "/products?facets=colour",
    "/products?facets=",
    "/products?limit=0",
    "/products?limit=x",
    "/products?limit=1&limit=2",
    "/products?unknown=1",
    "/products?cursor=forged",
    "/products?min_price=5&max_price=",
    "/products?q=%00",
    "/products/{}",
    "/products/{}?unused=1",
    "/products/01890000-0000-7000-8000-000000000000",
    "/products/not-an-id",
    "/products/by-sku/GIFT-BOX-GREEN",
    "/categories",
    "/families",
    "/families?limit=3&sort=-price&option.weight=100+g",
    "/families?facets=tag",
    "/families/sencha",
    "/families/SENCHA",
    "/families/nowhere",
]
CACHED_PATHS = [
    "/products",
    "/products?limit=3&sort=price",
    "/products/{}",
    "/categories",
    "/families",
    "/families/sencha",
]


class Counter:
    """ASGI middleware that counts the requests that reach FastAPI."""

    count = 0

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        Counter.count += scope["type"] == "http"
        await self._app(scope, receive, send)


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Gateway]:
    """An application with demo products, in which no cached data expires."""
    app = create_app(memory_settings(**settings))
    app.app.add_middleware(Counter)
    async with app.lifespan():
        inventory = inventory_of(app.container)
        inventory.cache()._clock = lambda: 0.0
        await shop.fill(inventory.catalogue(), inventory.stockroom(), system_context("test"))
        yield app


@pytest.fixture(scope="module")
async def app() -> AsyncIterator[Gateway]:
    async with running() as app:
        yield app


@pytest.fixture(scope="module")
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(app) as http:
        yield http


@pytest.fixture(scope="module")
async def uncached(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a second application with the same container and no response cache."""
    settings = memory_settings(response_cache_ttl_seconds=0)
    async with client(Gateway(settings, lambda: app.container)) as http:
        yield http


def client(app: Gateway, address: str = "127.0.0.1") -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app, client=(address, 1234))
    return httpx2.AsyncClient(transport=transport, base_url="http://shop")


async def first_path(http: httpx2.AsyncClient, path: str) -> str:
    items = (await http.get("/products?limit=1")).json()["items"]
    return path.format(items[0]["product_id"])


def comparable_parts(response: httpx2.Response) -> tuple[int, bytes, dict[str, str]]:
    return response.status_code, response.content, dict(response.headers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", [{}, {"If-None-Match": "*"}, {"Authorization": "Bearer x"}])
async def test_cached_responses_equal_uncached_ones(
    http: httpx2.AsyncClient, uncached: httpx2.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    path = await first_path(http, path)
    headers = {**headers, "X-Request-ID": "the-same-for-all"}

    responses = [await each.get(path, headers=headers) for each in (http, http, uncached)]

    assert (
        comparable_parts(responses[0])
        == comparable_parts(responses[1])
        == comparable_parts(responses[2])
    )


AccessLines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def access_lines() -> Iterator[AccessLines]:
    """Return a function that reads the lines of the access log since its last call."""
    output = io.StringIO()

    def read() -> list[dict[str, Any]]:
        access_log.flush()
        lines = output.getvalue().splitlines()
        output.seek(0)
        output.truncate()
        return [json.loads(line) for line in lines]

    with redirect_stdout(output):
        access_log.configure(pretty=False, level="info")
    yield read
    access_log.configure(pretty=False, level="info")


@pytest.mark.parametrize("path", CACHED_PATHS)
@pytest.mark.parametrize("headers", [{}, {"If-None-Match": "*"}, {"User-Agent": 'a"b\\c\xe4'}])
async def test_cached_response_is_logged_and_counted_like_an_uncached_one(
    http: httpx2.AsyncClient,
    uncached: httpx2.AsyncClient,
    path: str,
    headers: dict[str, str],
    access_lines: AccessLines,
) -> None:
    route = path.replace("{}", "{product_id}").replace("sencha", "{slug:path}").partition("?")[0]
    path = await first_path(http, path)
    given = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await http.get(path)
    reached, counted = Counter.count, requests_to(route)
    access_lines()

    cached = await http.get(path, headers=given)
    assert Counter.count == reached
    plain = await uncached.get(path, headers=given)
    lines = access_lines()

    assert cached.headers.pop("x-request-id") != plain.headers.pop("x-request-id")
    assert comparable_parts(cached) == comparable_parts(plain)
    unique_fields = {"request_id": "", "duration_ms": 0, "timestamp": ""}
    assert {**lines[0], **unique_fields} == {**lines[1], **unique_fields}
    assert list(lines[0]) == list(lines[1])
    assert requests_to(route) == counted + 2


def requests_to(route: str) -> float:
    samples = next(iter(REQUESTS_METRIC.collect())).samples
    return sum(
        sample.value
        for sample in samples
        if sample.labels.get("route") == route and sample.name.endswith("_total")
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Request-ID": "an-id-of-the-client"},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    ],
)
async def test_client_request_ids_are_used_in_cached_responses(
    http: httpx2.AsyncClient,
    uncached: httpx2.AsyncClient,
    headers: dict[str, str],
    access_lines: AccessLines,
) -> None:
    await http.get("/products")
    access_lines()

    cached = await http.get("/products", headers=headers)
    plain = await uncached.get("/products", headers=headers)
    lines = access_lines()

    assert cached.content == plain.content
    assert lines[0].keys() == lines[1].keys()
    assert headers.get("X-Request-ID", "") in cached.headers["x-request-id"]


async def test_a_request_with_a_token_reaches_the_application(http: httpx2.AsyncClient) -> None:
    await http.get("/products")
    reached = Counter.count

    await http.get("/products", headers={"Authorization": "Bearer x"})

    assert Counter.count == reached + 1


async def test_too_large_headers_are_refused_for_cached_responses_too(
    http: httpx2.AsyncClient,
) -> None:
    await http.get("/products")

    response = await http.get("/products", headers={"X-Much": "x" * 40_000})

    assert response.status_code == 431


async def test_a_cached_response_to_head_has_no_body(http: httpx2.AsyncClient) -> None:
    get = await http.get("/products")
    reached = Counter.count

    head = await http.head("/products")

    assert Counter.count == reached
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(get.content))


async def test_rate_limits_count_cached_responses_for_each_client(
    access_lines: AccessLines,
) -> None:
    async with (
        running(rate_limits="on", trusted_proxies="127.0.0.1/32") as app,
        client(app) as http,
    ):
        await http.get("/products")
        access_lines()
        remaining = [
            (await http.get("/products", headers={"X-Forwarded-For": address})).headers
            for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2")
        ]
        lines = access_lines()
        for _ in range(REQUESTS.quota - 2):
            await http.get("/products", headers={"X-Forwarded-For": "192.0.2.1"})
        refused = await http.get("/products", headers={"X-Forwarded-For": "192.0.2.1"})

    expected = [f";r={REQUESTS.quota - spent};" for spent in (1, 2, 1)]
    assert all(
        part in headers["ratelimit"] for part, headers in zip(expected, remaining, strict=True)
    )
    assert [line["client_ip"] for line in lines] == ["192.0.2.1", "192.0.2.1", "192.0.2.2"]
    assert refused.status_code == 429


async def test_change_invalidates_the_cached_response(
    app: Gateway, http: httpx2.AsyncClient
) -> None:
    product = (await http.get("/products/by-sku/CUP-STONE-BLUE")).json()
    path = f"/products/{product['product_id']}"
    etag = (await http.get(path)).headers["etag"]
    known = await http.get(path, headers={"If-None-Match": etag})

    change = ProductChange.model_validate({"name": "Cup of another name"})
    staff = system_context("test")
    await (
        inventory_of(app.container)
        .catalogue()
        .change(staff, UUID(product["product_id"]), change, None)
    )
    changed = await http.get(path, headers={"If-None-Match": etag})

    assert (known.status_code, changed.status_code) == (304, 200)
    assert changed.json()["name"] == "Cup of another name"
    assert changed.headers["etag"] != etag


@pytest.mark.parametrize("settings", [{"cache": "off"}, {"response_cache_ttl_seconds": 0}])
async def test_disabled_cache_forwards_every_request(
    settings: dict[str, Any],
) -> None:
    async with running(**settings) as app, client(app) as http:
        reached = Counter.count
        responses = [await http.get("/products") for _ in range(2)]

    assert [response.status_code for response in responses] == [200, 200]
    assert Counter.count == reached + 2


async def test_response_matches_its_schema(app: Gateway, http: httpx2.AsyncClient) -> None:
    document: dict[str, Any] = app.app.openapi()
    page = (await http.get("/products")).json()
    one = (await http.get(f"/products/{page['items'][0]['product_id']}")).json()

    for schema, response in (("ProductView", one), ("ProductPage", page)):
        full_schema = {
            "$ref": f"#/components/schemas/{schema}",
            "components": document["components"],
        }
        assert list(Draft202012Validator(full_schema).iter_errors(response)) == []
    properties = document["components"]["schemas"]["ProductView"]["properties"]
    assert set(one) == set(properties)
