"""Test catalogue and stock over HTTP.

One process serves the catalogue in each split, so one split is enough.
"""

import asyncio
import csv
import io
import secrets
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.shop import TIMEOUT_SECONDS, Shop, expect_problem, expect_status
from tests.partitions.partitions import FULL_SPLIT
from tests.progress import progress_limit

TOPOLOGIES = ["memory", "postgres", "roles", "workers", FULL_SPLIT]
pytestmark = pytest.mark.parametrize("server", TOPOLOGIES, indirect=True)

SHOPIFY = (
    "Handle,Title,Body (HTML),Vendor,Type,Tags,Published,Option1 Name,Option1 Value,Variant SKU,"
    "Variant Grams,Variant Inventory Qty,Variant Price,Variant Compare At Price,Variant Barcode,"
    "Image Src,Status"
)


def unique_word() -> str:
    """Return a random word, so that a search finds no products of other tests on the server."""
    return "q" + secrets.token_hex(6)


def shopify(word: str) -> str:
    """Return a Shopify export: a shirt in two sizes, and a mug without options and without SKU."""
    small = f"Size,S,{word}-S,180,4,29.90,39.90,,https://images.example/{word}.jpg,active"
    return "\n".join(
        [
            SHOPIFY,
            f"shirt-{word},Shirt {word},<p>Soft &amp; warm.</p>,Loom,Shirts,linen,true,{small}",
            f"shirt-{word},,,,,,,,M,{word}-M,190,0,31.90,,,,",
            f"mug-{word},Mug {word},,Kiln,Mugs,,true,Title,Default Title,,350,7,12.00,,,,active",
            "",
        ]
    )


async def run_import(shop: Shop, text: str, query: str = "") -> dict[str, Any]:
    headers = {"Content-Type": "text/csv"}
    answer = await shop.send(
        "POST", f"/imports{query}", shop.admin, headers=headers, content=text.encode()
    )
    path = f"/imports/{expect_status(answer, 202)['import_id']}"
    assert answer.headers["location"] == path
    async with progress_limit(TIMEOUT_SECONDS) as limit:
        while True:
            job = expect_status(await shop.get(path, shop.admin), 200)
            limit.note(job)
            if job["status"] in {"done", "failed"}:
                return job
            await asyncio.sleep(0.05)


def row_counts(job: dict[str, Any]) -> tuple[int, ...]:
    return tuple(job["rows"][name] for name in ("created", "updated", "unchanged", "failed"))


async def find_products(shop: Shop, query: str) -> list[dict[str, Any]]:
    return list(expect_status(await shop.get(f"/products?{query}"), 200)["items"])


