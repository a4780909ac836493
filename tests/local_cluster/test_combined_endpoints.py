"""What the front answers itself: for itself, or for all four at once."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from markethall.main import create_app
from markethall.settings import Settings, read_settings
from markethall.topology import KEYS, NEEDS, Context
from tests.apart.services import Market, Nowhere, as_json, front_of, market
from tests.e2e.shop import good, refused
from tests.wire import tcp

PROBLEM = b"application/problem+json"
COUNTS = {
    Context.USERS: "user_count",
    Context.INVENTORY: "product_count",
    Context.ORDERS: "order_count",
    Context.PAYMENTS: "payment_count",
}


@pytest.fixture
async def four() -> AsyncIterator[Market]:
    async with market(debug=True) as found:
        for context, service in found.services.items():
            service.says = as_json(dict.fromkeys(COUNTS.values()) | {COUNTS[context]: 5})
        yield found


@pytest.fixture
async def http(four: Market) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=four.url, timeout=20) as client:
        yield client


async def test_it_is_alive_by_itself(four: Market, http: httpx2.AsyncClient) -> None:
    for service in four.services.values():
        service.says = as_json({}, 503)

    assert good(await http.get("/health"), 200) == {"status": "ok"}


async def test_it_is_ready_when_all_are(four: Market, http: httpx2.AsyncClient) -> None:
    ready = good(await http.get("/ready"), 200)

    assert ready == {"status": "ready", "checks": dict.fromkeys(Context, "ok")}
    assert four.asked == [b"GET /ready"] * 4


async def test_it_names_who_is_not_ready(four: Market, http: httpx2.AsyncClient) -> None:
    four.services[Context.ORDERS].says = as_json({}, 503)
    four.services[Context.INVENTORY].says = as_json({}, 503)

    answer = await http.get("/ready")

    problem = refused(answer, 503, "system.not_ready")
    assert problem["details"] == {"failing": ["inventory", "orders"]}
    assert answer.headers["retry-after"] == "1"


async def test_it_is_not_ready_when_it_is_to_end(four: Market, http: httpx2.AsyncClient) -> None:
    four.front.state.readiness.draining = True

    problem = refused(await http.get("/ready"), 503, "system.not_ready")

    assert problem["details"] == {"failing": ["shutdown"]}


async def test_counts_are_put_together(four: Market, http: httpx2.AsyncClient) -> None:
    stats = good(await http.get("/stats"), 200)

    assert stats == dict.fromkeys(COUNTS.values(), 5)


async def test_counts_are_asked_with_the_token_of_whoever_asks(
    four: Market, http: httpx2.AsyncClient
) -> None:
    said = {"Authorization": "Bearer x.y.z", "X-Request-ID": "stats-0001", "Cookie": "a=b"}

    answer = await http.get("/stats", headers={**said, "X-Forwarded-For": "203.0.113.9"})

    assert answer.headers["x-request-id"] == "stats-0001"
    for service in four.services.values():
        assert service.heard["authorization"] == "Bearer x.y.z"
        assert service.heard["x-request-id"] == "stats-0001"
        assert service.heard["x-forwarded-for"] == "127.0.0.1"
        assert "cookie" not in service.heard


async def test_a_refusal_to_count_is_passed_through(four: Market, http: httpx2.AsyncClient) -> None:
    problem = {"code": "auth.forbidden", "details": {"scope": "stats:read"}}
    four.services[Context.PAYMENTS].says = as_json(problem, 403, PROBLEM)

    answer = await http.get("/stats")

    assert refused(answer, 403, "auth.forbidden") == problem


async def test_it_says_who_runs_where(http: httpx2.AsyncClient) -> None:
    debug = good(await http.get("/debug"), 200)

    assert debug["services"] == {
        context.value: seat.model_dump() for context, seat in Nowhere().seats().items()
    }


async def test_who_runs_where_is_said_only_when_it_is_asked_for() -> None:
    async with market() as quiet, httpx2.AsyncClient(base_url=quiet.url) as http:
        refused(await http.get("/debug"), 404, "request.not_found")


async def test_its_metrics_are_its_own(four: Market, http: httpx2.AsyncClient) -> None:
    answer = await http.get("/metrics")

    assert "http_requests" in answer.text
    assert four.asked == []


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_method_that_does_not_fit_is_refused(http: httpx2.AsyncClient, method: str) -> None:
    refused(await http.request(method, "/ready"), 405, "request.method_not_allowed")


@asynccontextmanager
async def real(folder: Path, **settings: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a front before the four applications themselves."""
    async with AsyncExitStack() as stack:
        urls = {}
        for context in Context:
            app = create_app(alone(context, folder, **settings))
            urls[context] = await stack.enter_async_context(tcp.listening(app))
        url, _ = await stack.enter_async_context(front_of(urls, **settings))
        yield await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=20))


def alone(context: Context, folder: Path, **settings: str) -> Settings:
    neighbours = NEEDS[context] | KEYS[context]
    return read_settings(
        serve=context.value,
        remotes=dict.fromkeys(neighbours, "http://127.0.0.1:1"),
        redis_url="redis://127.0.0.1:1",
        storage="memory",
        data_dir=folder,
        **settings,
    )


async def test_the_document_of_four_is_that_of_the_hall(tmp_path: Path) -> None:
    whole = create_app(read_settings(storage="memory", data_dir=tmp_path)).openapi()

    async with real(tmp_path) as http:
        document = good(await http.get("/openapi.json"), 200)

    assert list(document["paths"]) == list(whole["paths"])
    assert operations(document) == operations(whole)
    assert document["components"] == whole["components"]
    assert document == whole


def operations(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{method} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


async def test_the_page_needs_nothing_from_elsewhere(
    four: Market, http: httpx2.AsyncClient
) -> None:
    page = await http.get("/docs")
    script = await http.get("/docs/swagger-ui-bundle.js")
    nothing = await http.get("/docs/../internal")

    assert "/openapi.json" in page.text
    assert "://" not in page.text.replace("http://www.w3.org", "")
    assert (script.status_code, len(script.content) > 100_000) == (200, True)
    refused(nothing, 404, "request.not_found")
    assert four.asked == []


async def test_without_documents_there_is_no_page_of_them(tmp_path: Path) -> None:
    async with real(tmp_path, docs="off") as http:
        for path in ("/docs", "/openapi.json"):
            refused(await http.get(path), 404, "request.not_found")
