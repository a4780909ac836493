"""An order token gives access to its order and to nothing else, in one process and in a split."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx2
import pytest
from structlog.testing import capture_logs

from markethall.app import create_app
from markethall.local.valkey import EmbeddedValkey
from markethall.shared.kernel.scopes import ONE_ORDER
from tests.e2e.servers import ADMIN
from tests.partitions.in_process import PartitionedApp, open_partitioned_app
from tests.partitions.partitions import FULL_SPLIT, MONOLITH, PARTITIONS
from tests.test_app import memory_settings, policies, routes

# the routes that accept an order token, besides those that need no token
ADMITTED: Final = {
    ("GET", "/orders/{order_id}"),
    ("GET", "/orders/{order_id}/status"),
    ("GET", "/orders/{order_id}/timeline"),
    ("GET", "/orders/{order_id}/events"),
    ("GET", "/orders/{order_id}/invoice"),
    ("GET", "/orders/{order_id}/invoice.pdf"),
    ("POST", "/orders/{order_id}/cancel"),
    ("GET", "/orders/{order_id}/returns"),
    ("POST", "/orders/{order_id}/returns"),
    ("GET", "/returns/{return_id}"),
    ("POST", "/returns/{return_id}/cancel"),
    ("GET", "/orders/{order_id}/fulfilments"),
    ("GET", "/fulfilments/{fulfilment_id}"),
    ("GET", "/payments/{payment_id}"),
    ("POST", "/payments/{payment_id}/confirm"),
}
EMAIL: Final = "gina@example.com"


@dataclass
class Shop:
    app: PartitionedApp
    staff: dict[str, str] = field(default_factory=dict)

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return await self.app.http.request(method, self.app.server.url(path), **options)

    async def sign_in_staff(self) -> None:
        form = {"username": ADMIN[0], "password": ADMIN[1]}
        self.staff = bearer(
            (await self.request("POST", "/token", data=form)).json()["access_token"]
        )

    async def post(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Any:
        response = await self.request(
            "POST", path, json=body, headers=headers | {"idempotency-key": uuid4().hex}
        )
        assert response.is_success, response.text
        return response.json()

    async def create_product(self) -> str:
        price = {"amount": 100, "currency": "EUR"}
        product = await self.post(
            "/products", self.staff, {"sku": uuid4().hex, "name": "Tea", "price": price}
        )
        stock = {"delta": 9, "reason": "received"}
        await self.post(f"/products/{product['product_id']}/stock-adjustments", self.staff, stock)
        return str(product["product_id"])

    async def create_guest(self) -> dict[str, str]:
        return bearer((await self.request("POST", "/guests")).json()["access_token"])

    async def place(self, headers: dict[str, str]) -> dict[str, Any]:
        body = {
            "product_id": await self.create_product(),
            "quantity": 1,
            "shipping_address": "Market 1",
            "email": EMAIL,
        }
        order: dict[str, Any] = await self.post("/orders", headers, body)
        return order

    async def look_up(self, order: dict[str, Any]) -> dict[str, str]:
        """Look up the order. Return headers with the token of the logged link."""
        with capture_logs() as lines:
            body = {"number": order["number"], "email": EMAIL}
            response = await self.request("POST", "/orders/lookup", json=body)
            assert (response.status_code, response.content) == (202, b"")
            async with asyncio.timeout(20):
                while not (links := [line["link"] for line in lines if "link" in line]):
                    await asyncio.sleep(0.02)  # the poll interval
        (token,) = re.findall(r"#order_id=[^&]+&order_token=(.+)", links[0])
        return bearer(token)

    async def ship(self, order: dict[str, Any]) -> str:
        path = f"/orders/{order['order_id']}/fulfilments"
        async with asyncio.timeout(20):
            while True:
                response = await self.request(
                    "POST", path, json={}, headers=self.staff | {"idempotency-key": uuid4().hex}
                )
                if response.status_code == 201:
                    break
                await asyncio.sleep(0.02)  # until the event of the payment has arrived
        fulfilment_id = str(response.json()["fulfilment_id"])
        await self.post(f"/fulfilments/{fulfilment_id}/deliver", self.staff, {})
        return fulfilment_id


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture(params=[MONOLITH, FULL_SPLIT])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        # only the split needs Redis, for the events between its processes
        redis_url = "" if request.param == MONOLITH else stack.enter_context(EmbeddedValkey())
        app = await stack.enter_async_context(
            open_partitioned_app(
                PARTITIONS[request.param], tmp_path, storage="memory", redis_url=redis_url
            )
        )
        shop = Shop(app)
        await shop.sign_in_staff()
        yield shop


def test_routes_for_order_tokens_are_these() -> None:
    admitted = set()
    for route in routes(create_app(memory_settings())):
        (policy,) = policies(route.dependant)
        assert policy.also_requires != ONE_ORDER
        if ONE_ORDER in {policy.scope, *policy.alternative_scopes}:
            admitted |= {(method, route.path) for method in route.methods or ()}

    assert admitted == ADMITTED


async def test_every_other_route_refuses_an_order_token(shop: Shop) -> None:
    headers = await shop.look_up(await shop.place(await shop.create_guest()))

    refused = 0
    for route in routes(create_app(memory_settings())):
        (policy,) = policies(route.dependant)
        if policy.scope is None:
            continue
        path = re.sub(r"\{[^}]*\}", lambda _: str(uuid4()), route.path)
        for method in route.methods or ():
            response = await shop.request(method, path, headers=headers)
            if (method, route.path) in ADMITTED:
                assert response.status_code not in {401, 403}, (method, path)
            else:
                refused += 1
                assert (response.status_code, response.json()["code"]) == (
                    403,
                    "auth.forbidden",
                ), (method, path)
    assert refused > 100


async def test_holder_sees_pays_and_returns_the_order_like_the_owner(shop: Shop) -> None:
    guest = await shop.create_guest()
    order = await shop.place(guest)
    headers = await shop.look_up(order)
    path, payment = f"/orders/{order['order_id']}", f"/payments/{order['payment']['payment_id']}"

    for read in (path, f"{path}/status", f"{path}/timeline", payment, f"{path}/returns"):
        response = await shop.request("GET", read, headers=headers)
        assert response.json() == (await shop.request("GET", read, headers=guest)).json(), read
        assert response.status_code == 200
    paid = await shop.post(f"{payment}/confirm", headers, {"payment_method": "sandbox_ok"})
    fulfilment_id = await shop.ship(order)
    shipped = await shop.request("GET", f"/fulfilments/{fulfilment_id}", headers=headers)
    line = {"line_id": order["lines"][0]["line_id"], "quantity": 1}
    returned = await shop.post(f"{path}/returns", headers, {"lines": [line], "reason": "broken"})
    cancelled = await shop.post(f"/returns/{returned['return_id']}/cancel", headers, {})

    assert (paid["status"], shipped.json()["status"]) == ("captured", "delivered")
    assert (returned["status"], cancelled["status"]) == ("requested", "cancelled")
    timeline = (await shop.request("GET", f"{path}/timeline", headers=headers)).json()["items"]
    actors = {entry["change"]: entry["actor"] for entry in timeline}
    assert actors["return_requested"] == f"order:{order['order_id']}"


async def test_holder_cancels_the_order(shop: Shop) -> None:
    order = await shop.place(await shop.create_guest())
    headers = await shop.look_up(order)

    cancelled = await shop.post(
        f"/orders/{order['order_id']}/cancel", headers, {"reason": "a mistake"}
    )

    assert cancelled["status"] == "cancelled"


async def test_other_orders_of_the_same_owner_are_not_found(shop: Shop) -> None:
    guest = await shop.create_guest()
    order, other = await shop.place(guest), await shop.place(guest)
    headers = await shop.look_up(order)
    key = {"idempotency-key": "key"}
    path, payment = f"/orders/{other['order_id']}", f"/payments/{other['payment']['payment_id']}"
    line = {"line_id": other["lines"][0]["line_id"], "quantity": 1}
    posts = {
        f"{path}/cancel": {"reason": "a mistake"},
        f"{path}/returns": {"lines": [line], "reason": "broken"},
        f"{payment}/confirm": {"payment_method": "sandbox_ok"},
    }

    for read in ("", "/status", "/timeline", "/events", "/invoice", "/returns"):
        response = await shop.request("GET", f"{path}{read}", headers=headers)
        assert (response.status_code, response.json()["code"]) == (404, "orders.not_found"), read
    assert (await shop.request("GET", payment, headers=headers)).status_code == 404
    for write, body in posts.items():
        response = await shop.request("POST", write, json=body, headers=headers | key)
        assert response.status_code == 404, write
    assert (await shop.request("GET", path, headers=guest)).json() == other


async def test_order_token_is_no_guest_token_of_a_merge_or_claim(shop: Shop) -> None:
    guest = await shop.create_guest()
    token = (await shop.look_up(await shop.place(guest)))["authorization"].removeprefix("Bearer ")
    carts = [await shop.post("/carts", guest, {}) for _ in range(2)]
    merge = {"source_cart_id": carts[1]["cart_id"], "guest_token": token}
    claim = {"guest_token": token}

    merged = await shop.request(
        "POST", f"/carts/{carts[0]['cart_id']}/merge", json=merge, headers=shop.staff
    )
    claimed = await shop.request("POST", "/users/me/claims", json=claim, headers=shop.staff)
    refreshed = await shop.request(
        "POST", "/token", data={"grant_type": "refresh_token", "refresh_token": token}
    )

    assert (merged.status_code, merged.json()["errors"][0]["code"]) == (422, "bad_guest_token")
    assert (claimed.status_code, claimed.json()["code"]) == (422, "users.bad_guest_token")
    assert refreshed.status_code in {401, 422}


async def test_wrong_lookups_get_the_same_response(shop: Shop) -> None:
    order = await shop.place(await shop.create_guest())

    responses = [
        await shop.request("POST", "/orders/lookup", json={"number": number, "email": email})
        for number, email in (
            (order["number"], EMAIL),
            (order["number"], "eve@example.com"),
            ("MH-99999", EMAIL),
        )
    ]

    assert {(each.status_code, each.content) for each in responses} == {(202, b"")}
    names = [sorted(each.headers) for each in responses]
    assert names[0] == names[1] == names[2]