async def wait_until_found(shop: Shop, query: str, count: int) -> list[dict[str, Any]]:
    """Poll a cached list until it has `count` products. Raises TimeoutError."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while len(items := await find_products(shop, query)) != count:
            await asyncio.sleep(0.1)
    return items


def skus(items: Sequence[dict[str, Any]]) -> list[str]:
    return [item["sku"] for item in items]


async def test_shopify_export_is_imported_and_found(shop: Shop) -> None:
    word = unique_word()

    job = await run_import(shop, shopify(word))

    assert (job["status"], row_counts(job)) == ("done", (3, 0, 0, 0))
    small, middle = await wait_until_found(shop, f"q=shirt+{word}&sort=price", 2)
    assert (small["sku"], middle["sku"]) == (f"{word}-S", f"{word}-M")
    assert small["options"] == {"Size": "S"}
    assert small["family"] == middle["family"]
    assert small["price"]["amount"] == 2990
    assert small["description"] == "Soft & warm."
    assert (small["available"], middle["available"]) == (4, 0)


async def test_reimporting_same_file_changes_nothing(shop: Shop) -> None:
    word = unique_word()
    await run_import(shop, shopify(word))

    again = await run_import(shop, shopify(word))

    assert row_counts(again) == (0, 0, 3, 0)


async def test_bad_row_is_reported_and_others_are_imported(shop: Shop) -> None:
    word = unique_word()
    text = shopify(word).replace("31.90", "cheap")

    job = await run_import(shop, text)

    assert row_counts(job) == (2, 0, 0, 1)
    errors = expect_status(await shop.get(f"/imports/{job['import_id']}/errors", shop.admin), 200)[
        "items"
    ]
    assert [(error["line"], error["field"]) for error in errors] == [(3, "Variant Price")]


async def test_dry_run_writes_nothing(shop: Shop) -> None:
    word = unique_word()

    job = await run_import(shop, shopify(word), "?dry_run=true")

    assert (job["status"], row_counts(job)) == ("done", (3, 0, 0, 0))
    expect_problem(await shop.get(f"/products/by-sku/{word}-S"), 404, "inventory.product_not_found")


async def test_export_contains_imported_products(shop: Shop) -> None:
    word = unique_word()
    await run_import(shop, shopify(word))

    answer = await shop.get("/exports/products.csv", shop.admin)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    rows = csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff")))
    assert {row["sku"] for row in rows if word in row["name"]} >= {f"{word}-S", f"{word}-M"}


async def test_search_matches_word_prefix(shop: Shop) -> None:
    word = unique_word()
    product = await shop.product(name=f"Kettle {word}", stock=1)

    items = await wait_until_found(shop, f"q={word[:-3]}", 1)

    assert items[0]["product_id"] == product["product_id"]


async def test_facets_count_all_matches(shop: Shop) -> None:
    word, tag = unique_word(), unique_word()
    for size in ("S", "M", "M"):
        await shop.product(
            stock=0, name=f"Sock {word}", category=word, tags=[tag], options={"size": size}
        )

    page = expect_status(
        await shop.get(f"/products?q={word}&limit=1&facets=category,options,tag"), 200
    )

    assert len(page["items"]) == 1
    assert page["facets"] == {
        "category": [{"value": word, "count": 3}],
        "options": {"size": [{"value": "M", "count": 2}, {"value": "S", "count": 1}]},
        "tag": [{"value": tag, "count": 3}],
    }


async def test_category_includes_products_of_descendants(shop: Shop) -> None:
    drinks, tea = unique_word(), unique_word()
    for key, parent in ((drinks, None), (tea, drinks)):
        body = {"category": key, "name": key.title(), "parent": parent}
        expect_status(await shop.post("/categories", shop.admin, json=body), 201)
    product = await shop.product(category=tea, stock=0)

    items = await wait_until_found(shop, f"category={drinks}", 1)

    assert items[0]["product_id"] == product["product_id"]


async def test_category_is_never_its_own_ancestor(shop: Shop) -> None:
    above, below = unique_word(), unique_word()
    root = await shop.post("/categories", shop.admin, json={"category": above, "name": above})
    leaf = {"category": below, "name": below, "parent": above}
    expect_status(await shop.post("/categories", shop.admin, json=leaf), 201)

    path = f"/categories/{expect_status(root, 201)['category_id']}"
    if_match = {"If-Match": (await shop.get(path)).headers["etag"]}
    answer = await shop.send("PATCH", path, shop.admin, headers=if_match, json={"parent": below})

    expect_problem(answer, 409, "inventory.category_cycle")


async def test_family_lists_its_members(shop: Shop) -> None:
    family = unique_word()
    for size, amount in (("S", 1000), ("M", 1200)):
        await shop.product(family=family, options={"size": size}, amount=amount, stock=0)

    page = expect_status(await shop.get(f"/families/{quote(family)}"), 200)

    assert page["options"] == [{"name": "size", "values": ["S", "M"]}]
    assert page["price_range"] == {"currency": "EUR", "lowest": 1000, "highest": 1200}
    assert len(page["products"]) == 2


async def test_former_slug_of_a_family_is_redirected(shop: Shop) -> None:
    family, other = unique_word(), unique_word()
    await shop.product(family=family, stock=0)
    path = f"/families/{family}"
    if_match = {"If-Match": (await shop.get(path)).headers["etag"]}

    changed = await shop.send("PATCH", path, shop.admin, headers=if_match, json={"slug": other})

    expect_status(changed, 200)
    moved = await shop.get(path)
    assert (moved.status_code, moved.headers["location"]) == (301, f"/families/{other}")
    assert expect_status(await shop.get(f"/families/{other}"), 200)["label"] == family


async def test_order_is_allocated_from_two_warehouses(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=5)
    second = expect_status(
        await shop.post("/warehouses", shop.admin, json={"name": unique_word()}), 201
    )
    ids = [row["warehouse_id"] for row in await stock_levels(shop, product)]
    body = {
        "product_id": product["product_id"],
        "from_warehouse_id": ids[0],
        "to_warehouse_id": second["warehouse_id"],
        "quantity": 2,
    }
    expect_status(await shop.post("/stock-transfers", shop.admin, json=body), 201)

    placed = await shop.place(buyer, product["product_id"], quantity=5)

    order = expect_status(placed, 201)
    assert [line["quantity"] for line in order["lines"]] == [5]
    assert await shop.available(product["product_id"]) == 0
    assert sum(row["reserved"] for row in await stock_levels(shop, product)) == 5


async def test_backorder_is_accepted_up_to_limit(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=1, backorder_limit=2)

    first = await shop.place(buyer, product["product_id"], quantity=3)
    second = await shop.place(buyer, product["product_id"], quantity=1)

    expect_status(first, 201)
    expect_problem(second, 409, "inventory.out_of_stock")


async def stock_levels(shop: Shop, product: dict[str, Any]) -> list[dict[str, Any]]:
    path = f"/products/{product['product_id']}/stock"
    return list(expect_status(await shop.get(path, shop.admin), 200)["warehouses"])
