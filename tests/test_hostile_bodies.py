"""Test that no request body takes too much memory, on each route with a body."""

import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import TypeAdapter

from markethall.app import Gateway, create_app
from markethall.contexts import topology
from markethall.payments.gateway.sandbox_webhooks import SIGNATURE_HEADER, SandboxWebhooks
from markethall.shared.http.request_body import validate_json
from markethall.shared.http.route_policies import RoutePolicy
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from markethall.shared.rpc.server import ServiceRoutePolicy
from markethall.shared.security.access_tokens import generate_private_key
from markethall.shared.security.jwks import LocalJwks
from markethall.shared.security.service_tokens import ServiceSigner, ServiceVerifier
from tests.hostile_bodies import FORM_SHAPES, JSON_SHAPES
from tests.test_app import ADMIN, memory_settings, policies

MAX_MEMORY_BYTES = 20 * 1024 * 1024
MAX_ERRORS = 50
# their tests are test_import_files.py and test_media_routes.py
UPLOADS = {"/imports", "/media"}
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
SIGNER = ServiceSigner(generate_private_key(), utc_now)


@dataclass(frozen=True)
class BodyRoute:
    """A route that takes a body. `path` contains the prefixes of its routers."""

    method: str
    path: str
    original: APIRoute

    @property
    def policy(self) -> RoutePolicy:
        return policies(self.original.dependant)[0]

    @property
    def url(self) -> str:
        return self.path.replace("{provider}", "sandbox").replace("{", "").replace("}", "")

    @property
    def is_form(self) -> bool:
        return self.path in {"/token", "/token/revoke"}

    @property
    def fields(self) -> list[str]:
        """The names of `_NAMES` that occur in the JSON schema of the body."""
        field = self.original.body_field
        if field is None:
            return ["data"]
        schema = json.dumps(_schema_of(field))
        names = [name for name in _NAMES if f'"{name}"' in schema]
        return names or ["lines"]


_NAMES = (
    "username", "email", "password", "full_name", "tags", "roles", "is_active", "lines", "note",
    "shipping_address", "expected_total", "reason", "carrier", "sku", "name", "price", "prices",
    "options", "attributes", "translations", "images", "description", "amount", "payment_method",
    "grant_type", "refresh_token", "token", "command",
)  # fmt: skip


def _schema_of(field: Any) -> Any:
    return TypeAdapter(field.field_info.annotation).json_schema()


def build_app(**settings: Any) -> Gateway:
    """Return an application of all contexts that also serves their internal APIs."""
    app = create_app(memory_settings(**settings))
    for context in sorted(topology().contexts):
        internal_api = topology().contexts[context].load_parts().internal_api
        if internal_api:
            app.app.include_router(internal_api.routes.router)
    callers = {name: LocalJwks(SIGNER.jwks) for name in topology().contexts}
    app.container.process.service_token_verifier.override(
        ServiceVerifier(callers, set(topology().contexts), utc_now)
    )
    return app


def body_routes() -> Iterator[BodyRoute]:
    for context in iter_route_contexts(build_app().app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and context.path not in UPLOADS:
            for method in sorted((context.methods or set()) & {"POST", "PUT", "PATCH"}):
                yield BodyRoute(method, str(context.path), route)


ROUTES = list(body_routes())


@pytest.fixture(scope="module")
async def app() -> AsyncIterator[Gateway]:
    app = build_app()
    async with app.lifespan():
        yield app


@pytest.fixture(scope="module")
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


@pytest.fixture(scope="module")
async def admin_token(http: httpx2.AsyncClient) -> str:
    form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
    return str((await http.post("/token", data=form)).json()["access_token"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_cost_of_any_body_is_bounded(
    route: BodyRoute, app: Gateway, http: httpx2.AsyncClient, admin_token: str
) -> None:
    headers = headers_for(route, admin_token)
    shapes = FORM_SHAPES if route.is_form else JSON_SHAPES
    size = route.policy.body_limits.max_bytes
    faults = []
    for name, build in shapes.items():
        body = build(size, route.fields)
        assert len(body) <= size, name
        signed = headers | webhook_signature(route, app, body)
        tracemalloc.start()
        response = await http.request(route.method, route.url, content=body, headers=signed)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if memory > MAX_MEMORY_BYTES:
            faults.append(f"{name}: {memory:,} bytes")
        if response.status_code >= 500 or response.status_code in {401, 403, 413, 415}:
            faults.append(f"{name}: {response.status_code} {response.text[:200]}")
        if response.status_code == 422 and len(response.json()["errors"]) > MAX_ERRORS:
            faults.append(f"{name}: {len(response.json()['errors'])} errors in the response")
        if (made := errors_made(route, body)) > MAX_ERRORS:
            faults.append(f"{name}: {made} errors made")

    assert faults == []


def test_routes_and_shapes_are_complete() -> None:
    assert len(JSON_SHAPES) >= 30
    assert len(ROUTES) > 25
    assert sum(route.path.startswith("/internal/") for route in ROUTES) > 8


def headers_for(route: BodyRoute, admin_token: str) -> dict[str, str]:
    token = admin_token
    policy = route.policy
    if isinstance(policy, ServiceRoutePolicy):
        caller = min(topology().allowed_calls[policy.target][policy.method])
        token = SIGNER.sign(caller, policy.target, policy.method, Actor(user_id=new_id()))
    return {
        "Authorization": f"Bearer {token}",
        "Content-Type": FORM if route.is_form else JSON,
        "If-Match": "*",
        "Idempotency-Key": "hostile",
    }


def webhook_signature(route: BodyRoute, app: Gateway, body: bytes) -> dict[str, str]:
    if "webhooks" not in route.path:
        return {}
    webhooks = SandboxWebhooks(app.container.process.secrets().secret_key)
    return {SIGNATURE_HEADER: webhooks.compute_signature(body, utc_now())}


def errors_made(route: BodyRoute, body: bytes) -> int:
    """Return the number of validation errors for this body."""
    field = route.original.body_field
    if field is None or route.is_form:
        return 0
    try:
        validate_json(body, route.policy.body_limits.max_members)
    except DomainError:
        return 1
    _, errors = field.validate(json.loads(body), {}, loc=("body",))
    return len(errors or ())
