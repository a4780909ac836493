"""The category tree, in memory and in SQL alike."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from markethall.inventory.contract import (
    Category,
    CategoryChange,
    CategoryCycle,
    CategoryInUse,
    CategoryNotFound,
    CategoryQuery,
    CategoryTaken,
    NewCategory,
    ProductChange,
    ProductQuery,
)
from markethall.shared.errors import Invalid, PreconditionFailed
from markethall.shared.ids import new_id
from tests.inventory.conftest import ANYONE, STAFF, House, no_key


async def add(house: House, category: str, parent: str | None = None, **fields: Any) -> Category:
    command = NewCategory.model_validate({"category": category, "parent": parent, **fields})
    return await house.categories.create(STAFF, command, no_key())


async def change(house: House, category: Category, version: int = 0, **fields: Any) -> Category:
    command = CategoryChange.model_validate(fields)
    seen = version or category.version
    return await house.categories.change(STAFF, category.category_id, command, {seen})


async def listed(house: House, **query: Any) -> list[Category]:
    page = await house.categories.categories(ANYONE, CategoryQuery.model_validate(query))
    return list(page.items)


async def keys(house: House, **query: Any) -> list[str]:
    return [one.category for one in await listed(house, **query)]


async def found(house: House, category: str) -> set[str]:
    query = ProductQuery(category=category, limit=100)
    page = await house.catalogue.products(ANYONE, query)
    return {product.sku for product in page.items}


async def drinks(house: House) -> dict[str, Category]:
    """Drinks have tea and coffee; tea has green tea, which has sencha."""
    tree = (
        ("drinks", None),
        ("tea", "drinks"),
        ("coffee", "drinks"),
        ("green", "tea"),
        ("sencha", "green"),
    )
    return {key: await add(house, key, parent) for key, parent in tree}


# Adding


async def test_a_category_is_as_it_was_made(house: House) -> None:
    await add(house, "drinks")

    made = await add(
        house, "tea", "drinks", name="Tea", position=3, translations={"de": {"name": "Tee"}}
    )

    assert made == await house.categories.category(ANYONE, made.category_id)
    assert made.model_dump(exclude={"category_id"}) == {
        "category": "tea",
        "name": "Tea",
        "parent": "drinks",
        "position": 3,
        "translations": {"de": {"name": "Tee"}},
        "product_count": 0,
        "version": 1,
    }


async def test_without_a_name_it_is_called_by_its_key(house: House) -> None:
    assert (await add(house, "tea")).name == "tea"


async def test_the_same_attempt_makes_one_category(house: House) -> None:
    attempt = no_key()
    command = NewCategory(category="tea")

    first = await house.categories.create(STAFF, command, attempt)
    again = await house.categories.create(STAFF, command, attempt)

    assert first == again
    assert first.category_id == attempt.id
    assert await keys(house) == ["tea"]


async def test_a_key_is_taken_once(house: House) -> None:
    await add(house, "tea")
    await house.product(category="cups")

    for category in ("tea", "cups"):
        with pytest.raises(CategoryTaken) as refused:
            await add(house, category)
        assert refused.value.details == {"category": category}


async def test_a_key_is_taken_whatever_parent_is_named(house: House) -> None:
    await drinks(house)

    for parent in ("sencha", "coffee"):
        with pytest.raises(CategoryTaken) as refused:
            await add(house, "tea", parent)
        assert refused.value.details == {"category": "tea"}


async def test_a_parent_must_be_there(house: House) -> None:
    with pytest.raises(CategoryNotFound) as refused:
        await add(house, "tea", "drinks")

    assert refused.value.details == {"category": "drinks"}
    assert await keys(house) == []


async def test_no_category_is_its_own_parent(house: House) -> None:
    with pytest.raises(CategoryCycle):
        await add(house, "tea", "tea")


# Products name them


async def test_a_product_makes_the_category_that_it_is_first_to_name(house: House) -> None:
    first = await house.product(category="tea")
    await house.product(category="tea")
    await house.catalogue.change(
        STAFF, first.product_id, ProductChange.model_validate({"category": "cups"}), {1}
    )

    made = await listed(house)

    assert [(one.category, one.name, one.parent, one.version) for one in made] == [
        ("cups", "cups", None, 1),
        ("tea", "tea", None, 1),
    ]
    assert all(one.category_id.version == 7 for one in made)
    assert made[0] == await house.categories.category(ANYONE, made[0].category_id)


async def test_a_product_joins_a_category_that_is_there(house: House) -> None:
    await drinks(house)

    await house.product(category="green")

    assert [(one.category, one.parent) for one in await listed(house, parent="tea")] == [
        ("green", "tea")
    ]


async def test_a_category_counts_active_products_and_all_below_it(house: House) -> None:
    await drinks(house)
    for category in ("tea", "green", "sencha", "sencha", None):
        await house.product(category=category)
    await house.product(category="tea", status="draft")

    counts = {one.category: one.product_count for one in await listed(house)}

    assert counts == {"drinks": 4, "tea": 4, "green": 3, "sencha": 2, "coffee": 0}


async def test_products_of_a_category_are_those_of_all_below_it(house: House) -> None:
    tree = await drinks(house)
    for category in ("drinks", "tea", "sencha", "coffee"):
        await house.product(category.upper(), category=category)

    before = [await found(house, key) for key in ("drinks", "tea", "sencha", "coffee", "cups")]
    await change(house, tree["green"], parent="coffee")
    after = [await found(house, key) for key in ("tea", "coffee")]

    assert before == [
        {"DRINKS", "TEA", "SENCHA", "COFFEE"}, {"TEA", "SENCHA"}, {"SENCHA"}, {"COFFEE"}, set(),
    ]  # fmt: skip
    assert after == [{"TEA"}, {"COFFEE", "SENCHA"}]


async def test_a_page_forgets_the_tree_that_was(house: House) -> None:
    tree = await drinks(house)
    await house.product("S", category="sencha")
    query = ProductQuery(category="coffee")
    before = await house.catalogue.page_body(ANYONE, query)

    await change(house, tree["green"], parent="coffee")
    after = await house.catalogue.page_body(ANYONE, query)

    assert (b'"S"' in before.body, b'"S"' in after.body) == (False, True)


async def test_a_list_of_categories_forgets_the_tree_that_was(house: House) -> None:
    tree = await drinks(house)
    query = CategoryQuery(parent="")
    first = await house.categories.categories_body(ANYONE, query)

    await change(house, tree["coffee"], parent=None)
    second = await house.categories.categories_body(ANYONE, query)
    await house.categories.remove(STAFF, tree["coffee"].category_id, {2})
    third = await house.categories.categories_body(ANYONE, query)

    assert [b'"coffee"' in page.body for page in (first, second, third)] == [False, True, False]
    assert first.etag == third.etag != second.etag


# The list


async def test_categories_are_listed_by_position_then_key_page_by_page(house: House) -> None:
    for key, position in (("b", 1), ("a", 2), ("Z", 1), ("ä", 1), ("c", 0)):
        await add(house, key, position=position)

    pages: list[list[str]] = []
    cursor = None
    while cursor or not pages:
        page = await house.categories.categories(ANYONE, CategoryQuery(limit=2, cursor=cursor))
        pages.append([one.category for one in page.items])
        cursor = page.next_cursor

    assert pages == [["c", "Z"], ["b", "ä"], ["a"]]


async def test_the_children_of_one_parent_are_listed(house: House) -> None:
    await drinks(house)

    assert await keys(house, parent="drinks") == ["coffee", "tea"]
    assert await keys(house, parent="") == ["drinks"]
    assert await keys(house, parent="nowhere") == []


async def test_pages_below_a_parent_go_on(house: House) -> None:
    await drinks(house)
    first = await house.categories.categories(ANYONE, CategoryQuery(limit=1, parent="drinks"))
    query = CategoryQuery(limit=1, parent="drinks", cursor=first.next_cursor)

    second = await house.categories.categories(ANYONE, query)

    assert ([one.category for one in second.items], second.next_cursor) == (["tea"], None)


# Changing


async def test_what_is_absent_stays_and_languages_are_merged(house: House) -> None:
    made = await add(
        house, "tea", position=2, translations={"de": {"name": "Tee"}, "fr": {"name": "The"}}
    )

    changed = await change(
        house, made, name="Teas", translations={"fr": None, "it": {"name": "Tè"}}
    )
    bare = await change(house, changed, translations=None)

    assert (changed.name, changed.position, changed.version) == ("Teas", 2, 2)
    assert {key: names.name for key, names in changed.translations.items()} == {
        "de": "Tee",
        "it": "Tè",
    }
    assert (dict(bare.translations), bare.version) == ({}, 3)


async def test_too_many_languages_are_refused(house: House) -> None:
    made = await add(
        house, "tea", translations={f"a{chr(97 + n % 26)}{chr(97 + n // 26)}": {"name": "x"}
                                    for n in range(50)},
    )  # fmt: skip

    with pytest.raises(Invalid):
        await change(house, made, translations={"de": {"name": "Tee"}})


async def test_what_is_so_already_is_no_new_version(house: House) -> None:
    made = await add(house, "tea", translations={"de": {"name": "Tee"}})

    same = await change(house, made, name="tea", translations={"de": {"name": "Tee"}})

    assert same == made


async def test_a_category_moves_with_all_below_it(house: House) -> None:
    tree = await drinks(house)

    moved = await change(house, tree["tea"], parent=None)

    assert (moved.parent, moved.version) == (None, 2)
    assert await keys(house, parent="") == ["drinks", "tea"]
    assert await keys(house, parent="tea") == ["green"]


@pytest.mark.parametrize("parent", ["tea", "green", "sencha"])
async def test_a_category_cannot_be_below_itself(house: House, parent: str) -> None:
    tree = await drinks(house)

    with pytest.raises(CategoryCycle) as refused:
        await change(house, tree["tea"], parent=parent)

    assert refused.value.details == {"category": "tea", "parent": parent}
    assert (await house.categories.category(ANYONE, tree["tea"].category_id)) == tree["tea"]


async def test_a_category_does_not_move_below_what_is_not_there(house: House) -> None:
    tea = await add(house, "tea")

    with pytest.raises(CategoryNotFound):
        await change(house, tea, parent="drinks")


async def test_a_stale_change_is_refused(house: House) -> None:
    tea = await add(house, "tea")
    await change(house, tea, name="Teas")

    with pytest.raises(PreconditionFailed) as refused:
        await change(house, tea, name="Leaves")
    with pytest.raises(PreconditionFailed):
        await house.categories.remove(STAFF, tea.category_id, {1})

    assert refused.value.details == {"etag": '"v2"'}


async def test_what_is_not_there_is_not_found(house: House) -> None:
    nobody = new_id()

    with pytest.raises(CategoryNotFound) as refused:
        await house.categories.category(ANYONE, nobody)
    with pytest.raises(CategoryNotFound):
        await house.categories.change(STAFF, nobody, CategoryChange(name="x"), {1})
    with pytest.raises(CategoryNotFound):
        await house.categories.remove(STAFF, nobody, {1})

    assert refused.value.details == {"category_id": str(nobody)}


# Removing


async def test_an_empty_category_is_removed_and_may_come_again(house: House) -> None:
    tea = await add(house, "tea")

    await house.categories.remove(STAFF, tea.category_id, {1})
    again = await house.product(category="tea")

    assert again.category == "tea"
    assert await keys(house) == ["tea"]
    with pytest.raises(CategoryNotFound):
        await house.categories.category(ANYONE, tea.category_id)


async def test_what_is_in_use_stays(house: House) -> None:
    tree = await drinks(house)
    old = await house.product(category="sencha")
    await house.catalogue.archive(STAFF, old.product_id, {1})

    for key in ("tea", "sencha"):
        with pytest.raises(CategoryInUse) as refused:
            await house.categories.remove(STAFF, tree[key].category_id, {1})
        assert refused.value.details == {"category": key}

    assert len(await keys(house)) == 5


async def test_a_rendered_category_is_told_apart_by_its_tag(house: House) -> None:
    tea = await add(house, "tea")
    first = await house.categories.category_body(ANYONE, tea.category_id)

    await house.product(category="tea")
    second = await house.categories.category_body(ANYONE, tea.category_id)

    assert Category.model_validate_json(second.body).product_count == 1
    assert first.etag.startswith('"v1-')
    assert second.etag.startswith('"v1-')
    assert first.etag != second.etag


@pytest.mark.parametrize(
    "wrong",
    [
        {"category": ""},
        {"category": "x" * 101},
        {"category": "a\x00"},
        {"category": "a", "position": -1},
        {"category": "a", "position": True},
        {"category": "a", "translations": {"no language": {"name": "x"}}},
        {"category": "a", "translations": {"de": {"name": ""}}},
        {"category": "a", "parent": ""},
        {"category": "a", "colour": "b"},
    ],
)
def test_what_is_no_category_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NewCategory.model_validate(wrong)


# At once, in Postgres


async def outcomes(*attempts: Any) -> list[Any]:
    return [
        type(result) if isinstance(result, Exception) else None
        for result in await asyncio.gather(*attempts, return_exceptions=True)
    ]


async def test_two_moves_at_once_never_close_a_ring(sql_house: House) -> None:
    for number in range(20):
        a, b = [await add(sql_house, f"{key}{number}") for key in "ab"]

        ended = await outcomes(
            change(sql_house, a, parent=b.category), change(sql_house, b, parent=a.category)
        )

        assert sorted(map(str, ended)) == sorted(map(str, [None, CategoryCycle]))


async def test_moves_around_a_ring_of_many_leave_one_out(sql_house: House) -> None:
    ring = [await add(sql_house, f"c{number}") for number in range(8)]

    ended = await outcomes(
        *(
            change(sql_house, one, parent=ring[(number + 1) % 8].category)
            for number, one in enumerate(ring)
        )
    )

    assert ended.count(None) == 7
    assert ended.count(CategoryCycle) == 1


async def test_a_product_and_the_removal_of_its_category_at_once(sql_house: House) -> None:
    for number in range(20):
        key = f"tea{number}"
        tea = await add(sql_house, key)

        ended = await outcomes(
            sql_house.product(key, category=key),
            sql_house.categories.remove(STAFF, tea.category_id, {1}),
        )

        assert ended[0] is None
        assert ended[1] in {None, CategoryInUse}
        assert await found(sql_house, key) == {key}
        assert len([one for one in await keys(sql_house, limit=100) if one == key]) == 1


async def test_many_products_name_a_new_category_at_once(sql_house: House) -> None:
    products = await asyncio.gather(*(sql_house.product(category="tea") for _ in range(20)))

    assert len({product.product_id for product in products}) == 20
    assert [(one.category, one.product_count) for one in await listed(sql_house)] == [("tea", 20)]


async def test_a_child_and_the_removal_of_its_parent_at_once(sql_house: House) -> None:
    for number in range(20):
        tea = await add(sql_house, f"tea{number}")

        ended = await outcomes(
            add(sql_house, f"green{number}", tea.category),
            sql_house.categories.remove(STAFF, tea.category_id, {1}),
        )

        assert ended in ([None, CategoryInUse], [CategoryNotFound, None])
