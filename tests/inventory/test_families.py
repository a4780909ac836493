"""Families, on each storage."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from markethall.inventory.catalogue.contract.categories import CategoryInUse, CategoryQuery
from markethall.inventory.catalogue.contract.families import (
    MAX_FAMILY_PRODUCTS,
    FamilyChange,
    FamilyDetail,
    FamilyMoved,
    FamilyNotFound,
    FamilyStatus,
    FamilyTaken,
    FamilyView,
    NewFamily,
    OptionValuesView,
    SlugTaken,
)
from markethall.inventory.catalogue.contract.products import (
    PriceRange,
    ProductChange,
    RenderedResponse,
)
from markethall.inventory.catalogue.domain.text_keys import product_slug
from markethall.inventory.search.contract import FamilyPage, FamilyQuery, ProductQuery
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.pagination import CursorInvalid
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, no_key
from tests.inventory.import_client import ImportClient

ANY_VERSION: ExpectedVersions = None


async def add_shirt(
    inventory_app: InventoryApp, sku: str, amount: int = 1000, **fields: Any
) -> None:
    price = {"amount": amount, "currency": fields.pop("currency", "EUR")}
    usual: dict[str, Any] = {"family": "shirt", "price": price}
    await inventory_app.product(sku, **(usual | fields))


async def get_family(inventory_app: InventoryApp, slug: str = "shirt") -> FamilyDetail:
    return await inventory_app.families.get_family(ANYONE, slug)


async def create_family(inventory_app: InventoryApp, **fields: Any) -> FamilyDetail:
    command = NewFamily.model_validate({"name": "Shirt"} | fields)
    return await inventory_app.families.create(STAFF, command, no_key())


async def change_family(inventory_app: InventoryApp, text: str, /, **fields: Any) -> FamilyDetail:
    change = FamilyChange.model_validate(fields)
    return await inventory_app.families.change(STAFF, text, change, ANY_VERSION)


async def slug_of(inventory_app: InventoryApp, text: str) -> str:
    """Return the slug of the family with this text, or the slug to which the text redirects."""
    rendered = await inventory_app.families.render_family(ANYONE, text)
    return rendered.slug if isinstance(rendered, FamilyMoved) else text


# Summaries


async def test_family_combines_member_options(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "S-RED", 900, stock=2, options={"size": "S", "colour": "red"})
    await add_shirt(inventory_app, "M-RED", 1000, stock=3, options={"size": "M", "colour": "red"})
    await add_shirt(inventory_app, "L-BLUE", 1100, options={"size": "L", "colour": "blue"})
    await add_shirt(inventory_app, "XL", 99_999, status="draft", options={"size": "XL"})
    await inventory_app.product("CUP", family="cup", options={"size": "S"})

    family = await get_family(inventory_app)

    assert (family.slug, family.label, family.product_count) == ("shirt", "shirt", 3)
    assert family.options == (
        OptionValuesView(name="colour", values=("red", "blue")),
        OptionValuesView(name="size", values=("S", "M", "L")),
    )
    assert family.price_range == PriceRange(currency="EUR", lowest=900, highest=1100)
    assert family.available == 5
    assert [product.sku for product in family.products] == ["S-RED", "M-RED", "L-BLUE"]


async def test_option_values_follow_file_order(inventory_app: InventoryApp) -> None:
    rows = [f'SHIRT-{size},Shirt,10,EUR,shirt,"{{""size"":""{size}""}}"' for size in "SMLS"]
    file = "\n".join(["sku,name,price,currency,family,options", *rows])

    await ImportClient(inventory_app).import_to_end(file)

    assert (await get_family(inventory_app)).options == (
        OptionValuesView(name="size", values=("S", "M", "L")),
    )


async def test_price_range_is_in_the_most_frequent_currency(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A", 5, currency="CHF")
    await add_shirt(inventory_app, "B", 900)
    await add_shirt(inventory_app, "C", 1000)

    family = await get_family(inventory_app)

    assert family.price_range == PriceRange(currency="EUR", lowest=900, highest=1000)


async def test_family_prices_are_current(inventory_app: InventoryApp) -> None:
    starts = (inventory_app.clock.now + timedelta(hours=1)).isoformat()
    sale = {"amount": 100, "currency": "EUR", "valid_from": starts}
    await add_shirt(inventory_app, "A", 900, prices=[sale])
    await add_shirt(inventory_app, "B", 1000)
    before = await get_family(inventory_app)

    inventory_app.clock.advance(hours=1)
    after = await get_family(inventory_app)

    assert [family.price_range for family in (before, after)] == [
        PriceRange(currency="EUR", lowest=900, highest=1000),
        PriceRange(currency="EUR", lowest=100, highest=1000),
    ]


async def test_family_without_options_has_none(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A")

    family = await get_family(inventory_app)

    assert (family.options, family.product_count) == ((), 1)


async def test_option_values_and_products_are_limited(inventory_app: InventoryApp) -> None:
    for number in range(MAX_FAMILY_PRODUCTS + 1):
        await add_shirt(inventory_app, f"A{number}", options={"size": f"{number}"})

    family = await get_family(inventory_app)

    assert family.options[0].values == tuple(str(number) for number in range(100))
    assert (family.product_count, len(family.products)) == (101, MAX_FAMILY_PRODUCTS)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Sencha, 50 g", "Sencha, 100 g"], "Sencha"),
        (["Cup, blue", "Cup, black", "Cup, blue-green"], "Cup"),
        (["Cup", "Cup (large)"], "Cup"),
        (["Cup", "Cupboard"], "Cup"),
        (["Tea", "Coffee"], "Tea"),
        (["Shirt", "Shirt"], "Shirt"),
    ],
)
async def test_family_takes_texts_from_its_products(
    inventory_app: InventoryApp, names: list[str], expected: str
) -> None:
    for number, name in enumerate(names):
        images = [f"https://images.example/{number}.jpg"] if number else []
        await add_shirt(
            inventory_app, f"A{number}", name=name, description=f"D{number}", category="wear",
            images=images,
        )  # fmt: skip

    family = await get_family(inventory_app)

    assert (family.name, family.description, family.category) == (expected, "D0", "wear")
    assert family.images == ("https://images.example/1.jpg",)


async def test_family_without_active_products_is_not_found(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A", status="draft")

    with pytest.raises(FamilyNotFound) as raised:
        await inventory_app.families.get_family(ANYONE, "shirt")
    with pytest.raises(FamilyNotFound):
        await inventory_app.families.render_family(ANYONE, "shirt")

    assert raised.value.details == {"family": "shirt"}
    seen = await inventory_app.families.get_family(STAFF, "shirt")
    assert (seen.name, seen.product_count, seen.price_range) == ("shirt", 0, None)


async def test_rendered_family_equals_family(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A", options={"size": "S"})

    rendered = await inventory_app.families.render_family(ANYONE, "shirt")

    assert isinstance(rendered, RenderedResponse)
    assert FamilyDetail.model_validate_json(rendered.body) == await get_family(inventory_app)


# Families of one product


async def test_product_without_family_is_a_family(inventory_app: InventoryApp) -> None:
    product = await inventory_app.product(
        "Über Cup/1", stock=3, name="Cup", description="Blue.", options={"size": "S"}
    )
    slug = product_slug(product.sku, product.product_id)

    family = await get_family(inventory_app, slug)

    assert slug.startswith("uber-cup-1-")
    assert (family.family_id, family.slug, family.label) == (product.product_id, slug, None)
    assert (family.name, family.description, family.available) == ("Cup", "Blue.", 3)
    assert (family.options[0].values, family.product_count) == (("S",), 1)
    assert [item.product_id for item in family.products] == [product.product_id]


async def test_slug_of_product_survives_a_new_sku_and_a_family(inventory_app: InventoryApp) -> None:
    product = await inventory_app.product("CUP")
    old = product_slug(product.sku, product.product_id)

    await inventory_app.catalogue.change(
        STAFF, product.product_id, ProductChange(sku="BOWL"), ANY_VERSION
    )
    renamed = await slug_of(inventory_app, old)
    await inventory_app.catalogue.change(
        STAFF, product.product_id, ProductChange(family="bowls"), ANY_VERSION
    )

    assert renamed == product_slug("BOWL", product.product_id)
    assert [await slug_of(inventory_app, text) for text in (old, renamed)] == ["bowls", "bowls"]


async def test_draft_without_family_is_not_found(inventory_app: InventoryApp) -> None:
    product = await inventory_app.product("CUP", status="draft")

    for text in (str(product.product_id), product_slug("CUP", product.product_id)):
        with pytest.raises(FamilyNotFound):
            await get_family(inventory_app, text)


# Names of families


async def test_unknown_label_creates_family(inventory_app: InventoryApp) -> None:
    first = await inventory_app.product(family="Shirts/Men")
    others = [
        await inventory_app.product(family=text)
        for text in ("shirts/men", " Shirts/Men ", "shirts-men", "SHIRTS/MEN")
    ]

    family = await get_family(inventory_app, "shirts-men")

    assert {product.family for product in (first, *others)} == {"Shirts/Men"}
    assert (family.label, family.product_count) == ("Shirts/Men", 5)
    assert await slug_of(inventory_app, "Shirts/Men") == "shirts-men"
    assert await slug_of(inventory_app, str(family.family_id)) == "shirts-men"


async def test_look_alike_slugs_get_a_suffix(inventory_app: InventoryApp) -> None:
    for label in ("a b", "a-b", "a/b", "抹茶", "煎茶"):
        await inventory_app.product(family=label)

    slugs = [await slug_of(inventory_app, label) for label in ("a b", "a-b", "a/b", "抹茶", "煎茶")]

    # the label "a-b" is the slug of the family "a b", so the product belongs to this family
    assert slugs[:2] == ["a-b", "a-b"]
    assert slugs[3] == "family"
    assert len(set(slugs)) == 4


async def test_changed_product_joins_and_leaves_family(inventory_app: InventoryApp) -> None:
    product = await inventory_app.product("A")
    change = inventory_app.catalogue.change

    joined = await change(STAFF, product.product_id, ProductChange(family="Tea"), ANY_VERSION)
    same = await change(STAFF, product.product_id, ProductChange(family="TEA"), ANY_VERSION)
    left = await change(STAFF, product.product_id, ProductChange(family=None), ANY_VERSION)

    assert (joined.family, same.family, same.version) == ("Tea", "Tea", joined.version)
    assert left.family is None


async def test_product_list_filters_by_label_and_slug(inventory_app: InventoryApp) -> None:
    product = await inventory_app.product(family="Shirts/Men")
    await change_family(inventory_app, "shirts-men", slug="men")

    for text in ("Shirts/Men", "shirts/MEN", "men", "shirts-men"):
        page = await inventory_app.product_search.list_products(ANYONE, ProductQuery(family=text))
        assert [item.product_id for item in page.items] == [product.product_id], text
    page = await inventory_app.product_search.list_products(ANYONE, ProductQuery(family="none"))
    assert page.items == ()


async def test_import_folds_look_alike_families(inventory_app: InventoryApp) -> None:
    await create_family(inventory_app, name="Tea", slug="green")
    families = ["tea", "TEA ", "green", "Cups", "cups"]
    rows = [f"A{number},A,1,EUR,{family}" for number, family in enumerate(families)]

    await ImportClient(inventory_app).import_to_end(
        "\n".join(["sku,name,price,currency,family", *rows])
    )

    tea, cups = [await get_family(inventory_app, slug) for slug in ("green", "cups")]
    assert (tea.label, tea.product_count, cups.label, cups.product_count) == ("Tea", 3, "Cups", 2)
    assert {product.family for product in tea.products} == {"Tea"}


async def test_dry_run_creates_no_family(inventory_app: InventoryApp) -> None:
    await ImportClient(inventory_app).import_to_end(
        "sku,name,price,currency,family\nA,A,1,EUR,tea", dry_run=True
    )

    with pytest.raises(FamilyNotFound):
        await inventory_app.families.get_family(STAFF, "tea")


async def test_failed_rows_create_no_family(inventory_app: InventoryApp) -> None:
    await ImportClient(inventory_app).import_to_end(
        "sku,name,price,currency,family\nA,,1,EUR,tea\nB,B,1,EUR,cups"
    )

    with pytest.raises(FamilyNotFound):
        await inventory_app.families.get_family(STAFF, "tea")
    assert (await get_family(inventory_app, "cups")).product_count == 1


async def test_concurrent_products_share_a_new_family(inventory_app: InventoryApp) -> None:
    spellings = ["Shirts", "shirts", "SHIRTS", " shirts"]

    products = await asyncio.gather(
        *(inventory_app.product(family=spellings[number % 4]) for number in range(50))
    )

    family = await get_family(inventory_app, "shirts")
    assert {product.family for product in products} == {family.label}
    assert family.product_count == 50


async def test_concurrent_families_get_different_slugs(inventory_app: InventoryApp) -> None:
    labels = [f"a{separator}b" for separator in " /.,;:!?+*"]

    created = await asyncio.gather(
        *(create_family(inventory_app, name="X", label=label) for label in labels),
        *(inventory_app.product(family=label) for label in labels),
        return_exceptions=True,
    )

    taken = [item for item in created if isinstance(item, BaseException)]
    assert all(isinstance(item, FamilyTaken) for item in taken), taken
    slugs = [(await inventory_app.families.get_family(STAFF, label)).slug for label in labels]
    assert len(set(slugs)) == len(labels)


# The list


async def listed(inventory_app: InventoryApp, **query: Any) -> list[str | None]:
    """Return the labels on the first page; None for a product without a family."""
    page = await inventory_app.family_search.list_families(
        ANYONE, FamilyQuery.model_validate(query)
    )
    return [family.label for family in page.items]


async def test_list_has_each_family_once(inventory_app: InventoryApp) -> None:
    for number, label in enumerate(["tea", "cups", "tea", None, "cups"]):
        await inventory_app.product(f"A{number}", family=label)

    page = await inventory_app.family_search.list_families(ANYONE, FamilyQuery())

    assert [family.label for family in page.items] == ["cups", None, "tea"]
    assert [family.product_count for family in page.items] == [2, 1, 2]
    for family in page.items:
        detail = await get_family(inventory_app, family.slug)
        assert FamilyView.model_validate(detail.model_dump()) == family


async def test_family_is_listed_at_its_first_matching_product(inventory_app: InventoryApp) -> None:
    for label, size, amount in (
        ("tea", "S", 100), ("tea", "L", 900), ("cups", "S", 200), ("cups", "L", 300),
    ):  # fmt: skip
        await add_shirt(
            inventory_app, f"{label}-{size}", amount, family=label, options={"size": size}
        )

    assert await listed(inventory_app, sort="price") == ["tea", "cups"]
    assert await listed(inventory_app, sort="-price") == ["tea", "cups"]
    assert await listed(inventory_app, sort="price", option={"size": ["L"]}) == ["cups", "tea"]
    assert await listed(inventory_app, max_price=250, min_price=150) == ["cups"]
    assert await listed(inventory_app, option={"size": ["XL"]}) == []


async def test_list_summarizes_all_products_of_a_matching_family(
    inventory_app: InventoryApp,
) -> None:
    await add_shirt(inventory_app, "A", 100, stock=2, options={"size": "S"})
    await add_shirt(inventory_app, "B", 900, stock=1, options={"size": "L"})

    page = await inventory_app.family_search.list_families(ANYONE, FamilyQuery(min_price=500))

    [family] = page.items
    assert family.price_range == PriceRange(currency="EUR", lowest=100, highest=900)
    assert (family.available, family.options[0].values) == (3, ("S", "L"))


async def test_archived_families_are_not_listed(inventory_app: InventoryApp) -> None:
    await create_family(inventory_app, name="Shirt")
    await inventory_app.families.archive(STAFF, "shirt", ANY_VERSION)
    await add_shirt(inventory_app, "A", tags=("x",))
    await inventory_app.product("B", family="cups", tags=("x",), status="draft")

    for query in ({}, {"tag": ("x",)}, {"sort": "name"}):
        assert await listed(inventory_app, **query) == []


async def test_rendered_list_equals_list(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A", options={"size": "S"})

    rendered = await inventory_app.family_search.render_family_page(ANYONE, FamilyQuery())

    page = await inventory_app.family_search.list_families(ANYONE, FamilyQuery())
    assert FamilyPage.model_validate_json(rendered.body) == page


async def test_cursor_is_bound_to_its_list(inventory_app: InventoryApp) -> None:
    for sku in ("A", "B"):
        await inventory_app.product(sku)
    products = await inventory_app.product_search.list_products(ANYONE, ProductQuery(limit=1))

    with pytest.raises(CursorInvalid):
        await inventory_app.family_search.list_families(
            ANYONE, FamilyQuery(cursor=products.next_cursor)
        )


# Create, change, archive


async def test_created_family_has_its_own_texts(inventory_app: InventoryApp) -> None:
    created = await create_family(
        inventory_app, label="Shirts", slug="tops", name="Our shirts", description="Soft.",
        category="wear", images=["https://images.example/a.jpg"], metadata={"season": "spring"},
        seo={"title": "Shirts", "description": "Soft shirts"},
        translations={"de": {"name": "Hemden"}},
    )  # fmt: skip
    await add_shirt(inventory_app, "A", family="Shirts", description="Other", category="tea")

    family = await get_family(inventory_app, "tops")

    assert (created.version, created.status, created.products) == (1, FamilyStatus.ACTIVE, ())
    assert (family.name, family.description, family.category) == ("Our shirts", "Soft.", "wear")
    assert family.images == ("https://images.example/a.jpg",)
    assert (family.seo.title, dict(family.metadata)) == ("Shirts", {"season": "spring"})
    assert family.translations["de"].name == "Hemden"
    assert family.label == "Shirts"


async def test_retried_command_creates_one_family(inventory_app: InventoryApp) -> None:
    command, attempt = NewFamily(name="Shirt"), no_key()

    first = await inventory_app.families.create(STAFF, command, attempt)
    again = await inventory_app.families.create(STAFF, command, attempt)

    assert (again.family_id, again.slug) == (first.family_id, "shirt") == (attempt.id, first.slug)


async def test_taken_names_are_refused(inventory_app: InventoryApp) -> None:
    await create_family(inventory_app, name="Shirt")
    await create_family(inventory_app, name="Cup", slug="mug")
    await change_family(inventory_app, "mug", slug="cup")
    reserved = product_slug("A", no_key().id)

    with pytest.raises(FamilyTaken):
        await create_family(inventory_app, name="SHIRT ")
    for slug in ("shirt", "cup", "mug", reserved):
        with pytest.raises(SlugTaken):
            await create_family(inventory_app, name="Other", slug=slug)
    for slug in ("cup", "mug", reserved):
        with pytest.raises(SlugTaken):
            await change_family(inventory_app, "shirt", slug=slug)


async def test_former_slugs_lead_to_the_family(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A")
    await change_family(inventory_app, "shirt", slug="top")
    await change_family(inventory_app, "shirt", slug="tops")
    moved = [await slug_of(inventory_app, text) for text in ("shirt", "top", "tops", "TOPS")]

    await change_family(inventory_app, "top", slug="shirt")

    assert moved == ["tops"] * 4
    assert [await slug_of(inventory_app, text) for text in ("top", "tops")] == ["shirt"] * 2
    assert (await get_family(inventory_app)).slug == "shirt"


async def test_merge_patch_clears_and_merges(inventory_app: InventoryApp) -> None:
    await create_family(
        inventory_app, name="Shirt", description="Soft.", metadata={"a": "1", "b": "2"},
        seo={"title": "T", "description": "D"}, translations={"de": {"name": "Hemd"}},
    )  # fmt: skip

    first = await change_family(
        inventory_app, "shirt", name=None, description=None, metadata={"a": None, "c": "3"},
        seo={"title": None}, translations={"de": {"description": "Weich"}},
    )  # fmt: skip
    same = await change_family(inventory_app, "shirt", metadata={"c": "3"}, seo={})
    last = await change_family(inventory_app, "shirt", metadata=None, seo=None, translations=None)

    assert (first.name, first.description, dict(first.metadata)) == (
        "Shirt", "", {"b": "2", "c": "3"},
    )  # fmt: skip
    assert (first.seo.title, first.seo.description) == (None, "D")
    assert (first.translations["de"].name, first.translations["de"].description) == (
        "Hemd", "Weich",
    )  # fmt: skip
    assert (first.version, same.version, last.version) == (2, 2, 3)
    assert (dict(last.metadata), last.seo.description, dict(last.translations)) == ({}, None, {})


async def test_metadata_is_limited_after_the_change(inventory_app: InventoryApp) -> None:
    await create_family(inventory_app, metadata={f"a{n}": "x" for n in range(50)})

    with pytest.raises(ValidationFailed):
        await change_family(inventory_app, "shirt", metadata={"b": "x"})


async def test_archived_family_and_its_products_disappear(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A")
    await add_shirt(inventory_app, "B", status="draft")
    family = await get_family(inventory_app)

    await inventory_app.families.archive(STAFF, "shirt", frozenset({family.version}))

    with pytest.raises(FamilyNotFound):
        await get_family(inventory_app)
    page = await inventory_app.product_search.list_products(ANYONE, ProductQuery())
    assert page.items == ()
    seen = await inventory_app.families.get_family(STAFF, "shirt")
    assert (seen.status, seen.product_count) == (FamilyStatus.ARCHIVED, 0)
    product = await inventory_app.catalogue.get_product_by_sku(STAFF, "A")
    assert (product.status, product.version) == ("archived", 2)


async def test_archived_family_hides_active_products_until_it_is_active(
    inventory_app: InventoryApp,
) -> None:
    await create_family(inventory_app, name="Shirt")
    await inventory_app.families.archive(STAFF, "shirt", ANY_VERSION)
    await add_shirt(inventory_app, "A")

    with pytest.raises(FamilyNotFound):
        await get_family(inventory_app)
    await change_family(inventory_app, "shirt", status="active")

    assert (await get_family(inventory_app)).product_count == 1


async def test_category_of_a_family_cannot_be_removed(inventory_app: InventoryApp) -> None:
    await create_family(inventory_app, category="wear")
    [category] = (await inventory_app.categories.list_categories(ANYONE, CategoryQuery())).items

    with pytest.raises(CategoryInUse):
        await inventory_app.categories.remove(STAFF, category.category_id, ANY_VERSION)
