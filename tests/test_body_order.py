"""Test that the body of a request is read after routing, authorization and rate limits."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Message

from markethall.app import Gateway, create_app
from markethall.shared.http.rate_limits import REQUESTS
from markethall.shared.http.request_body import BodyBudget, LimitedBodyStream
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.errors import Overloaded
from tests.shared.test_gateway import FORM, JSON
from tests.test_app import memory_settings
from tests.test_hostile_bodies import ROUTES, SIGNER, BodyRoute, build_app


class Exchange:
    """An ASGI request that counts how often the application reads its body.

    The first part of the body is `first`. The second part is the result of the future `rest`.
    """

    def __init__(self, method: str, path: str, *headers: tuple[str, str], first: bytes = b"{}"):
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers],
            "client": ("192.0.2.1", 5000),
            "server": ("app", 80),
        }
        self.reads = 0
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.was_read = asyncio.Event()
        self.rest: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._first = first

    async def run(self, app: Any) -> "Exchange":
        await app(self.scope, self._receive, self._send)
        return self

    async def _receive(self) -> Message:
        self.reads += 1
        if self.reads == 1:
            return {"type": "http.request", "body": self._first, "more_body": True}
        self.was_read.set()
        return {"type": "http.request", "body": await self.rest, "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = dict(message["headers"])


@pytest.fixture(scope="module")
async def app() -> AsyncIterator[Gateway]:
    app = build_app()
    async with app.lifespan():
        yield app


PROTECTED_ROUTES = [route for route in ROUTES if route.policy.scope is not None]


@pytest.mark.parametrize(
    "route", PROTECTED_ROUTES, ids=lambda route: f"{route.method} {route.path}"
)
async def test_body_is_not_read_without_token(app: Gateway, route: BodyRoute) -> None:
    exchange = await Exchange(route.method, route.url, JSON).run(app)

    assert (exchange.status, exchange.reads) == (401, 0)


async def test_import_is_not_read_without_token(app: Gateway) -> None:
    exchange = await Exchange("POST", "/imports", ("content-type", "text/csv")).run(app)

    assert (exchange.status, exchange.reads) == (401, 0)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/nowhere", 404), ("PUT", "/orders", 405), ("POST", "/internal/nowhere", 404),
     ("DELETE", "/token", 405), ("POST", "/orders/", 307)],
)  # fmt: skip
async def test_body_of_unmatched_request_is_not_read(
    app: Gateway, method: str, path: str, status: int
) -> None:
    exchange = await Exchange(method, path, JSON).run(app)

    assert (exchange.status, exchange.reads) == (status, 0)


async def test_bodies_in_flight_share_a_budget() -> None:
    app = create_app(memory_settings(max_body_bytes=2048, max_body_bytes_in_flight=2048))
    budget = app.body_budget
    slow = Exchange("POST", "/token/revoke", FORM, first=b"token=" + b"x" * 1500)
    running = asyncio.create_task(slow.run(app))
    await slow.was_read.wait()

    rejected = await Exchange("POST", "/token/revoke", FORM, first=b"token=" + b"x" * 600).run(app)
    used_meanwhile = budget.used_bytes
    slow.rest.set_result(b"")
    await running
    later = Exchange("POST", "/token/revoke", FORM, first=b"token=" + b"x" * 600)
    later.rest.set_result(b"")
    await later.run(app)

    assert (rejected.status, rejected.headers[b"retry-after"]) == (503, b"1")
    assert used_meanwhile == 1506
    assert (slow.status, later.status) == (200, 200)
    assert budget.used_bytes == 0


async def test_abandoned_body_returns_its_bytes() -> None:
    app = create_app(memory_settings())
    slow = Exchange("POST", "/token/revoke", FORM, first=b"token=x")
    running = asyncio.create_task(slow.run(app))
    await slow.was_read.wait()

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert app.body_budget.used_bytes == 0


async def test_streamed_body_counts_only_its_last_chunk() -> None:
    budget = BodyBudget(1000)
    chunks = [b"x" * 600] * 5

    async def receive() -> Message:
        return {"type": "http.request", "body": chunks.pop(), "more_body": bool(chunks)}

    share = budget.open_share()
    stream = LimitedBodyStream(receive, 10_000, 5, lambda: None, share)
    used = [(await stream(), budget.used_bytes)[1] for _ in range(5)]

    assert used == [600] * 5
    with pytest.raises(Overloaded):
        budget.open_share().add(401)


@pytest.mark.parametrize("token", [None, "forged"])
async def test_internal_paths_are_rate_limited_without_service_token(token: str | None) -> None:
    app = create_app(memory_settings(rate_limits="on"))
    headers = [("authorization", f"Bearer {token}")] if token else []

    statuses = [
        (await Exchange("POST", "/internal/nowhere", *headers).run(app)).status
        for _ in range(REQUESTS.quota + 1)
    ]

    assert statuses == [404] * REQUESTS.quota + [429]


async def test_verified_service_is_not_rate_limited() -> None:
    app = build_app(rate_limits="on")
    token = SIGNER.sign("orders", "users", "get_active_customer", Actor())
    headers = [("authorization", f"Bearer {token}"), JSON]
    path = "/internal/users/get_active_customer"
    body = b'{"user_id":"0199c0de-0000-7000-8000-000000000001"}'
    statuses = set()

    for _ in range(REQUESTS.quota + 1):
        exchange = Exchange("POST", path, *headers, first=body)
        exchange.rest.set_result(b"")
        statuses.add((await exchange.run(app)).status)

    assert statuses == {404}
