"""Test names and paths of categories: look-alike spellings identify the same category."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import ValidationError

from markethall.inventory.catalogue.contract.categories import (
    MAX_AMBIGUOUS_PATHS,
    CategoryAmbiguous,
    CategoryQuery,
    CategoryTaken,
    CategoryView,
    NewCategory,
)
from markethall.inventory.catalogue.contract.products import NewProduct, ProductChange
from markethall.inventory.imports.contract import NoteKind
from markethall.inventory.search.contract import ProductQuery
from markethall.shared.kernel.errors import ValidationFailed
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, no_key
from tests.inventory.import_client import ImportClient, counts
from tests.inventory.test_categories import add, change, listed, skus_in

LOOK_ALIKES = ["Knit\u00e9", " knit\u00e9", "KNITE\u0301 ", "\u00a0Knit\u00e9", "\uff2bnit\u00e9"]
TWO_LEAVES = """sku,name,price,category
CAB,Cable,1,Electronics > Accessories
SCA,Scarf,1,Apparel > Accessories
"""
SHOPIFY_CATEGORY = """Handle,Title,Product Category,SKU,Price
cable,Cable,Electronics > Accessories,CAB,1
scarf,Scarf,Apparel > Accessories,SCA,1
"""
SHOPIFY_TYPE = """Handle,Title,Type,Product Category,SKU,Price
cable,Cable,Electronics > Accessories,X > Y,CAB,1
scarf,Scarf,Apparel > Accessories,X > Y,SCA,1
"""
EURO = {"amount": 1, "currency": "EUR"}
NDJSON = "".join(
    json.dumps(
        {"sku": sku, "name": sku, "price": {"amount": 1, "currency": "EUR"}, "category": text}
    )
    + "\n"
    for sku, text in (("A", "Knitwear"), ("B", "Knitwear "), ("C", "knitwear"))
)


async def tree(inventory_app: InventoryApp) -> set[tuple[str, str, str | None]]:
    return {(c.category, c.name, c.parent) for c in await listed(inventory_app, limit=100)}


async def categories_of(inventory_app: InventoryApp, *skus: str) -> list[str | None]:
    products = [await inventory_app.catalogue.get_product_by_sku(STAFF, sku) for sku in skus]
    return [product.category for product in products]


async def set_category(inventory_app: InventoryApp, sku: str, category: str) -> Any:
    product = await inventory_app.catalogue.get_product_by_sku(STAFF, sku)
    command = ProductChange.model_validate({"category": category})
    return await inventory_app.catalogue.change(
        STAFF, product.product_id, command, {product.version}
    )


# Look-alike spellings have one key


async def test_look_alike_categories_of_products_are_one(inventory_app: InventoryApp) -> None:
    for number, category in enumerate(LOOK_ALIKES):
        await inventory_app.product(f"P-{number}", category=category)

    assert await tree(inventory_app) == {("Knit\u00e9", "Knit\u00e9", None)}
    found = await categories_of(inventory_app, *(f"P-{n}" for n in range(len(LOOK_ALIKES))))
    assert set(found) == {"Knit\u00e9"}


async def test_look_alike_is_no_change_of_product(inventory_app: InventoryApp) -> None:
    await inventory_app.product("P", category="Knitwear")

    changed = await set_category(inventory_app, "P", "KNITWEAR ")

    assert (changed.version, changed.category) == (1, "Knitwear")


async def test_look_alike_category_is_taken(inventory_app: InventoryApp) -> None:
    await add(inventory_app, "Knitwear")

    for category in ("knitwear", " Knitwear", "Knitwear\u00a0"):
        with pytest.raises(CategoryTaken):
            await add(inventory_app, category)


async def test_filters_and_parents_ignore_spelling(inventory_app: InventoryApp) -> None:
    await add(inventory_app, "Tea")
    green = await add(inventory_app, "Green", " tea ")
    await inventory_app.product("P", category="green")

    assert green.parent == "Tea"
    assert await skus_in(inventory_app, "TEA") == {"P"}
    assert [c.category for c in await listed(inventory_app, parent="tea\u00a0")] == ["Green"]
    query = ProductQuery(category=("tea",), facets="category")
    page = await inventory_app.product_search.list_products(ANYONE, query)
    assert page.facets is not None
    assert page.facets.category is not None
    counts = {facet.value: facet.count for facet in page.facets.category}
    assert counts == {"Green": 1, "Tea": 1}


# Paths


async def test_path_creates_tree(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", category="Electronics > Accessories")
    await inventory_app.product("B", category="Apparel>Accessories")
    await inventory_app.product("C", category="electronics  >  accessories > Cables")

    assert await tree(inventory_app) == {
        ("Electronics", "Electronics", None),
        ("Electronics > Accessories", "Accessories", "Electronics"),
        ("Electronics > Accessories > Cables", "Cables", "Electronics > Accessories"),
        ("Apparel", "Apparel", None),
        ("Apparel > Accessories", "Accessories", "Apparel"),
    }
    assert await categories_of(inventory_app, "A", "B", "C") == [
        "Electronics > Accessories",
        "Apparel > Accessories",
        "Electronics > Accessories > Cables",
    ]


async def test_plain_name_with_one_match_is_that_category(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", category="Apparel > Scarves")

    await inventory_app.product("B", category="scarves")

    assert await categories_of(inventory_app, "B") == ["Apparel > Scarves"]


async def test_root_is_named_exactly_by_plain_name(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", category="Accessories")
    await inventory_app.product("B", category="Apparel > Accessories")

    await inventory_app.product("C", category="accessories")

    assert await categories_of(inventory_app, "C") == ["Accessories"]


async def test_ambiguous_name_is_rejected_with_all_paths(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", category="Electronics > Accessories")
    await inventory_app.product("B", category="Apparel > Accessories")
    expected = {
        "category": "accessories",
        "paths": ["Apparel > Accessories", "Electronics > Accessories"],
    }

    with pytest.raises(CategoryAmbiguous) as created:
        await inventory_app.product("C", category="accessories")
    with pytest.raises(CategoryAmbiguous) as changed:
        await set_category(inventory_app, "A", "accessories")
    with pytest.raises(CategoryAmbiguous) as below:
        await add(inventory_app, "cables", "accessories")

    assert created.value.details == changed.value.details == below.value.details == expected


async def test_ambiguous_filter_selects_all_matches(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", category="Electronics > Accessories > Cables")
    await inventory_app.product("B", category="Apparel > Accessories")

    assert await skus_in(inventory_app, "accessories") == {"A", "B"}
    assert await skus_in(inventory_app, "apparel>accessories") == {"B"}
    assert await skus_in(inventory_app, "electronics") == {"A"}


async def test_product_below_two_matches_is_listed_once(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", category="Apparel > Accessories > Jewelry > Accessories")
    await inventory_app.product("B", category="Apparel > Accessories")

    query = ProductQuery(category=("accessories",))
    page = await inventory_app.product_search.list_products(ANYONE, query)

    assert sorted(product.sku for product in page.items) == ["A", "B"]


async def test_paths_of_ambiguous_name_are_limited(inventory_app: InventoryApp) -> None:
    for number in range(MAX_AMBIGUOUS_PATHS + 1):
        await inventory_app.product(f"P-{number}", category=f"{number:02} > Sale")

    with pytest.raises(CategoryAmbiguous) as rejected:
        await listed(inventory_app, parent="sale")

    expected = [f"{number:02} > Sale" for number in range(MAX_AMBIGUOUS_PATHS)]
    assert rejected.value.details["paths"] == expected


async def test_category_deeper_than_the_longest_path(inventory_app: InventoryApp) -> None:
    """A path may have 20 names, so a request names a deeper category by its key.

    An export also writes the key of such a category, and the import of the export accepts it.
    """
    deepest = " > ".join("abcdefghijklmnopqrst")
    await inventory_app.product("A", category=deepest)
    await add(inventory_app, "sale")

    with pytest.raises(CategoryTaken):
        await add(inventory_app, "sale", deepest)
    await add(inventory_app, "sale of tea", deepest)
    await inventory_app.product("B", category="sale of tea")

    import_client = ImportClient(inventory_app)
    done = await import_client.import_to_end(await import_client.export())
    assert counts(done) == (2, 0, 0, 2, 0)


async def test_every_category_facet_can_be_asked_for(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", category="Electronics > Accessories")
    await inventory_app.product("B", category="Apparel > Accessories")
    query = ProductQuery(facets="category")

    page = await inventory_app.product_search.list_products(ANYONE, query)

    assert page.facets is not None
    assert page.facets.category is not None
    found = {facet.value: facet.count for facet in page.facets.category}
    assert found == {
        "Apparel": 1,
        "Apparel > Accessories": 1,
        "Electronics": 1,
        "Electronics > Accessories": 1,
    }
    for value in found:
        assert len(await skus_in(inventory_app, value)) == 1


async def test_path_of_created_categories_names_them(inventory_app: InventoryApp) -> None:
    await add(inventory_app, "drinks")
    await add(inventory_app, "tea", "drinks")

    await inventory_app.product("A", category="Drinks > Tea > Green")

    assert await skus_in(inventory_app, "drinks > tea") == {"A"}
    assert ("drinks > tea > Green", "Green", "tea") in await tree(inventory_app)


async def test_same_name_below_another_parent_is_another_category(
    inventory_app: InventoryApp,
) -> None:
    for parent in ("Electronics", "Apparel"):
        await add(inventory_app, parent)
    first = await add(inventory_app, "Accessories", "Electronics")

    second = await add(inventory_app, "Accessories", "Apparel", name="Nice things")

    assert (first.category, second.category) == ("Accessories", "Apparel > Accessories")
    for parent in ("Electronics", "Apparel"):
        with pytest.raises(CategoryTaken):
            await add(inventory_app, "ACCESSORIES", parent)


async def test_category_is_created_by_its_path(inventory_app: InventoryApp) -> None:
    await add(inventory_app, "Apparel")

    first = await add(inventory_app, "apparel > Scarves")
    second = await add(inventory_app, "Apparel > Hats", "Apparel")

    assert (first.category, first.parent, first.name) == (
        "Apparel > Scarves", "Apparel", "Scarves",
    )  # fmt: skip
    assert (second.category, second.parent) == ("Apparel > Hats", "Apparel")
    with pytest.raises(ValidationFailed):
        await add(inventory_app, "Electronics > Hats", "Apparel")


async def test_key_stays_when_category_moves(inventory_app: InventoryApp) -> None:
    await inventory_app.product("A", category="Electronics > Accessories")
    moved = next(c for c in await listed(inventory_app) if c.name == "Accessories")
    await add(inventory_app, "Apparel")
    await change(inventory_app, moved, parent="apparel")

    await inventory_app.product("B", category="Electronics > Accessories")
    await inventory_app.product("C", category="Apparel > Accessories")

    assert set(await categories_of(inventory_app, "A", "B", "C")) == {"Electronics > Accessories"}
    assert await skus_in(inventory_app, "Apparel") == {"A", "B", "C"}


async def test_category_cannot_move_beside_its_name(inventory_app: InventoryApp) -> None:
    await inventory_app.product(category="Electronics > Accessories")
    await inventory_app.product(category="Apparel > accessories")
    moved = next(c for c in await listed(inventory_app) if c.parent == "Electronics")

    with pytest.raises(CategoryTaken):
        await change(inventory_app, moved, parent="Apparel")


@pytest.mark.parametrize("category", [">".join("abcdefghijklmnopqrstu"), "x" * 256, "a > " * 200])
def test_too_long_path_is_rejected(category: str) -> None:
    with pytest.raises(ValidationError):
        NewCategory(category=category)
    with pytest.raises(ValidationError):
        NewProduct.model_validate(
            {
                "sku": "A",
                "name": "A",
                "price": {"amount": 1, "currency": "EUR"},
                "category": category,
            }
        )


async def test_longest_path_can_be_stored(inventory_app: InventoryApp) -> None:
    """The stored key may be longer than the path.

    A character may have four bytes in UTF-8, or become several characters in NFKC.
    """
    for character in ("\U0001f375", "\ufdfa"):
        path = " > ".join(character * 130 for _ in range(3))
        product = await inventory_app.product(category=path, name=character * 255)
        assert product.category == path
        assert len(await skus_in(inventory_app, path)) == 1


# Imports


@pytest.mark.parametrize(
    "file",
    [
        "sku,name,price,category\nA,A,1,Knitwear\nB,B,1,Knitwear \nC,C,1,knitwear\n",
        NDJSON,
        "Handle,Title,Type,SKU,Price\na,A,Knitwear,A,1\nb,B,Knitwear ,B,1\nc,C,knitwear,C,1\n",
    ],
)
async def test_import_makes_one_category_of_look_alikes(
    inventory_app: InventoryApp, file: str
) -> None:
    import_client = ImportClient(inventory_app)
    format_ = "ndjson" if file.startswith("{") else "csv"

    done = await import_client.import_to_end(file, format=format_)

    assert counts(done) == (3, 3, 0, 0, 0)
    assert await tree(inventory_app) == {("Knitwear", "Knitwear", None)}
    assert await categories_of(inventory_app, "A", "B", "C") == ["Knitwear"] * 3


@pytest.mark.parametrize(
    "file",
    [
        TWO_LEAVES,
        SHOPIFY_CATEGORY,
        SHOPIFY_TYPE,
    ],
)
async def test_import_keeps_branches_with_same_leaf_apart(
    inventory_app: InventoryApp, file: str
) -> None:
    await ImportClient(inventory_app).import_to_end(file)

    assert await tree(inventory_app) == {
        ("Electronics", "Electronics", None),
        ("Electronics > Accessories", "Accessories", "Electronics"),
        ("Apparel", "Apparel", None),
        ("Apparel > Accessories", "Accessories", "Apparel"),
    }
    assert await skus_in(inventory_app, "Apparel") == {"SCA"}


async def test_too_long_category_of_shopify_is_cut_with_warning(
    inventory_app: InventoryApp,
) -> None:
    import_client = ImportClient(inventory_app)
    long_name, deep = "x" * 256, " > ".join("abcdefghijklmnopqrstu")
    file = f"Handle,Title,Type,SKU,Price\na,A,{long_name},A,1\nb,B,{deep},B,1\n"

    done = await import_client.import_to_end(file)

    assert counts(done) == (2, 2, 0, 0, 0)
    warnings = await import_client.notes(done, NoteKind.WARNING)
    assert [(w.line, w.field, w.code) for w in warnings] == [(2, "Type", "cut"), (3, "Type", "cut")]
    assert await categories_of(inventory_app, "A", "B") == [long_name[:255], deep[:-4]]


async def test_ambiguous_category_is_error_of_row(inventory_app: InventoryApp) -> None:
    import_client = ImportClient(inventory_app)
    await import_client.import_to_end(TWO_LEAVES)

    done = await import_client.import_to_end("sku,Category\nCAB,accessories\nSCA,Apparel > Hats\n")

    assert counts(done) == (2, 0, 1, 0, 1)
    [error] = await import_client.errors(done)
    assert (error.line, error.field, error.code) == (2, "Category", "inventory.category_ambiguous")
    assert error.message == (
        "'accessories' may be Apparel > Accessories or Electronics > Accessories: give the path"
    )


async def test_name_that_earlier_rows_make_ambiguous_is_error(inventory_app: InventoryApp) -> None:
    import_client = ImportClient(inventory_app)

    done = await import_client.import_to_end(f"{TWO_LEAVES}HAT,Hat,1,accessories\n")

    [error] = await import_client.errors(done)
    assert error.message == (
        "'accessories' may be Apparel > Accessories or Electronics > Accessories: give the path"
    )


async def test_failed_row_and_dry_run_create_no_category(inventory_app: InventoryApp) -> None:
    import_client = ImportClient(inventory_app)

    await import_client.import_to_end(TWO_LEAVES, dry_run=True)
    await import_client.import_to_end("sku,category\nUNKNOWN,Hats > Caps\n")

    assert await tree(inventory_app) == set()


async def test_reimport_of_export_changes_nothing(inventory_app: InventoryApp) -> None:
    import_client = ImportClient(inventory_app)
    for parent in ("drinks", "hot"):
        await add(inventory_app, parent)
    tea = await add(inventory_app, "tea", "drinks")
    await add(inventory_app, "tea", "hot")
    await inventory_app.product("A", category="tea")
    await inventory_app.product("B", category="hot > tea > green")
    await inventory_app.product("C", category="cold > tea")
    await inventory_app.product("D", category="drinks > coffee")
    await change(inventory_app, tea, parent=None)
    # a move does not change the key, so the key of coffee, "drinks > coffee", becomes the path of
    # the new category
    [coffee] = [c for c in await listed(inventory_app) if c.name == "coffee"]
    await change(inventory_app, coffee, parent="hot")
    await add(inventory_app, "coffee", "drinks")
    await inventory_app.product("E", category="coffee")
    before = await categories_of(inventory_app, *"ABCDE"), await tree(inventory_app)

    file = await import_client.export()
    done = await import_client.import_to_end(file)

    assert counts(done) == (5, 0, 0, 5, 0)
    assert before == (await categories_of(inventory_app, *"ABCDE"), await tree(inventory_app))


async def test_export_has_paths_that_rebuild_the_tree(inventory_app: InventoryApp) -> None:
    await add(inventory_app, "drinks")
    await add(inventory_app, "tea", "drinks")
    await inventory_app.product("A", category="tea")

    file = await ImportClient(inventory_app).export()

    assert b",drinks > tea," in file


# Races in Postgres


async def test_concurrent_imports_create_category_once(sql_inventory_app: InventoryApp) -> None:
    import_client = ImportClient(sql_inventory_app)
    spellings = ["Home > Tea", "HOME > tea", "home>TEA", " Home >  Tea "]
    files = [
        f"sku,name,price,category\nA{n},A,1,{spelling}\nB{n},B,1,X{n} > Y\nC{n},C,1,Z > {n % 2}\n"
        for n, spelling in enumerate(spellings)
    ]

    done = await asyncio.gather(*(import_client.import_to_end(file) for file in files))

    assert [counts(one) for one in done] == [(3, 3, 0, 0, 0)] * 4
    names = sorted(c.name.casefold() for c in await listed(sql_inventory_app, limit=100))
    assert names == sorted(["home", "tea", "z", "0", "1", *("x0", "x1", "x2", "x3"), *"yyyy"])


async def test_concurrent_writers_create_category_once(sql_inventory_app: InventoryApp) -> None:
    async def create(number: int) -> CategoryView | None:
        command = NewCategory(category=["tea", "TEA"][number % 2], parent=None)
        try:
            return await sql_inventory_app.categories.create(STAFF, command, no_key())
        except CategoryTaken:
            return None

    await asyncio.gather(
        *(create(number) for number in range(5)),
        *(sql_inventory_app.product(category=text) for text in ("Tea", "tea ", "TEA", "tea > b")),
    )

    found = await sql_inventory_app.categories.list_categories(ANYONE, CategoryQuery(limit=100))
    assert sorted(c.name.casefold() for c in found.items) == ["b", "tea"]


async def test_import_races_with_deletion_of_category(sql_inventory_app: InventoryApp) -> None:
    import_client = ImportClient(sql_inventory_app)
    for number in range(10):
        tea = await add(sql_inventory_app, f"tea{number}")
        file = f"sku,name,price,category\nT{number},A,1,TEA{number} > green\n"

        done, _ = await asyncio.gather(
            import_client.import_to_end(file),
            sql_inventory_app.categories.remove(STAFF, tea.category_id, {1}),
            return_exceptions=True,
        )

        assert not isinstance(done, BaseException)
        assert counts(done) == (1, 1, 0, 0, 0)
        assert await skus_in(sql_inventory_app, f"tea{number}") == {f"T{number}"}


async def test_imports_and_moves_do_not_deadlock(sql_inventory_app: InventoryApp) -> None:
    import_client = ImportClient(sql_inventory_app)
    for parent in ("left", "right"):
        await add(sql_inventory_app, parent)

    for number in range(10):
        moved = await add(sql_inventory_app, f"tea{number}", "left")
        file = f"sku,name,price,category\nT{number},A,1,left > tea{number} > green\n"
        done, view = await asyncio.gather(
            import_client.import_to_end(file), change(sql_inventory_app, moved, parent="right")
        )

        assert (counts(done), view.parent) == ((1, 1, 0, 0, 0), "right")
