"""Test that the index finds the route of each request, and compares few routes."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from opentelemetry import trace
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from markethall.app import create_app
from markethall.shared.http.route_index import RouteIndex
from markethall.shared.security.access_tokens import generate_private_key
from tests.test_app import memory_settings


class CountedRoute(APIRoute):
    """A route that counts how often it is compared with a path."""

    comparisons = 0

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        self.comparisons += 1
        return super().matches(scope)


class RecordedSpan(trace.NonRecordingSpan):
    """A span that stores its attributes."""

    def __init__(self) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self.attributes: dict[str, Any] = {}

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value


class Recorder(trace.NoOpTracer, trace.TracerProvider):
    """A tracer provider that is also its only tracer, and uses one span for all operations."""

    def __init__(self) -> None:
        self.span = RecordedSpan()

    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        return self

    def start_span(self, *_: Any, **__: Any) -> trace.Span:
        return self.span


def build_app(recorder: Recorder | None = None) -> FastAPI:
    app = FastAPI(telemetry={"tracer_provider": recorder})
    app.router.route_class = CountedRoute

    @app.get("/{anything}/me")
    async def anything(anything: str) -> str:
        return f"anything {anything}"

    @app.get("/users/{user_id}")
    async def user(user_id: str) -> str:
        return f"user {user_id}"

    @app.patch("/users/{user_id}")
    async def change(user_id: str) -> str:
        return f"changed {user_id}"

    @app.get("/users/me")
    async def me() -> str:
        return "me"

    @app.post("/users")
    async def create() -> str:
        return "created"

    @app.get("/orders/{order_id}")
    async def order(order_id: str) -> str:
        return f"order {order_id}"

    app.router.routes.insert(0, RouteIndex(app.router.routes))
    return app


@pytest.fixture
def app() -> FastAPI:
    return build_app()


@pytest.fixture
async def http(app: FastAPI) -> Any:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/users/me", 200, "me"),
        ("GET", "/users/7", 200, "user 7"),
        ("POST", "/users", 200, "created"),
        ("GET", "/orders/7", 200, "order 7"),
        ("GET", "/payments/me", 200, "anything payments"),
        ("DELETE", "/users/me", 405, {"detail": "Method Not Allowed"}),
        ("PATCH", "/users/me", 405, {"detail": "Method Not Allowed"}),
        ("PATCH", "/users/7", 200, "changed 7"),
        ("GET", "/users", 405, {"detail": "Method Not Allowed"}),
        ("GET", "/users/7/orders", 404, {"detail": "Not Found"}),
        ("GET", "/", 404, {"detail": "Not Found"}),
    ],
)
async def test_request_reaches_its_route(
    http: httpx2.AsyncClient, method: str, path: str, status: int, body: Any
) -> None:
    response = await http.request(method, path)

    assert (response.status_code, response.json()) == (status, body)


async def test_route_is_found_behind_a_root_path(app: FastAPI) -> None:
    transport = httpx2.ASGITransport(app, root_path="/shop")
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        response = await http.get("/shop/users/7")

    assert response.json() == "user 7"


async def test_span_of_a_request_names_the_route() -> None:
    recorder = Recorder()
    transport = httpx2.ASGITransport(build_app(recorder))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        await http.get("/users/7")

    assert recorder.span.attributes["http.route"] == "/users/{user_id}"


async def test_only_routes_with_the_first_segment_are_compared(
    app: FastAPI, http: httpx2.AsyncClient
) -> None:
    await http.get("/users/7")

    counted = [route for route in app.router.routes if isinstance(route, CountedRoute)]
    assert {route.name: route.comparisons for route in counted} == {
        "anything": 0,
        "me": 1,
        "user": 1,
        "change": 0,
        "create": 1,
        "order": 0,
    }


async def test_path_without_parameters_is_compared_with_its_own_routes_only(
    app: FastAPI, http: httpx2.AsyncClient
) -> None:
    await http.get("/users/me")

    counted = [route for route in app.router.routes if isinstance(route, CountedRoute)]
    assert {route.name for route in counted if route.comparisons} == {"me"}


EXTRACTED = {
    "contexts": frozenset({"inventory"}),
    "context_urls": {"users": "http://users", "orders": "http://orders"},
    "redis_url": "redis://redis",
    "service_token_private_key": generate_private_key(),
}


@pytest.mark.parametrize("settings", [{}, EXTRACTED], ids=["monolith", "extracted service"])
def test_index_finds_each_route_of_the_shop_like_a_search_in_turn(settings: Any) -> None:
    index, *others = create_app(memory_settings(**settings)).app.router.routes
    assert isinstance(index, RouteIndex)
    # no included router, whose routes would not be in the index
    assert all(isinstance(route, Route) for route in others)

    for scope in scopes(others):
        expected = next(route for route in others if route.matches({**scope})[0] is Match.FULL)
        match, child_scope = index.matches({**scope})
        assert (match, child_scope.get("route")) == (Match.FULL, expected), scope["path"]


def scopes(routes: list[BaseRoute]) -> Iterator[Scope]:
    """Yield a request for each method of each route, with parameter names as parameter values."""
    for route in routes:
        if isinstance(route, APIRoute):
            path = route.path.replace("{", "").replace("}", "").replace(":path", "")
            for method in route.methods or ():
                yield {"type": "http", "method": method, "path": path, "root_path": ""}
