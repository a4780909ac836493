"""The contract suite of `Categories`. It runs on each storage."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from markethall.inventory.catalogue.contract.categories import (
    CategoryChange,
    CategoryCycle,
    CategoryInUse,
    CategoryNotFound,
    CategoryQuery,
    CategoryTaken,
    CategoryView,
    NewCategory,
)
from markethall.inventory.catalogue.contract.products import ProductChange
from markethall.inventory.search.contract import ProductQuery
from markethall.shared.kernel.errors import PreconditionFailed, ValidationFailed
from markethall.shared.kernel.ids import new_id
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, no_key


async def add(
    inventory_app: InventoryApp, category: str, parent: str | None = None, **fields: Any
) -> CategoryView:
    command = NewCategory.model_validate({"category": category, "parent": parent, **fields})
    return await inventory_app.categories.create(STAFF, command, no_key())


async def change(
    inventory_app: InventoryApp, category: CategoryView, version: int = 0, **fields: Any
) -> CategoryView:
    command = CategoryChange.model_validate(fields)
    expected = version or category.version
    return await inventory_app.categories.change(STAFF, category.category_id, command, {expected})


async def listed(inventory_app: InventoryApp, **query: Any) -> list[CategoryView]:
    page = await inventory_app.categories.list_categories(
        ANYONE, CategoryQuery.model_validate(query)
    )
    return list(page.items)


async def keys(inventory_app: InventoryApp, **query: Any) -> list[str]:
    return [category.category for category in await listed(inventory_app, **query)]


async def skus_in(inventory_app: InventoryApp, category: str) -> set[str]:
    query = ProductQuery(category=(category,), limit=100)
    page = await inventory_app.product_search.list_products(ANYONE, query)
    return {product.sku for product in page.items}


async def add_drinks(inventory_app: InventoryApp) -> dict[str, CategoryView]:
    """Add drinks with tea and coffee below, green below tea, and sencha below green."""
    tree = (
        ("drinks", None),
        ("tea", "drinks"),
        ("coffee", "drinks"),
        ("green", "tea"),
        ("sencha", "green"),
    )
    return {key: await add(inventory_app, key, parent) for key, parent in tree}


# Adding


async def test_category_has_all_created_fields(inventory_app: InventoryApp) -> None:
    await add(inventory_app, "drinks")

    created = await add(
        inventory_app, "tea", "drinks", name="Tea", position=3, translations={"de": {"name": "Tee"}}
    )

    assert created == await inventory_app.categories.get_category(ANYONE, created.category_id)
    assert created.model_dump(exclude={"category_id"}) == {
        "category": "tea",
        "name": "Tea",
        "parent": "drinks",
        "position": 3,
        "translations": {"de": {"name": "Tee"}},
        "product_count": 0,
        "version": 1,
    }


async def test_name_defaults_to_key(inventory_app: InventoryApp) -> None:
    assert (await add(inventory_app, "tea")).name == "tea"


async def test_create_is_idempotent_by_id(inventory_app: InventoryApp) -> None:
    attempt = no_key()
    command = NewCategory(category="tea")

    first = await inventory_app.categories.create(STAFF, command, attempt)
    again = await inventory_app.categories.create(STAFF, command, attempt)

    assert first == again
    assert first.category_id == attempt.id
    assert await keys(inventory_app) == ["tea"]


async def test_key_is_unique(inventory_app: InventoryApp) -> None:
    await add(inventory_app, "tea")
    await inventory_app.product(category="cups")

    for category in ("tea", "cups"):
        with pytest.raises(CategoryTaken) as raised:
            await add(inventory_app, category)
        assert raised.value.details == {"category": category}


async def test_name_is_unique_below_parent(inventory_app: InventoryApp) -> None:
    await add_drinks(inventory_app)

    for category in ("tea", "drinks > tea"):
        with pytest.raises(CategoryTaken) as raised:
            await add(inventory_app, category, "drinks")
        assert raised.value.details == {"category": category}


async def test_parent_must_exist(inventory_app: InventoryApp) -> None:
    with pytest.raises(CategoryNotFound) as raised:
        await add(inventory_app, "tea", "drinks")

    assert raised.value.details == {"category": "drinks"}
    assert await keys(inventory_app) == []


async def test_category_cannot_be_its_own_parent(inventory_app: InventoryApp) -> None:
    with pytest.raises(CategoryCycle):
        await add(inventory_app, "tea", "tea")


# Categories of products


async def test_product_creates_missing_category(inventory_app: InventoryApp) -> None:
    first = await inventory_app.product(category="tea")
    await inventory_app.product(category="tea")
    await inventory_app.catalogue.change(
        STAFF, first.product_id, ProductChange.model_validate({"category": "cups"}), {1}
    )

    created = await listed(inventory_app)

    assert [
        (category.category, category.name, category.parent, category.version)
        for category in created
    ] == [
        ("cups", "cups", None, 1),
        ("tea", "tea", None, 1),
    ]
    assert all(category.category_id.version == 7 for category in created)
    assert created[0] == await inventory_app.categories.get_category(ANYONE, created[0].category_id)


async def test_product_joins_existing_category(inventory_app: InventoryApp) -> None:
    await add_drinks(inventory_app)

    await inventory_app.product(category="green")

    assert [
        (category.category, category.parent)
        for category in await listed(inventory_app, parent="tea")
    ] == [("green", "tea")]


async def test_category_counts_active_products_of_subtree(inventory_app: InventoryApp) -> None:
    await add_drinks(inventory_app)
    for category in ("tea", "green", "sencha", "sencha", None):
        await inventory_app.product(category=category)
    await inventory_app.product(category="tea", status="draft")

    counts = {category.category: category.product_count for category in await listed(inventory_app)}

    assert counts == {"drinks": 4, "tea": 4, "green": 3, "sencha": 2, "coffee": 0}


async def test_category_filter_includes_subtree(inventory_app: InventoryApp) -> None:
    tree = await add_drinks(inventory_app)
    for category in ("drinks", "tea", "sencha", "coffee"):
        await inventory_app.product(category.upper(), category=category)

    before = [
        await skus_in(inventory_app, key) for key in ("drinks", "tea", "sencha", "coffee", "cups")
    ]
    await change(inventory_app, tree["green"], parent="coffee")
    after = [await skus_in(inventory_app, key) for key in ("tea", "coffee")]

    assert before == [
        {"DRINKS", "TEA", "SENCHA", "COFFEE"}, {"TEA", "SENCHA"}, {"SENCHA"}, {"COFFEE"}, set(),
    ]  # fmt: skip
    assert after == [{"TEA"}, {"COFFEE", "SENCHA"}]


async def test_product_page_is_invalidated_by_tree_change(inventory_app: InventoryApp) -> None:
    tree = await add_drinks(inventory_app)
    await inventory_app.product("S", category="sencha")
    query = ProductQuery(category=("coffee",))
    before = await inventory_app.product_search.render_product_page(ANYONE, query)

    await change(inventory_app, tree["green"], parent="coffee")
    after = await inventory_app.product_search.render_product_page(ANYONE, query)

    assert (b'"S"' in before.body, b'"S"' in after.body) == (False, True)


async def test_category_list_is_invalidated_by_tree_change(inventory_app: InventoryApp) -> None:
    tree = await add_drinks(inventory_app)
    query = CategoryQuery(parent="")
    first = await inventory_app.categories.render_categories(ANYONE, query)

    await change(inventory_app, tree["coffee"], parent=None)
    second = await inventory_app.categories.render_categories(ANYONE, query)
    await inventory_app.categories.remove(STAFF, tree["coffee"].category_id, {2})
    third = await inventory_app.categories.render_categories(ANYONE, query)

    assert [b'"coffee"' in page.body for page in (first, second, third)] == [False, True, False]
    assert first.etag == third.etag != second.etag


# The list


async def test_categories_are_listed_by_position_then_key_page_by_page(
    inventory_app: InventoryApp,
) -> None:
    for key, position in (("b", 1), ("a", 2), ("Z", 1), ("ä", 1), ("c", 0)):
        await add(inventory_app, key, position=position)

    pages: list[list[str]] = []
    cursor = None
    while cursor or not pages:
        page = await inventory_app.categories.list_categories(
            ANYONE, CategoryQuery(limit=2, cursor=cursor)
        )
        pages.append([category.category for category in page.items])
        cursor = page.next_cursor

    assert pages == [["c", "Z"], ["b", "ä"], ["a"]]


async def test_children_of_one_parent_are_listed(inventory_app: InventoryApp) -> None:
    await add_drinks(inventory_app)

    assert await keys(inventory_app, parent="drinks") == ["coffee", "tea"]
    assert await keys(inventory_app, parent="") == ["drinks"]
    assert await keys(inventory_app, parent=" ") == []
    assert await keys(inventory_app, parent="nowhere") == []


async def test_children_are_paginated(inventory_app: InventoryApp) -> None:
    await add_drinks(inventory_app)
    first = await inventory_app.categories.list_categories(
        ANYONE, CategoryQuery(limit=1, parent="drinks")
    )
    query = CategoryQuery(limit=1, parent="drinks", cursor=first.next_cursor)

    second = await inventory_app.categories.list_categories(ANYONE, query)

    assert ([category.category for category in second.items], second.next_cursor) == (["tea"], None)


# Changing


async def test_patch_keeps_absent_fields_and_merges_translations(
    inventory_app: InventoryApp,
) -> None:
    created = await add(
        inventory_app,
        "tea",
        position=2,
        translations={"de": {"name": "Tee"}, "fr": {"name": "The"}},
    )

    changed = await change(
        inventory_app, created, name="Teas", translations={"fr": None, "it": {"name": "Tè"}}
    )
    bare = await change(inventory_app, changed, translations=None)

    assert (changed.name, changed.position, changed.version) == ("Teas", 2, 2)
    assert {key: names.name for key, names in changed.translations.items()} == {
        "de": "Tee",
        "it": "Tè",
    }
    assert (dict(bare.translations), bare.version) == ({}, 3)


async def test_too_many_languages_are_rejected(inventory_app: InventoryApp) -> None:
    created = await add(
        inventory_app, "tea", translations={f"a{chr(97 + n % 26)}{chr(97 + n // 26)}": {"name": "x"}
                                    for n in range(50)},
    )  # fmt: skip

    with pytest.raises(ValidationFailed):
        await change(inventory_app, created, translations={"de": {"name": "Tee"}})


async def test_no_op_patch_keeps_version(inventory_app: InventoryApp) -> None:
    created = await add(inventory_app, "tea", translations={"de": {"name": "Tee"}})

    same = await change(inventory_app, created, name="tea", translations={"de": {"name": "Tee"}})

    assert same == created


async def test_category_moves_with_subtree(inventory_app: InventoryApp) -> None:
    tree = await add_drinks(inventory_app)

    moved = await change(inventory_app, tree["tea"], parent=None)

    assert (moved.parent, moved.version) == (None, 2)
    assert await keys(inventory_app, parent="") == ["drinks", "tea"]
    assert await keys(inventory_app, parent="tea") == ["green"]


@pytest.mark.parametrize("parent", ["tea", "green", "sencha"])
async def test_category_cannot_become_its_own_descendant(
    inventory_app: InventoryApp, parent: str
) -> None:
    tree = await add_drinks(inventory_app)

    with pytest.raises(CategoryCycle) as raised:
        await change(inventory_app, tree["tea"], parent=parent)

    assert raised.value.details == {"category": "tea", "parent": parent}
    assert (await inventory_app.categories.get_category(ANYONE, tree["tea"].category_id)) == tree[
        "tea"
    ]


async def test_new_parent_must_exist(inventory_app: InventoryApp) -> None:
    tea = await add(inventory_app, "tea")

    with pytest.raises(CategoryNotFound):
        await change(inventory_app, tea, parent="drinks")


async def test_stale_version_is_rejected(inventory_app: InventoryApp) -> None:
    tea = await add(inventory_app, "tea")
    await change(inventory_app, tea, name="Teas")

    with pytest.raises(PreconditionFailed) as raised:
        await change(inventory_app, tea, name="Leaves")
    with pytest.raises(PreconditionFailed):
        await inventory_app.categories.remove(STAFF, tea.category_id, {1})

    assert raised.value.details == {"etag": '"v2"'}


async def test_unknown_category_is_not_found(inventory_app: InventoryApp) -> None:
    unknown_id = new_id()

    with pytest.raises(CategoryNotFound) as raised:
        await inventory_app.categories.get_category(ANYONE, unknown_id)
    with pytest.raises(CategoryNotFound):
        await inventory_app.categories.change(STAFF, unknown_id, CategoryChange(name="x"), {1})
    with pytest.raises(CategoryNotFound):
        await inventory_app.categories.remove(STAFF, unknown_id, {1})

    assert raised.value.details == {"category_id": str(unknown_id)}


# Removing


async def test_empty_category_can_be_deleted_and_recreated(inventory_app: InventoryApp) -> None:
    tea = await add(inventory_app, "tea")

    await inventory_app.categories.remove(STAFF, tea.category_id, {1})
    again = await inventory_app.product(category="tea")

    assert again.category == "tea"
    assert await keys(inventory_app) == ["tea"]
    with pytest.raises(CategoryNotFound):
        await inventory_app.categories.get_category(ANYONE, tea.category_id)


async def test_category_in_use_is_not_deleted(inventory_app: InventoryApp) -> None:
    tree = await add_drinks(inventory_app)
    old = await inventory_app.product(category="sencha")
    await inventory_app.catalogue.archive(STAFF, old.product_id, {1})

    for key in ("tea", "sencha"):
        with pytest.raises(CategoryInUse) as raised:
            await inventory_app.categories.remove(STAFF, tree[key].category_id, {1})
        assert raised.value.details == {"category": key}

    assert len(await keys(inventory_app)) == 5


async def test_etag_changes_with_category(inventory_app: InventoryApp) -> None:
    tea = await add(inventory_app, "tea")
    first = await inventory_app.categories.render_category(ANYONE, tea.category_id)

    await inventory_app.product(category="tea")
    second = await inventory_app.categories.render_category(ANYONE, tea.category_id)

    assert CategoryView.model_validate_json(second.body).product_count == 1
    assert first.etag.startswith('"v1-')
    assert second.etag.startswith('"v1-')
    assert first.etag != second.etag


@pytest.mark.parametrize(
    "wrong",
    [
        {"category": ""},
        {"category": "x" * 256},
        {"category": "a\x00"},
        {"category": "a", "position": -1},
        {"category": "a", "position": True},
        {"category": "a", "translations": {"no language": {"name": "x"}}},
        {"category": "a", "translations": {"de": {"name": ""}}},
        {"category": "a", "parent": ""},
        {"category": "a", "colour": "b"},
    ],
)
def test_invalid_category_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NewCategory.model_validate(wrong)


# Concurrency in Postgres


async def outcomes(*attempts: Any) -> list[Any]:
    return [
        type(result) if isinstance(result, Exception) else None
        for result in await asyncio.gather(*attempts, return_exceptions=True)
    ]


async def test_concurrent_moves_never_create_cycle(sql_inventory_app: InventoryApp) -> None:
    for number in range(20):
        a, b = [await add(sql_inventory_app, f"{key}{number}") for key in "ab"]

        results = await outcomes(
            change(sql_inventory_app, a, parent=b.category),
            change(sql_inventory_app, b, parent=a.category),
        )

        assert sorted(map(str, results)) == sorted(map(str, [None, CategoryCycle]))


async def test_concurrent_moves_around_cycle_reject_one(sql_inventory_app: InventoryApp) -> None:
    cycle = [await add(sql_inventory_app, f"c{number}") for number in range(8)]

    results = await outcomes(
        *(
            change(sql_inventory_app, category, parent=cycle[(number + 1) % 8].category)
            for number, category in enumerate(cycle)
        )
    )

    assert results.count(None) == 7
    assert results.count(CategoryCycle) == 1


async def test_product_creation_races_with_category_deletion(
    sql_inventory_app: InventoryApp,
) -> None:
    for number in range(20):
        key = f"tea{number}"
        tea = await add(sql_inventory_app, key)

        results = await outcomes(
            sql_inventory_app.product(key, category=key),
            sql_inventory_app.categories.remove(STAFF, tea.category_id, {1}),
        )

        assert results[0] is None
        assert results[1] in {None, CategoryInUse}
        assert await skus_in(sql_inventory_app, key) == {key}
        assert (
            len([other for other in await keys(sql_inventory_app, limit=100) if other == key]) == 1
        )


async def test_concurrent_products_create_category_once(sql_inventory_app: InventoryApp) -> None:
    products = await asyncio.gather(*(sql_inventory_app.product(category="tea") for _ in range(20)))

    assert len({product.product_id for product in products}) == 20
    assert [
        (category.category, category.product_count) for category in await listed(sql_inventory_app)
    ] == [("tea", 20)]


async def test_child_creation_races_with_parent_deletion(sql_inventory_app: InventoryApp) -> None:
    for number in range(20):
        tea = await add(sql_inventory_app, f"tea{number}")

        results = await outcomes(
            add(sql_inventory_app, f"green{number}", tea.category),
            sql_inventory_app.categories.remove(STAFF, tea.category_id, {1}),
        )

        assert results in ([None, CategoryInUse], [CategoryNotFound, None])
