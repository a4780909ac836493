"""The express lane gives the same answers as the framework's own way."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator
from structlog.testing import capture_logs

from markethall.inventory.contract import ProductChange
from markethall.local import demo
from markethall.main import create_app
from markethall.shared.call import system_call
from markethall.shared.warm import Warm
from tests.test_app import memory_settings, visiting

# {} is the id of a product
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
]


WARM = ["/products", "/products?limit=3&sort=price", "/products/{}"]


@pytest.fixture(scope="module")
async def app() -> AsyncIterator[FastAPI]:
    app = create_app(memory_settings())
    async with visiting(app):
        hall = app.state.container
        # its time stands still: a slow machine must not make the answers old
        hall.cache()._clock = lambda: 0.0
        await demo.fill(hall.catalogue(), hall.stockroom(), system_call("test"))
        yield app


@pytest.fixture(scope="module")
async def ways(app: FastAPI) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    """The same container behind both: with the express lane, and without it."""
    slow = create_app(memory_settings())
    slow.state.container = app.state.container
    slow.open_front(memory_settings(), slow.state.container, lanes=[])
    async with _client(app) as short, _client(slow) as long:
        yield short, long


def _client(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://hall")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", [{}, {"If-None-Match": "*"}, {"Authorization": "Bearer x"}])
async def test_both_ways_answer_the_same(
    ways: tuple[httpx2.AsyncClient, httpx2.AsyncClient], path: str, headers: dict[str, str]
) -> None:
    short, long = ways
    first = (await short.get("/products?limit=1")).json()["items"][0]["product_id"]
    headers = {**headers, "X-Request-ID": "the-same-for-both"}

    express = await short.get(path.format(first), headers=headers)
    framework = await long.get(path.format(first), headers=headers)

    assert seen(express) == seen(framework)


def seen(answer: httpx2.Response) -> tuple[int, bytes, dict[str, str]]:
    return answer.status_code, answer.content, dict(answer.headers)


async def test_a_real_answer_fits_its_schema(app: FastAPI) -> None:
    document: dict[str, Any] = app.openapi()
    async with _client(app) as http:
        page = (await http.get("/products")).json()
        one = (await http.get(f"/products/{page['items'][0]['product_id']}")).json()

    for schema, answer in (("Product", one), ("ProductPage", page)):
        whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
        assert list(Draft202012Validator(whole).iter_errors(answer)) == []
    properties = document["components"]["schemas"]["Product"]["properties"]
    assert set(one) == set(properties)


@pytest.mark.parametrize("path", WARM)
@pytest.mark.parametrize("headers", [{}, {"If-None-Match": "*"}, {"User-Agent": 'a"b\\c\xe4'}])
async def test_what_is_warm_is_answered_and_written_down_the_same(
    ways: tuple[httpx2.AsyncClient, httpx2.AsyncClient],
    app: FastAPI,
    path: str,
    headers: dict[str, str],
) -> None:
    short, long = ways
    path = path.format((await short.get("/products?limit=1")).json()["items"][0]["product_id"])
    given = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await short.get(path)
    assert is_warm(app, path)

    with capture_logs() as lines:
        warm = await short.get(path, headers=given)
        framework = await long.get(path, headers=given)

    assert is_warm(app, path)
    assert warm.headers.pop("x-request-id") != framework.headers.pop("x-request-id")
    assert seen(warm) == seen(framework)
    own = {"request_id": "", "duration_ms": 0}
    assert {**lines[0], **own} == {**lines[1], **own}
    assert list(lines[0]) == list(lines[1])


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer x"},
        {"X-Request-ID": "a-name-of-my-own"},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    ],
)
async def test_who_shows_more_takes_the_long_way(
    ways: tuple[httpx2.AsyncClient, httpx2.AsyncClient], headers: dict[str, str]
) -> None:
    short, long = ways
    await short.get("/products")

    with capture_logs() as lines:
        warm = await short.get("/products", headers=headers)
        framework = await long.get("/products", headers=headers)

    assert warm.content == framework.content
    assert lines[0].keys() == lines[1].keys()
    assert headers.get("X-Request-ID", "") in warm.headers["x-request-id"]


async def test_too_many_headers_are_too_many_for_what_is_warm_too(
    ways: tuple[httpx2.AsyncClient, httpx2.AsyncClient],
) -> None:
    short, _ = ways
    await short.get("/products")

    answer = await short.get("/products", headers={"X-Much": "x" * 40_000})

    assert answer.status_code == 431


async def test_a_warm_answer_ends_with_the_change_of_what_it_shows(
    ways: tuple[httpx2.AsyncClient, httpx2.AsyncClient], app: FastAPI
) -> None:
    short, _ = ways
    hall = app.state.container
    product = (await short.get("/products/by-sku/CUP-STONE-BLUE")).json()
    path = f"/products/{product['product_id']}"
    for _ in range(2):
        await short.get(path)
    assert is_warm(app, path)

    change = ProductChange.model_validate({"name": "Cup of another name"})
    staff = system_call("test")
    await hall.catalogue().change(staff, UUID(product["product_id"]), change, None)

    assert not is_warm(app, path)
    assert (await short.get(path)).json()["name"] == "Cup of another name"


async def test_without_a_cache_nothing_is_made_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    monkeypatch.setattr(Warm, "keep", lambda _, *ready: kept.append(ready))
    app = create_app(memory_settings(cache="off"))

    async with visiting(app), _client(app) as http:
        answer = await http.get("/products")

    assert answer.status_code == 200
    assert kept == []


def is_warm(app: FastAPI, path: str) -> bool:
    plain, _, query = path.partition("?")
    warm: Warm = app.state.container.warm()
    return warm.find({"path": plain, "query_string": query.encode()}) is not None
