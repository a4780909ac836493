"""How many SQL statements a request may cost, counted on a real Postgres."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from markethall.main import create_app
from markethall.settings import read_settings
from markethall.shared.metrics import STATEMENTS
from tests.test_app import ADMIN


@pytest.fixture
async def app(database_url: str, tmp_path: Any) -> AsyncIterator[FastAPI]:
    """Without its lifespan: no background work counts into a request."""
    settings = read_settings(database_url=database_url, data_dir=tmp_path, cache="off", **ADMIN)
    app = create_app(settings)
    await app.state.container.accounts().first_admin(*ADMIN.values())
    yield app
    await app.state.container.pools().close()
    app.state.container.passwords().close()


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://hall") as http:
        form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
        token = (await http.post("/token", data=form)).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


@pytest.fixture
async def product_id(http: httpx2.AsyncClient) -> str:
    price = {"amount": 1999, "currency": "EUR"}
    body = {"sku": "TEA", "name": "Tea", "price": price}
    made = (await http.post("/products", json=body)).json()
    path = f"/products/{made['product_id']}/stock-adjustments"
    goods = {"delta": 100, "reason": "received"}
    assert (await http.post(path, json=goods, headers=key("stock"))).status_code == 201
    return str(made["product_id"])


def key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


async def cost(http: httpx2.AsyncClient, method: str, path: str, **options: Any) -> tuple[int, Any]:
    before = STATEMENTS._value.get()
    answer = await http.request(method, path, **options)
    assert answer.is_success, answer.text
    return int(STATEMENTS._value.get() - before), answer.json()


async def test_reads_are_one_statement(http: httpx2.AsyncClient, product_id: str) -> None:
    assert (await cost(http, "GET", f"/products/{product_id}"))[0] == 1
    assert (await cost(http, "GET", "/products?limit=20"))[0] == 1
    assert (await cost(http, "GET", "/users/me"))[0] == 1


async def test_placing_an_order_is_at_most_twelve(
    http: httpx2.AsyncClient, product_id: str
) -> None:
    body = {"product_id": product_id, "quantity": 2, "shipping_address": "Market 1"}

    statements, order = await cost(http, "POST", "/orders", json=body, headers=key("order"))
    paying = await cost(
        http,
        "POST",
        f"/payments/{order['payment']['payment_id']}/confirm",
        json={"payment_method": "sandbox_ok"},
        headers=key("pay"),
    )

    assert statements <= 12
    assert paying[0] <= 11
    assert (await cost(http, "GET", f"/orders/{order['order_id']}/status"))[0] == 1
