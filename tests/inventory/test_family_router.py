"""The HTTP API of families."""

from typing import Any
from urllib.parse import quote

import pytest

from markethall.inventory.catalogue.contract.families import FamilyDetail, FamilyView
from tests.inventory.test_router import PUBLIC, Client, assert_problem, client

__all__ = ["client"]

SHIRT: dict[str, Any] = {
    "label": "Shirts/Men",
    "name": "Shirt",
    "description": "Soft.",
    "category": "wear",
    "images": ["https://images.example/shirt.jpg"],
    "seo": {"title": "Shirts", "description": None},
    "metadata": {"season": "spring"},
    "translations": {"de": {"name": "Hemd", "description": None}},
}


async def create_family(client: Client, **fields: Any) -> dict[str, Any]:
    response = await client.http.post("/families", json=SHIRT | fields, headers=client.staff)
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


def if_match(client: Client, version: int) -> dict[str, str]:
    return client.staff | {"if-match": f'"v{version}"'}


async def test_family_is_public_and_cacheable(client: Client) -> None:
    for size, amount in (("S", 900), ("M", 1000)):
        await client.create(
            sku=f"SHIRT-{size}",
            family="shirt",
            options={"size": size},
            price={"amount": amount, "currency": "EUR"},
        )

    response = await client.http.get("/families/shirt")
    tag = response.headers["etag"]
    fresh = await client.http.get("/families/shirt", headers={"if-none-match": tag})

    family = response.json()
    assert FamilyDetail.model_validate(family).product_count == 2
    assert list(family) == list(FamilyDetail.model_fields)
    assert family["options"] == [{"name": "size", "values": ["S", "M"]}]
    assert family["price_range"] == {"currency": "EUR", "lowest": 900, "highest": 1000}
    assert [product["sku"] for product in family["products"]] == ["SHIRT-S", "SHIRT-M"]
    assert (response.headers["cache-control"], tag[:4]) == (PUBLIC, '"v1-')
    assert (fresh.status_code, fresh.content) == (304, b"")


async def test_change_of_a_member_changes_the_page_at_once(client: Client) -> None:
    product = await client.create(family="shirt")
    before = (await client.http.get("/families/shirt")).headers["etag"]
    path = f"/products/{product['product_id']}"

    await client.http.patch(path, json={"name": "Blouse"}, headers=if_match(client, 1))

    after = await client.http.get("/families/shirt", headers={"if-none-match": before})
    assert (after.status_code, after.json()["name"]) == (200, "Blouse")


async def test_list_is_public_and_cacheable(client: Client) -> None:
    await client.create(sku="A", family="shirt", options={"size": "S"})
    await client.create(sku="B", options={})

    response = await client.http.get("/families?limit=1")
    rest = await client.http.get(
        "/families", params={"limit": 1, "cursor": response.json()["next_cursor"]}
    )
    filtered = await client.http.get("/families?option.size=S&option.size=M&sort=price")
    tag = response.headers["etag"]
    fresh = await client.http.get("/families?limit=1", headers={"if-none-match": tag})

    pages = [page.json()["items"] for page in (response, rest, filtered)]
    assert [[family["label"] for family in page] for page in pages] == [
        [None],
        ["shirt"],
        ["shirt"],
    ]
    assert list(pages[0][0]) == list(FamilyView.model_fields)
    assert response.headers["cache-control"] == PUBLIC
    assert fresh.status_code == 304


async def test_facets_count_families(client: Client) -> None:
    for sku, size in (("A", "S"), ("B", "M"), ("C", "M")):
        await client.create(sku=sku, family="shirt", options={"size": size})
    await client.create(sku="D", options={"Size": "m"})

    page = (await client.http.get("/families?facets=option.size&option.size=S&limit=1")).json()
    without = (await client.http.get("/families?limit=1")).json()
    nothing = (await client.http.get("/families?q=%F0%9F%8D%B5&facets=tag")).json()

    assert [family["label"] for family in page["items"]] == ["shirt"]
    assert page["facets"] == {
        "options": {"size": [{"value": "M", "count": 2}, {"value": "S", "count": 1}]}
    }
    assert without["facets"] is None
    assert nothing == {"items": [], "next_cursor": None, "facets": {"tag": []}}


