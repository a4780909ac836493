"""The HTTP API of categories."""

from typing import Any

from markethall.inventory.catalogue.contract.categories import CategoryView
from tests.inventory.test_router import PUBLIC, Client, assert_problem, client

__all__ = ["client"]

GREEN = {
    "category": "green-tea",
    "name": "Green tea",
    "parent": "tea",
    "position": 2,
    "translations": {"de": {"name": "Grüner Tee"}},
}


async def create_category(client: Client, **fields: Any) -> dict[str, Any]:
    response = await client.http.post("/categories", json=fields, headers=client.staff)
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


# Categories


async def test_categories_are_public(client: Client) -> None:
    await client.create()
    green = await create_category(client, **GREEN)

    response = await client.http.get("/categories")

    tea, first = response.json()["items"]
    assert (tea["category"], first) == ("tea", green)
    assert (tea["product_count"], tea["position"]) == (1, 0)
    assert response.headers["cache-control"] == PUBLIC
    assert list(tea) == list(CategoryView.model_fields)


async def test_children_are_listed(client: Client) -> None:
    await client.create()
    await create_category(client, **GREEN)

    below = await client.http.get("/categories?parent=tea")
    roots = await client.http.get("/categories?parent=")

    assert [category["category"] for category in below.json()["items"]] == ["green-tea"]
    assert [category["category"] for category in roots.json()["items"]] == ["tea"]


async def test_create_is_idempotent_by_key(client: Client) -> None:
    await client.create()
    headers = client.staff | {"idempotency-key": "k1"}

    first = await client.http.post("/categories", json=GREEN, headers=headers)
    again = await client.http.post("/categories", json=GREEN, headers=headers)

    assert first.status_code == again.status_code == 201
    assert first.headers["location"] == f"/categories/{first.json()['category_id']}"
    assert (first.content, again.headers["idempotency-replayed"]) == (again.content, "true")
    assert first.headers["etag"] == again.headers["etag"] == '"v1"'
    found = await client.http.get(first.headers["location"])
    assert (found.json(), found.headers["cache-control"]) == (first.json(), PUBLIC)


async def test_matching_etag_returns_304(client: Client) -> None:
    path = f"/categories/{(await create_category(client, category='tea'))['category_id']}"
    tag = (await client.http.get(path)).headers["etag"]

    fresh = await client.http.get(path, headers={"if-none-match": tag})
    await client.create()
    counted = await client.http.get(path, headers={"if-none-match": tag})

    assert (fresh.status_code, fresh.content) == (304, b"")
    assert (counted.status_code, counted.json()["product_count"]) == (200, 1)


async def test_patch_requires_current_version(client: Client) -> None:
    path = f"/categories/{(await create_category(client, category='tea'))['category_id']}"
    tag = (await client.http.get(path)).headers["etag"]
    body = {"name": "Teas"}

    missing = await client.http.patch(path, json=body, headers=client.staff)
    changed = await client.http.patch(path, json=body, headers=client.staff | {"if-match": tag})
    stale = await client.http.patch(path, json=body, headers=client.staff | {"if-match": tag})

    assert_problem(missing, 428, "request.if_match_missing")
    assert (changed.json()["name"], changed.headers["etag"]) == ("Teas", '"v2"')
    assert assert_problem(stale, 412, "request.if_match_failed")["details"] == {"etag": '"v2"'}


async def test_cycle_is_a_conflict(client: Client) -> None:
    await client.create()
    await create_category(client, **GREEN)
    tea = (await client.http.get("/categories?parent=")).json()["items"][0]
    headers = client.staff | {"if-match": '"v1"'}

    response = await client.http.patch(
        f"/categories/{tea['category_id']}", json={"parent": "green-tea"}, headers=headers
    )

    details = {"category": "tea", "parent": "green-tea"}
    assert assert_problem(response, 409, "inventory.category_cycle")["details"] == details


async def test_category_in_use_is_a_conflict(client: Client) -> None:
    await client.create()
    green = await create_category(client, **GREEN)
    tea = (await client.http.get("/categories?parent=")).json()["items"][0]
    headers = client.staff | {"if-match": '"v1"'}

    used = await client.http.delete(f"/categories/{tea['category_id']}", headers=headers)
    without_version = await client.http.delete(
        f"/categories/{green['category_id']}", headers=client.staff
    )
    removed = await client.http.delete(f"/categories/{green['category_id']}", headers=headers)
    gone = await client.http.get(f"/categories/{green['category_id']}")

    assert_problem(used, 409, "inventory.category_in_use")
    assert_problem(without_version, 428, "request.if_match_missing")
    assert removed.status_code == 204
    assert_problem(gone, 404, "inventory.category_not_found")


async def test_customers_cannot_change_categories(client: Client) -> None:
    tea = await create_category(client, category="tea")
    path = f"/categories/{tea['category_id']}"
    headers = client.customer | {"if-match": '"v1"'}

    assert_problem(
        await client.http.post("/categories", json=GREEN, headers=client.customer),
        403,
        "auth.forbidden",
    )
    assert_problem(await client.http.patch(path, json={}, headers=headers), 403, "auth.forbidden")
    assert_problem(await client.http.delete(path, headers=headers), 403, "auth.forbidden")
