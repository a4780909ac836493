"""Test that look-alike spellings of a tag, option or attribute name are equal, on each storage."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markethall.inventory.catalogue.contract.products import ProductChange, ProductView
from markethall.inventory.catalogue.domain.text_keys import label_key
from markethall.inventory.search.contract import Facets, ProductQuery
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp
from tests.inventory.import_client import ImportClient, counts

# the same words with different letter case, additional spaces and a decomposed accent, a no-break
# space, or a full-width letter
SPELLINGS = [
    "Caf\u00e9 Noir",
    "caf\u00e9 noir",
    " CAFE\u0301  NOIR ",
    "Caf\u00e9\u00a0Noir",
    "\uff23af\u00e9 Noir",
]


async def facets(inventory_app: InventoryApp, **query: Any) -> Facets:
    page = await inventory_app.product_search.list_products(
        ANYONE, ProductQuery.model_validate({"facets": "options,tag", **query})
    )
    assert page.facets is not None
    return page.facets


async def changed(inventory_app: InventoryApp, product: ProductView, **fields: Any) -> ProductView:
    command = ProductChange.model_validate(fields)
    return await inventory_app.catalogue.change(
        STAFF, product.product_id, command, {product.version}
    )


async def skus(inventory_app: InventoryApp, **query: Any) -> set[str]:
    page = await inventory_app.product_search.list_products(
        ANYONE, ProductQuery.model_validate({"limit": 100, **query})
    )
    return {product.sku for product in page.items}


def test_spellings_have_one_key() -> None:
    assert {label_key(spelling) for spelling in SPELLINGS} == {"caf\u00e9 noir"}


@given(st.text())
def test_key_of_key_is_itself(text: str) -> None:
    assert label_key(label_key(text)) == label_key(text)


@given(st.text())
def test_key_fits_into_index(text: str) -> None:
    assert len(label_key(text * 100).encode()) <= 600


async def test_look_alikes_inside_product_are_folded(inventory_app: InventoryApp) -> None:
    product = await inventory_app.product(
        tags=("Wool", "wool", "Winter", "WOOL "),
        options={"Size": "M", "size\u00a0": "L"},
        attributes={"Origin": "Uji", "ORIGIN": "Kyoto", "organic": True},
    )

    assert product.tags == ("Wool", "Winter")
    assert product.options == {"Size": "M"}
    assert product.attributes == {"Origin": "Uji", "organic": True}


async def test_patch_merges_names_by_key(inventory_app: InventoryApp) -> None:
    product = await inventory_app.product(
        options={"Size": "M", "Colour": "red"}, attributes={"Origin": "Uji"}
    )

    changed_once = await changed(
        inventory_app, product,
        options={"SIZE": "L", "colour": None}, attributes={"origin ": "Kyoto"}, tags=["a", "A"],
    )  # fmt: skip

    assert changed_once.options == {"Size": "L"}
    assert changed_once.attributes == {"Origin": "Kyoto"}
    assert changed_once.tags == ("a",)


async def test_tag_filter_and_facet_have_one_key(inventory_app: InventoryApp) -> None:
    for number, spelling in enumerate(SPELLINGS):
        await inventory_app.product(f"P-{number}", tags=(spelling, "other"))
    all_skus = {f"P-{number}" for number in range(len(SPELLINGS))}

    counted = (await facets(inventory_app)).tag

    assert counted is not None
    assert [(facet.value, facet.count) for facet in counted] == [(SPELLINGS[0], 5), ("other", 5)]
    for spelling in SPELLINGS:
        assert await skus(inventory_app, tag=spelling) == all_skus


async def test_option_facet_has_one_key(inventory_app: InventoryApp) -> None:
    for number, (name, value) in enumerate(
        [("Size", "M"), ("size", "m"), ("SIZE ", " M"), ("size", "L"), ("\uff33ize", "l")]
    ):
        await inventory_app.product(f"P-{number}", options={name: value})

    counted = (await facets(inventory_app)).options

    assert counted is not None
    assert {
        name: [(facet.value, facet.count) for facet in values] for name, values in counted.items()
    } == {"Size": [("M", 3), ("L", 2)]}


async def test_option_names_of_family_agree(inventory_app: InventoryApp) -> None:
    for name, value in [("Size", "S"), ("size", "M"), ("SIZE", "s"), ("colour", "red")]:
        await inventory_app.product(family="shirt", options={name: value})

    family = await inventory_app.families.get_family(ANYONE, "shirt")

    assert {option.name: option.values for option in family.options} == {
        "colour": ("red",), "Size": ("S", "M"),
    }  # fmt: skip


@pytest.mark.parametrize("spelling", ["wool", " WOOL", "Wool\u00a0"])
async def test_import_keeps_first_spelling(inventory_app: InventoryApp, spelling: str) -> None:
    import_client = ImportClient(inventory_app)
    await inventory_app.product(
        "A", tags=("Wool",), options={"Wool": "1"}, attributes={"Wool": "x"}, name="A"
    )
    option = f'"{{""{spelling}"":""1""}}"'
    attribute = f'"{{""{spelling}"":""x""}}"'

    done = await import_client.import_to_end(
        f"sku,tags,options,attributes\nA,{spelling},{option},{attribute}\n"
    )

    assert counts(done) == (1, 0, 0, 1, 0)


async def test_shopify_import_matches_look_alike_options(inventory_app: InventoryApp) -> None:
    import_client = ImportClient(inventory_app)
    header = "Handle,Title,Tags,Option1 Name,Option1 Value,Price"
    await import_client.import_to_end(f'{header}\ncap,Cap,"Wool, wool ",Size,Caf\u00e9 S,1\n')

    done = await import_client.import_to_end(
        f"{header}\ncap,Cap,WOOL,\u00a0SIZE,Cafe\u0301\u00a0S,1\n"
    )

    assert counts(done) == (1, 0, 0, 1, 0)


async def test_longest_tags_and_options_can_be_stored(inventory_app: InventoryApp) -> None:
    """The character becomes eighteen characters in NFKC, the form of the stored keys."""
    text = "\ufdfa" * 255

    product = await inventory_app.product("A", tags=(text,), options={text: text}, family="f")

    assert (product.tags, product.options) == ((text,), {text: text})
    assert await skus(inventory_app, tag=text) == {"A"}
