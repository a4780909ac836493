"""Requests leave no objects that refer to each other, on Postgres.

Only a garbage collection frees such objects. Until it runs, they take memory, and it stops every
other request.
"""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import pytest
from starlette.types import Message

from markethall.app import Gateway, create_app
from markethall.settings import read_settings
from tests.containers import users_of
from tests.test_app import ADMIN

REQUESTS: Final = 20
ADDRESS: Final = {
    "recipient": "Ada",
    "line1": "1",
    "city": "Delft",
    "postal_code": "1",
    "country": "NL",
}


@dataclass
class RawClient:
    """Calls the application without an HTTP client, which may leave garbage of its own."""

    app: Gateway
    token: str = ""
    _numbers: "count[int]" = field(default_factory=count)

    async def send(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """Return the status and the decoded body."""
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        headers = {
            "host": "app",
            "content-type": content_type,
            "content-length": str(len(content)),
            "idempotency-key": f"key-{next(self._numbers)}",
        }
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        answer: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Message) -> None:
            answer.append(message)

        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": target,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
        }
        await self.app(scope, receive, send)
        return answer[0]["status"], json.loads(answer[1]["body"])

    async def log_in(self) -> None:
        form = f"username={ADMIN['admin_email']}&password={ADMIN['admin_password']}"
        _, tokens = await self.send("POST", "/token", form, "application/x-www-form-urlencoded")
        self.token = tokens["access_token"]

    async def create_product(self, sku: str, stock: int) -> str:
        price = {"amount": 1999, "currency": "EUR"}
        fields = {"sku": sku, "name": "Tea", "price": price}
        _, product = await self.send("POST", "/products", fields)
        path = f"/products/{product['product_id']}/stock-adjustments"
        status, _ = await self.send("POST", path, {"delta": stock, "reason": "received"})
        assert status == 201
        return str(product["product_id"])


@pytest.fixture
async def client(database_url: str, tmp_path: Any) -> AsyncIterator[RawClient]:
    """A client of the application, which runs no background work."""
    given = {
        "data_dir": tmp_path,
        "database_timeout": 30,
        "request_deadline_seconds": 60,
        "max_unpaid_orders_per_customer": 1000,
    }
    app = create_app(read_settings(database_url=database_url, **given, **ADMIN))
    await users_of(app.container).accounts().create_first_admin(*ADMIN.values())
    client = RawClient(app)
    await client.log_in()
    yield client
    await app.container.close()


async def garbage_of(client: RawClient, method: str, path: str, body: Any, status: int) -> float:
    """Return the number of unreachable objects of a request, on average."""
    for _ in range(3):  # fill caches, compile statements
        assert (await client.send(method, path, body))[0] == status
    await asyncio.sleep(0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(REQUESTS):
            assert (await client.send(method, path, body))[0] == status
        return gc.collect() / REQUESTS
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("method", "path", "stock", "status"),
    [
        ("GET", "/products", 1, 200),
        ("GET", "/products/{product_id}", 1, 200),
        ("GET", "/users/me", 1, 200),
        ("GET", "/orders", 1, 200),
        ("GET", "/nowhere", 1, 404),
        ("POST", "/orders", 1000, 201),
        ("POST", "/orders", 1, 409),
        ("POST", "/payments/{product_id}/confirm", 1, 422),
    ],
)
async def test_request_leaves_no_garbage(
    client: RawClient, method: str, path: str, stock: int, status: int
) -> None:
    product_id = await client.create_product("TEA", stock)
    order = {"lines": [{"product_id": product_id, "quantity": 2}], "shipping_address": ADDRESS}

    garbage = await garbage_of(client, method, path.format(product_id=product_id), order, status)

    assert garbage < 1


@pytest.mark.parametrize("path", ["/products", "/users/me"])
async def test_request_without_valid_token_leaves_no_garbage(client: RawClient, path: str) -> None:
    status = 200 if path == "/products" else 401
    client.token = "invalid"

    assert await garbage_of(client, "GET", path, None, status) < 1
