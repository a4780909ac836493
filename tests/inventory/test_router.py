"""The HTTP API of products and stock."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx2
import pytest

from markethall.app import create_app
from markethall.container import ApplicationContainer
from markethall.inventory.catalogue.contract.products import ProductView
from markethall.inventory.contract import RequestedLine, Reserve
from markethall.settings import read_settings
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import Page
from markethall.shared.kernel.scopes import scopes_for_roles
from tests.containers import inventory_of, users_of
from tests.inventory.conftest import ANYONE

EURO = {"amount": 1250, "currency": "EUR"}
TEA = {
    "sku": "TEA-1",
    "name": "Sencha",
    "price": EURO,
    "category": "tea",
    "options": {"weight": "100 g"},
    "tags": ["green"],
    "attributes": {"organic": True},
}
PUBLIC = "public, max-age=5, stale-while-revalidate=30"


class Client:
    """An HTTP client with the headers of staff and of a customer."""

    def __init__(
        self, http: httpx2.AsyncClient, container: ApplicationContainer, staff_id: UUID
    ) -> None:
        self.http = http
        self.container = container
        self.staff = self.token("staff:catalogue", staff_id)
        self.customer = self.token("customer", new_id())

    def token(self, role: str, user_id: UUID) -> dict[str, str]:
        actor = Actor(user_id=user_id, roles=(role,), scopes=scopes_for_roles((role,)))
        return {
            "authorization": f"Bearer {self.container.process.access_token_signer().sign(actor)}"
        }

    async def create(self, **fields: Any) -> dict[str, Any]:
        response = await self.http.post("/products", json=TEA | fields, headers=self.staff)
        assert response.status_code == 201, response.text
        body: dict[str, Any] = response.json()
        return body

    async def adjust(
        self, product_id: str, key: str | None = None, **fields: Any
    ) -> httpx2.Response:
        headers = self.staff | {"idempotency-key": key or str(new_id())}
        body = {"reason": "received"} | fields
        return await self.http.post(
            f"/products/{product_id}/stock-adjustments", json=body, headers=headers
        )


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = create_app(read_settings(storage="memory"))
    transport = httpx2.ASGITransport(app)
    headers = {"x-request-id": "same-for-all"}
    async with (
        app.lifespan(),
        httpx2.AsyncClient(
            transport=transport, base_url="http://markethall", headers=headers
        ) as http,
    ):
        accounts = users_of(app.container).accounts()
        # staff tokens are checked against the `users` context, so the staff account must exist
        user = await accounts.create_staff(
            "staff@example.com", "staff:catalogue", "a long password of staff"
        )
        yield Client(http, app.container, user.user_id)


def assert_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    return body


# Reading


async def test_products_are_public(client: Client) -> None:
    made = await client.create()

    response = await client.http.get(f"/products/{made['product_id']}")

    assert response.status_code == 200
    assert response.json() == made
    assert response.headers["cache-control"] == PUBLIC
    assert response.headers["content-type"] == "application/json"
    ProductView.model_validate_json(response.content)
    assert set(made) == set(ProductView.model_fields)


async def test_matching_etag_returns_304(client: Client) -> None:
    made = await client.create()
    for path in (f"/products/{made['product_id']}", "/products", "/products/by-sku/tea-1"):
        tag = (await client.http.get(path)).headers["etag"]

        fresh = await client.http.get(path, headers={"if-none-match": tag})
        other = await client.http.get(path, headers={"if-none-match": '"v0-000000000000"'})

        assert (fresh.status_code, fresh.content) == (304, b"")
        assert fresh.headers["etag"] == tag
        assert fresh.headers["cache-control"] == PUBLIC
        assert other.status_code == 200


async def test_list_is_paginated(client: Client) -> None:
    for i in range(3):
        await client.create(sku=f"S{i}", name=f"Tea {i}")

    first = (await client.http.get("/products?limit=2&sort=name")).json()
    second = (
        await client.http.get(f"/products?limit=2&sort=name&cursor={first['next_cursor']}")
    ).json()

    assert [item["sku"] for item in first["items"] + second["items"]] == ["S0", "S1", "S2"]
    assert second["next_cursor"] is None
    Page[ProductView].model_validate(first)


@pytest.mark.parametrize(
    "query",
    [
        "nonsense=1", "limit=0", "limit=101", "limit=x", "sort=sku", "min_price=-1", "cursor=%00",
        "cursor=abc", "q=", "q=%00", "in_stock=maybe", "category=", "max_price=99999999999999999",
    ],
)  # fmt: skip
async def test_invalid_query_is_rejected(client: Client, query: str) -> None:
    response = await client.http.get(f"/products?{query}")

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("product_id", ["1", "nonsense", "%00", "0" * 36, str(UUID(int=5))])
async def test_invalid_id_is_rejected(client: Client, product_id: str) -> None:
    response = await client.http.get(f"/products/{product_id}")

    assert response.status_code in {404, 422}
    assert response.headers["content-type"] == "application/problem+json"


async def test_drafts_are_visible_to_staff_only(client: Client) -> None:
    made = await client.create(status="draft")
    path = f"/products/{made['product_id']}"

    draft = await client.http.get(path, headers=client.staff)

    assert draft.json()["status"] == "draft"
    assert draft.headers["cache-control"] == "no-store"
    assert_problem(await client.http.get(path), 404, "inventory.product_not_found")
    assert_problem(
        await client.http.get("/products/by-sku/TEA-1"), 404, "inventory.product_not_found"
    )
    assert_problem(
        await client.http.get(path, headers=client.customer), 404, "inventory.product_not_found"
    )
    assert_problem(await client.http.get("/products?status=draft"), 401, "auth.unauthenticated")
    buyer = await client.http.get("/products?status=draft", headers=client.customer)
    assert_problem(buyer, 403, "auth.forbidden")
    listed = await client.http.get("/products?status=draft", headers=client.staff)
    assert [item["product_id"] for item in listed.json()["items"]] == [made["product_id"]]


# Changing


async def test_create_is_idempotent_by_key(client: Client) -> None:
    headers = client.staff | {"idempotency-key": "k1"}

    first = await client.http.post("/products", json=TEA, headers=headers)
    again = await client.http.post("/products", json=TEA, headers=headers)
    other = await client.http.post("/products", json=TEA | {"name": "X"}, headers=headers)

    assert first.status_code == again.status_code == 201
    assert first.headers["location"] == f"/products/{first.json()['product_id']}"
    assert first.content == again.content
    assert first.headers["etag"] == again.headers["etag"] == '"v1"'
    assert again.headers["idempotency-replayed"] == "true"
    assert_problem(other, 422, "idempotency.payload_mismatch")


async def test_taken_sku_is_a_conflict(client: Client) -> None:
    await client.create()

    response = await client.http.post(
        "/products", json=TEA | {"sku": "tea-1"}, headers=client.staff
    )

    assert assert_problem(response, 409, "inventory.sku_taken")["details"] == {"sku": "tea-1"}


async def test_validation_errors_name_fields(client: Client) -> None:
    response = await client.http.post(
        "/products", json=TEA | {"attributes": {"a": 1.5}, "more": 1}, headers=client.staff
    )

    errors = assert_problem(response, 422, "request.invalid")["errors"]
    assert {error["field"] for error in errors} == {"/attributes/a", "/more"}


async def test_patch_requires_current_version(client: Client) -> None:
    made = await client.create()
    path = f"/products/{made['product_id']}"
    tag = (await client.http.get(path)).headers["etag"]
    body = {"name": "Gyokuro", "category": None}

    missing = await client.http.patch(path, json=body, headers=client.staff)
    changed = await client.http.patch(path, json=body, headers=client.staff | {"if-match": tag})
    stale = await client.http.patch(path, json=body, headers=client.staff | {"if-match": tag})

    assert_problem(missing, 428, "request.if_match_missing")
    assert (changed.json()["name"], changed.json()["category"]) == ("Gyokuro", None)
    assert changed.headers["etag"] == '"v2"'
    assert assert_problem(stale, 412, "request.if_match_failed")["details"] == {"etag": '"v2"'}
    assert (await client.http.get(path)).json() == changed.json()


async def test_created_etag_can_be_used_for_patch(client: Client) -> None:
    made = await client.http.post("/products", json=TEA, headers=client.staff)
    headers = client.staff | {"if-match": made.headers["etag"]}

    changed = await client.http.patch(
        made.headers["location"], json={"name": "Gyokuro"}, headers=headers
    )

    assert (changed.status_code, changed.headers["etag"]) == (200, '"v2"')


async def test_if_match_accepts_star_and_lists(client: Client) -> None:
    path = f"/products/{(await client.create())['product_id']}"

    async def rename(name: str, tag: str) -> httpx2.Response:
        headers = client.staff | {"if-match": tag}
        return await client.http.patch(path, json={"name": name}, headers=headers)

    listed = await rename("A", '"v9", "v1"')
    weak = await rename("B", 'W/"v2"')
    other = await rename("C", '"v1", "v3"')
    star = await rename("D", "*")
    unknown = await client.http.patch(
        f"/products/{new_id()}", json={"name": "E"}, headers=client.staff | {"if-match": "*"}
    )

    assert (listed.status_code, listed.headers["etag"]) == (200, '"v2"')
    assert_problem(weak, 412, "request.if_match_failed")
    assert_problem(other, 412, "request.if_match_failed")
    assert (star.json()["name"], star.headers["etag"]) == ("D", '"v3"')
    assert_problem(unknown, 404, "inventory.product_not_found")


async def test_stock_change_does_not_change_product_version(client: Client) -> None:
    made = await client.create()
    path = f"/products/{made['product_id']}"
    tag = (await client.http.get(path)).headers["etag"]

    await client.adjust(made["product_id"], delta=5)
    newer = (await client.http.get(path)).headers["etag"]
    changed = await client.http.patch(
        path, json={"name": "X"}, headers=client.staff | {"if-match": tag}
    )

    assert newer != tag
    assert changed.status_code == 200


async def test_archived_product_is_hidden_from_public(client: Client) -> None:
    made = await client.create()
    path = f"/products/{made['product_id']}"

    missing = await client.http.delete(path, headers=client.staff)
    deleted = await client.http.delete(path, headers=client.staff | {"if-match": '"v1"'})

    assert_problem(missing, 428, "request.if_match_missing")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert_problem(await client.http.get(path), 404, "inventory.product_not_found")


# Stock


async def test_adjustment_is_idempotent_by_key(client: Client) -> None:
    made = await client.create()
    product_id = made["product_id"]

    first = await client.adjust(product_id, "k1", delta=5, note="pallet")
    again = await client.adjust(product_id, "k1", delta=5, note="pallet")

    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert (first.json()["delta"], first.json()["on_hand_after"]) == (5, 5)
    location = await client.http.get(first.headers["location"], headers=client.staff)
    assert location.json() == first.json()
    known = {**client.staff, "If-None-Match": location.headers["etag"]}
    assert (await client.http.get(first.headers["location"], headers=known)).status_code == 304
    stock = (await client.http.get(f"/products/{product_id}/stock", headers=client.staff)).json()
    assert stock["available"] == 5
    assert stock["warehouses"][0]["on_hand"] == 5
    assert (await client.http.get(f"/products/{product_id}")).json()["available"] == 5


async def test_adjustment_requires_key_and_keeps_stock_non_negative(client: Client) -> None:
    made = await client.create()
    path = f"/products/{made['product_id']}/stock-adjustments"
    body = {"delta": 1, "reason": "received"}

    without_key = await client.http.post(path, json=body, headers=client.staff)
    negative = await client.adjust(made["product_id"], delta=-1)
    both = await client.adjust(made["product_id"], delta=1, counted=1)
    unknown = await client.adjust(str(new_id()), delta=1)

    assert_problem(without_key, 400, "idempotency.key_missing")
    assert assert_problem(negative, 409, "inventory.would_go_negative")["details"] == {
        "on_hand": 0,
        "reserved": 0,
    }
    assert_problem(both, 422, "request.invalid")
    assert_problem(unknown, 404, "inventory.product_not_found")


async def test_movements_and_reservations_require_staff(client: Client) -> None:
    made = await client.create()
    await client.adjust(made["product_id"], delta=5)
    command = Reserve(
        reservation_id=new_id(),
        order_id=new_id(),
        customer_id=new_id(),
        lines=(RequestedLine(product_id=UUID(made["product_id"]), quantity=2),),
        expires_at=utc_now() + timedelta(minutes=9),
    )
    await inventory_of(client.container).inventory().reserve(ANYONE, command)

    ledger = await client.http.get(
        f"/products/{made['product_id']}/stock-movements", headers=client.staff
    )
    held = await client.http.get(f"/reservations?order_id={command.order_id}", headers=client.staff)

    assert [movement["delta"] for movement in ledger.json()["items"]] == [5]
    assert held.json()["items"][0]["lines"][0]["quantity"] == 2


PROTECTED = [
    ("POST", "/products"),
    ("PATCH", "/products/{id}"),
    ("DELETE", "/products/{id}"),
    ("GET", "/products/{id}/stock"),
    ("POST", "/products/{id}/stock-adjustments"),
    ("GET", "/products/{id}/stock-movements"),
    ("GET", "/products/{id}/stock-movements/{id}"),
    ("GET", "/reservations?order_id={id}"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_catalogue_changes_require_staff(client: Client, method: str, path: str) -> None:
    path = path.replace("{id}", str(new_id()))

    anonymous = await client.http.request(method, path)
    customer = await client.http.request(method, path, headers=client.customer)

    assert_problem(anonymous, 401, "auth.unauthenticated")
    assert_problem(customer, 403, "auth.forbidden")


@pytest.mark.parametrize(
    "sku",
    [
        "AB 100",
        "AB/100",
        "/AB/",
        "stock",
        "AB-100 (L)",
        "AB+M",
        "AB&Co",
        "AB#1?x=%20",
        "Größe Ł",
        "煎茶",
        "x" * 100,
    ],
)
async def test_sku_of_printable_characters_is_found_by_its_path(client: Client, sku: str) -> None:
    made = await client.create(sku=f" {sku} ")

    response = await client.http.get(f"/products/by-sku/{quote(sku.swapcase(), safe='')}")

    assert made["sku"] == sku
    assert response.status_code == 200, response.text
    assert response.json()["product_id"] == made["product_id"]


@pytest.mark.parametrize(
    ("first", "second"), [("Stra\u00dfe", "STRASSE"), ("caf\u00e9", "CAFE\u0301"), ("a/b", " A/B")]
)
async def test_sku_is_unique_without_case_and_composition(
    client: Client, first: str, second: str
) -> None:
    await client.create(sku=first)

    response = await client.http.post("/products", json=TEA | {"sku": second}, headers=client.staff)

    assert_problem(response, 409, "inventory.sku_taken")


@pytest.mark.parametrize("sku", ["", "  ", "x" * 101, "a\tb", "a\u200bb", "a\x7f"])
async def test_sku_that_cannot_be_printed_is_refused(client: Client, sku: str) -> None:
    response = await client.http.post("/products", json=TEA | {"sku": sku}, headers=client.staff)

    problem = assert_problem(response, 422, "request.invalid")
    assert [error["field"] for error in problem["errors"]] == ["/sku"]


@pytest.mark.parametrize("family", ["Shirts/Men", "/a/", "a?b#c", "50 %"])
async def test_family_of_any_text_has_an_address(client: Client, family: str) -> None:
    await client.create(family=family)

    response = await client.http.get(f"/families/{quote(family, safe='')}")

    assert response.status_code == 301, response.text
    page = await client.http.get(response.headers["location"])
    assert (page.status_code, page.json()["label"]) == (200, family)
