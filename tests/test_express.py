"""The express lane gives the same answers as the framework's own way."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator

from markethall import demo
from markethall.main import create_app
from markethall.shared.call import system_call
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


@pytest.fixture(scope="module")
async def app() -> AsyncIterator[FastAPI]:
    app = create_app(memory_settings())
    async with visiting(app):
        hall = app.state.container
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