@pytest.mark.parametrize(
    "query",
    [
        "facets=", "facets=colour", "facets=tag,", "facets=tag&facets=category", "status=draft",
        "family=x", "sort=-name", "limit=0", "limit=1&limit=2", "cursor=x", "q=%00", "q=",
        "min_price=-1", "in_stock=2", "option.=x", "option.size=", "x=1",
    ],
)  # fmt: skip
async def test_invalid_query_is_refused(client: Client, query: str) -> None:
    response = await client.http.get(f"/families?{query}")

    assert response.status_code == 422, response.text


async def test_created_family_is_hidden_until_it_has_a_product(client: Client) -> None:
    response = await client.http.post("/families", json=SHIRT, headers=client.staff)
    family = response.json()

    hidden = await client.http.get("/families/shirts-men")
    seen = await client.http.get("/families/shirts-men", headers=client.staff)
    await client.create(family="shirts-men")
    shown = await client.http.get("/families/shirts-men")

    assert (response.status_code, response.headers["location"]) == (201, "/families/shirts-men")
    assert response.headers["etag"] == '"v1"'
    assert {name: family[name] for name in SHIRT} == SHIRT
    assert_problem(hidden, 404, "inventory.family_not_found")
    assert (seen.json(), seen.headers["cache-control"]) == (family, "no-store")
    assert (shown.json()["label"], shown.json()["product_count"]) == ("Shirts/Men", 1)


async def test_create_is_idempotent_by_key(client: Client) -> None:
    headers = client.staff | {"idempotency-key": "k1"}

    first = await client.http.post("/families", json=SHIRT, headers=headers)
    again = await client.http.post("/families", json=SHIRT, headers=headers)

    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"


async def test_taken_label_and_slug_are_conflicts(client: Client) -> None:
    await create_family(client)

    for fields, code, details in (
        ({}, "inventory.family_taken", {"label": "Shirts/Men"}),
        ({"label": "x", "slug": "shirts-men"}, "inventory.slug_taken", {"slug": "shirts-men"}),
    ):
        response = await client.http.post("/families", json=SHIRT | fields, headers=client.staff)
        assert assert_problem(response, 409, code)["details"] == details


@pytest.mark.parametrize("text", ["shirts-men", "SHIRTS-MEN", "Shirts/Men", " shirts/men"])
async def test_other_names_of_a_family_are_redirected(client: Client, text: str) -> None:
    family = await create_family(client)
    await client.create(family="Shirts/Men")
    await client.http.patch(
        f"/families/{family['family_id']}", json={"slug": "men"}, headers=if_match(client, 1)
    )

    response = await client.http.get(
        f"/families/{quote(text, safe='')}?lang=de", headers={"if-none-match": "*"}
    )

    assert (response.status_code, response.content) == (301, b"")
    assert response.headers["location"] == "/families/men?lang=de"
    assert "etag" not in response.headers


async def test_redirect_follows_the_slug(client: Client) -> None:
    await client.create(family="shirt")
    slugs = ["shirt", "blouse", "top", "shirt"]

    for version, slug in enumerate(slugs[1:], 1):
        path, headers = f"/families/{slugs[version - 1]}", if_match(client, version)
        changed = await client.http.patch(path, json={"slug": slug}, headers=headers)
        assert (changed.status_code, changed.json()["slug"]) == (200, slug)

    for slug in ("blouse", "top"):
        response = await client.http.get(f"/families/{slug}")
        assert (response.status_code, response.headers["location"]) == (301, "/families/shirt")
    assert (await client.http.get("/families/shirt")).status_code == 200


