"""Test that a request waiting for the status of an order holds no shared slot."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.types import Message

from markethall.app import Gateway, create_app
from markethall.settings import read_settings
from markethall.shared.http.admission import AdmissionMiddleware
from tests.containers import orders_of
from tests.shared.cache_fixtures import until
from tests.test_app import ADMIN

PRICE = {"amount": 1999, "currency": "EUR"}


@pytest.fixture
async def app(tmp_path: Any) -> AsyncIterator[Gateway]:
    app = create_app(
        read_settings(
            storage="memory",
            data_dir=tmp_path,
            cache="off",
            # one slot: a waiting request that held it would block all other requests
            max_concurrent_requests=1,
            # shorter than the waits, which are 1 s and 25 s
            request_deadline_seconds=0.5,
            **ADMIN,
        )
    )
    async with app.lifespan():
        yield app


@pytest.fixture
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as http:
        form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
        token = (await http.post("/token", data=form)).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


@pytest.fixture
async def order(http: httpx2.AsyncClient) -> dict[str, Any]:
    body = {"sku": "TEA", "name": "Tea", "price": PRICE}
    product_id = (await http.post("/products", json=body)).json()["product_id"]
    receipt = {"delta": 100, "reason": "received"}
    path = f"/products/{product_id}/stock-adjustments"
    await http.post(path, json=receipt, headers={"Idempotency-Key": "stock"})
    line = {"product_id": product_id, "quantity": 1, "shipping_address": "Market 1"}
    placed = await http.post("/orders", json=line, headers={"Idempotency-Key": "order"})
    assert placed.status_code == 201, placed.text
    order: dict[str, Any] = placed.json()
    return order


def admission_of(app: Gateway) -> AdmissionMiddleware:
    admission = app._middleware._app
    assert isinstance(admission, AdmissionMiddleware)
    return admission


def waiting(app: Gateway) -> int:
    waits = orders_of(app.container).status_waits()
    return sum(wait.version is not None for each in waits._by_order.values() for wait in each)


async def test_waiting_requests_hold_no_slot(
    app: Gateway, http: httpx2.AsyncClient, order: dict[str, Any]
) -> None:
    path = f"/orders/{order['order_id']}/status?wait=25"
    waits = [asyncio.create_task(http.get(path)) for _ in range(3)]
    await until(lambda: waiting(app) == 3)
    admission = admission_of(app)
    in_use = {b.name: b.in_use for kind in admission.bulkheads.values() for b in kind}
    clients = dict(admission.clients.in_use)

    paid = await http.post(
        f"/payments/{order['payment']['payment_id']}/confirm",
        json={"payment_method": "sandbox_ok"},
        headers={"Idempotency-Key": "pay"},
    )
    responses = [await wait for wait in waits]

    assert set(in_use.values()) == {0}
    assert clients == {}
    assert paid.json()["status"] == "captured"
    assert [response.json()["status"] for response in responses] == ["processing"] * 3
    assert admission.clients.in_use == {}


async def test_wait_may_be_longer_than_the_request_deadline(
    http: httpx2.AsyncClient, order: dict[str, Any]
) -> None:
    response = await http.get(f"/orders/{order['order_id']}/status?wait=1")

    assert (response.status_code, response.json()["status"]) == (200, "pending")


async def test_wait_ends_when_the_client_disconnects(
    app: Gateway, http: httpx2.AsyncClient, order: dict[str, Any]
) -> None:
    disconnected = asyncio.Event()
    messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None: ...

    path = f"/orders/{order['order_id']}/status"
    authorization = http.headers["authorization"].encode()
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"wait=25",
        "headers": [(b"authorization", authorization)],
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
        "scheme": "http",
        "server": ("app", 80),
        "root_path": "",
    }
    request = asyncio.create_task(app(scope, receive, send))
    await until(lambda: waiting(app) == 1)

    disconnected.set()
    async with asyncio.timeout(20):
        await request

    assert waiting(app) == 0
    assert app._middleware.in_flight == 0


async def test_wait_ends_when_the_process_stops(
    app: Gateway, http: httpx2.AsyncClient, order: dict[str, Any]
) -> None:
    wait = asyncio.create_task(http.get(f"/orders/{order['order_id']}/status?wait=25"))
    await until(lambda: waiting(app) == 1)

    app.container.end_waits()

    async with asyncio.timeout(20):
        assert (await wait).json()["status"] == "pending"
