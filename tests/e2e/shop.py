"""An HTTP client with the actions of customers and staff."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.e2e.servers import RunningServer
from tests.progress import progress_limit

TIMEOUT_SECONDS = 30


@dataclass
class Person:
    name: str
    email: str
    password: str
    user_id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class Shop:
    def __init__(self, server: RunningServer, http: httpx2.AsyncClient) -> None:
        self.server = server
        self.http = http
        self.admin = Person("admin", "", "", "", "")

    async def get(self, path: str, person: Person | None = None, **options: Any) -> httpx2.Response:
        return await self.send("GET", path, person, **options)

    async def post(
        self, path: str, person: Person | None = None, key: str | None = None, **options: Any
    ) -> httpx2.Response:
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        return await self.send("POST", path, person, headers=headers, **options)

    async def send(
        self, method: str, path: str, person: Person | None = None, **options: Any
    ) -> httpx2.Response:
        headers = {**(person.headers if person else {}), **options.pop("headers", {})}
        return await self.http.request(method, self.server.url(path), headers=headers, **options)

    async def sign_in(self, username: str, password: str) -> dict[str, Any]:
        form = {"grant_type": "password", "username": username, "password": password}
        answer = await self.send("POST", "/token", data=form)
        return expect_status(answer, 200)

    async def sign_in_admin(self, email: str, password: str) -> None:
        token = await self.sign_in(email, password)
        self.admin = Person("admin", email, password, "", token["access_token"])
        self.admin.user_id = expect_status(await self.get("/users/me", self.admin), 200)["user_id"]

    async def customer(self) -> Person:
        name = f"buyer-{secrets.token_hex(6)}"
        body = {"username": name, "email": f"{name}@example.com", "password": "correct horse 9"}
        user = expect_status(await self.post("/users", json=body), 201)
        token = await self.sign_in(name, body["password"])
        return Person(name, body["email"], body["password"], user["user_id"], token["access_token"])

    async def product(self, stock: int = 10, amount: int = 1999, **fields: Any) -> dict[str, Any]:
        sku = f"SKU-{secrets.token_hex(6)}"
        price = {"amount": amount, "currency": "EUR"}
        body = {"sku": sku, "name": f"Thing {sku}", "price": price, **fields}
        product = expect_status(await self.post("/products", self.admin, json=body), 201)
        if stock:
            await self.receive(product["product_id"], stock)
        return product

    async def receive(self, product_id: str, quantity: int) -> None:
        body = {"delta": quantity, "reason": "received"}
        path = f"/products/{product_id}/stock-adjustments"
        expect_status(await self.post(path, self.admin, json=body), 201)

    async def available(self, product_id: str) -> int:
        """Return the available quantity, from the stock endpoint, which is never cached."""
        stock = expect_status(await self.get(f"/products/{product_id}/stock", self.admin), 200)
        rows = stock["items"] if "items" in stock else stock["warehouses"]
        return sum(row["available"] for row in rows)

    async def place(
        self, person: Person, product_id: str, quantity: int = 1, key: str | None = None
    ) -> httpx2.Response:
        body = {"product_id": product_id, "quantity": quantity, "shipping_address": "Market 1"}
        return await self.post("/orders", person, key, json=body)

    async def place_until_final(self, person: Person, product_id: str) -> httpx2.Response:
        """Repeat POST /orders with the same key while the server is busy or handles that key."""
        key = secrets.token_hex(16)
        while True:
            answer = await self.place(person, product_id, key=key)
            if answer.status_code != 503 and not is_in_flight(answer):
                return answer
            await asyncio.sleep(float(answer.headers["retry-after"]))

    async def confirm(
        self, person: Person, payment_id: str, method: str = "sandbox_ok", key: str | None = None
    ) -> httpx2.Response:
        body = {"payment_method": method}
        return await self.post(f"/payments/{payment_id}/confirm", person, key, json=body)

    async def status(self, person: Person, order_id: str) -> dict[str, Any]:
        return expect_status(await self.get(f"/orders/{order_id}/status", person), 200)

    async def wait_for_status(
        self, person: Person, order_id: str, **expected: str
    ) -> dict[str, Any]:
        """Poll the order status until its fields have the expected values. Raises TimeoutError."""
        return await self._wait_for(f"/orders/{order_id}/status", person, expected)

    async def wait_for_order_fields(
        self, person: Person, order_id: str, **expected: Any
    ) -> dict[str, Any]:
        return await self._wait_for(f"/orders/{order_id}", person, expected)

    async def wait_for_payment(
        self, person: Person, payment_id: str, **expected: str
    ) -> dict[str, Any]:
        return await self._wait_for(f"/payments/{payment_id}", person, expected)

    async def _wait_for(
        self, path: str, person: Person, expected: Mapping[str, Any]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while any(found.get(name) != value for name, value in expected.items()):
                found = expect_status(await self.get(path, person), 200)
                limit.note(found)
                await asyncio.sleep(0.02)
        return found

    async def wait_for_available(self, product_id: str, expected: int) -> None:
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while (available := await self.available(product_id)) != expected:
                limit.note(available)
                await asyncio.sleep(0.02)


def expect_status(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    body: dict[str, Any] = answer.json()
    return body


def expect_problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    return body


def is_in_flight(answer: httpx2.Response) -> bool:
    return answer.status_code == 409 and answer.json()["code"] == "idempotency.in_flight"