async def test_versions_are_checked(client: Client) -> None:
    await create_family(client)
    path = "/families/shirts-men"

    for method in ("PATCH", "DELETE"):
        body: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        missing = await client.http.request(method, path, headers=client.staff, **body)
        stale = await client.http.request(method, path, headers=if_match(client, 9), **body)
        assert_problem(missing, 428, "request.if_match_missing")
        assert_problem(stale, 412, "request.if_match_failed")


async def test_archived_family_is_gone_with_its_products(client: Client) -> None:
    product = await client.create(family="shirt")

    response = await client.http.delete("/families/shirt", headers=if_match(client, 1))

    assert (response.status_code, response.content) == (204, b"")
    for path in ("/families/shirt", f"/products/{product['product_id']}"):
        assert (await client.http.get(path)).status_code == 404


async def test_changes_need_the_scope(client: Client) -> None:
    headers = client.customer | {"if-match": "*"}

    for method, path in (
        ("POST", "/families"),
        ("PATCH", "/families/shirt"),
        ("DELETE", "/families/shirt"),
    ):
        body: dict[str, Any] = {} if method == "DELETE" else {"json": {"name": "x"}}
        response = await client.http.request(method, path, headers=headers, **body)
        assert_problem(response, 403, "auth.forbidden")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"slug": "A"}, "/slug"),
        ({"slug": "a--b"}, "/slug"),
        ({"slug": "-a"}, "/slug"),
        ({"slug": "a\n"}, "/slug"),
        ({"slug": "x" * 151}, "/slug"),
        ({"slug": None}, None),
        ({"name": None}, "/name"),
        ({"name": " "}, "/name"),
        ({"label": "a\u0000"}, ""),
        ({"label": "x" * 256}, "/label"),
        ({"metadata": {"a b": "x"}}, "/metadata/a b/[key]"),
        ({"metadata": {"a": 1}}, "/metadata/a"),
        ({"metadata": {"a": "x" * 501}}, "/metadata/a"),
        ({"metadata": {"x" * 41: "x"}}, f"/metadata/{'x' * 41}/[key]"),
        ({"metadata": {f"a{n}": "x" for n in range(51)}}, "/metadata"),
        ({"seo": {"title": "", "keywords": "x"}}, "/seo/title"),
        ({"seo": "x"}, "/seo"),
        ({"status": "draft"}, "/status"),
        ({"images": ["javascript:x"]}, "/images/0"),
        ({"family_id": "x"}, "/family_id"),
    ],
)
async def test_invalid_fields_are_named(
    client: Client, fields: dict[str, Any], field: str | None
) -> None:
    response = await client.http.post("/families", json=SHIRT | fields, headers=client.staff)

    if field is None:
        assert response.status_code == 201, response.text
        return
    problem = assert_problem(response, 422, "request.invalid")
    assert field in [error["field"] for error in problem["errors"]]


@pytest.mark.parametrize(
    "text",
    [
        "a\u0000b",
        "x" * 256,
        "\ufffd",
        "0199c0de-0000-7000-8000-000000000001",
        "z" * 26,
        "%",
        "..",
        "*",
    ],
)
async def test_unknown_family_is_not_found(client: Client, text: str) -> None:
    response = await client.http.get(f"/families/{quote(text, safe='')}")

    assert response.status_code in {404, 422}, response.text
    assert response.headers["content-type"] == "application/problem+json"


async def test_product_without_a_family_cannot_be_changed_as_one(client: Client) -> None:
    product = await client.create()
    path = f"/families/{product['product_id']}"
    moved = await client.http.get(path)

    page = await client.http.get(moved.headers["location"])
    changed = await client.http.patch(path, json={"name": "x"}, headers=if_match(client, 1))

    assert (moved.status_code, page.json()["family_id"]) == (301, product["product_id"])
    assert_problem(changed, 404, "inventory.family_not_found")
