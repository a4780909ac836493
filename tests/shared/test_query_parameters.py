"""Test that query parameters are parsed and documented as FastAPI does."""

from typing import Annotated, Any

import httpx2
import pytest
from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError

from markethall.inventory.catalogue.contract.categories import CategoryQuery
from markethall.inventory.search.contract import ProductQuery
from markethall.shared.http.openapi import extend_openapi
from markethall.shared.http.problem_details import validation_handler
from markethall.shared.http.query_parameters import from_query
from markethall.shared.kernel.pagination import PageQuery

# the fields of ProductQuery whose parameters have names that clients choose
MAPPINGS = {"option", "attribute"}
QUERIES = [
    "",
    "limit=5",
    "limit=+5",
    "limit=5.0",
    "limit=5e1",
    "limit=",
    "limit=x&sort=y",
    "limit=0",
    "limit=101",
    "cursor=abc",
    "cursor=",
    "unknown=1",
    "unknown",
    "limit=1&unknown=%00&other=",
    "in_stock=true",
    "in_stock=1",
    "in_stock=on",
    "in_stock=maybe",
    "in_stock=",
    "min_price=1&max_price=-1",
    "min_price=1_000",
    "min_price=%D9%A1",
    "q=green+tea%20&category=tea",
    "q=%ff",
    "q=%F0%9F%8D%B5",
    "q=",
    "q",
    "q=a;b",
    "q=a%26b&&tag=%3D",
    "q=ä",
    "status=draft",
    "status=DRAFT",
    "sort=-price",
    "sort=",
    "facets=category,tag",
    "facets=colour",
    "limit=1&limit=2",
    "self=1",
]


def build_app(annotation: Any) -> FastAPI:
    app = FastAPI(exception_handlers={RequestValidationError: validation_handler})

    async def route(name: str, query: Any) -> Any:
        return query

    route.__annotations__["query"] = annotation
    app.get("/{name}")(route)

    @app.middleware("http")
    async def add_request_id(request: Any, call_next: Any) -> Any:
        request.scope["state"] = {"request_id": "test"}
        return await call_next(request)

    return app


APPS = {
    model: (
        build_app(Annotated[model, from_query(model)]),
        build_app(Annotated[model, Query()]),
    )
    for model in (ProductQuery, CategoryQuery, PageQuery)
}


@pytest.mark.parametrize("model", APPS)
@pytest.mark.parametrize("query", QUERIES)
async def test_query_is_parsed_as_by_fastapi(model: type[PageQuery], query: str) -> None:
    responses = []
    for app in APPS[model]:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            responses.append(await http.get(f"/x?{query}"))

    ours, theirs = [(response.status_code, response.json()) for response in responses]
    assert ours == theirs
    assert ours[0] in {200, 422}


@pytest.mark.parametrize("model", APPS)
def test_parameters_are_documented_as_by_fastapi(model: type[PageQuery]) -> None:
    ours, theirs = [extend_openapi(app)() for app in APPS[model]]

    removed = [_remove_mappings(document) for document in (ours, theirs)]
    assert ours == theirs
    names = [parameter["name"] for parameter in _parameters(ours)]
    assert names == ["name", *(name for name in model.model_fields if name not in removed[0])]
    assert removed[0] == removed[1] == (MAPPINGS if model is ProductQuery else set())


def _parameters(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["paths"]["/{name}"]["get"]["parameters"]
    return found


def _remove_mappings(document: dict[str, Any]) -> set[str]:
    """Remove the mappings, which FastAPI documents differently, and return their names."""
    parameters = _parameters(document)
    removed = [parameter for parameter in parameters if parameter["name"] in MAPPINGS]
    parameters[:] = [parameter for parameter in parameters if parameter not in removed]
    return {parameter["name"] for parameter in removed}
