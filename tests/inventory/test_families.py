"""Families of products, on each storage."""

from datetime import timedelta
from typing import Any

import pytest

from markethall.inventory.catalogue.contract.products import FamilyNotFound, FamilyView, PriceRange
from markethall.inventory.search.contract import ProductQuery
from markethall.shared.kernel.pagination import CursorInvalid, PageQuery
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp
from tests.inventory.import_client import ImportClient


async def add_shirt(
    inventory_app: InventoryApp, sku: str, amount: int = 1000, **fields: Any
) -> None:
    price = {"amount": amount, "currency": fields.pop("currency", "EUR")}
    usual: dict[str, Any] = {"family": "shirt", "price": price}
    await inventory_app.product(sku, **(usual | fields))


async def get_family(inventory_app: InventoryApp, **query: Any) -> FamilyView:
    return await inventory_app.catalogue.get_family(
        ANYONE, "shirt", PageQuery.model_validate(query)
    )


async def test_family_combines_member_options(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "S-RED", 900, options={"size": "S", "colour": "red"})
    await add_shirt(inventory_app, "M-RED", 1000, options={"size": "M", "colour": "red"})
    await add_shirt(inventory_app, "L-BLUE", 1100, options={"size": "L", "colour": "blue"})
    await add_shirt(inventory_app, "XL", 99_999, status="draft", options={"size": "XL"})
    await inventory_app.product("CUP", family="cup", options={"size": "S"})

    family = await get_family(inventory_app)

    assert (family.family, family.product_count) == ("shirt", 3)
    assert list(family.options.items()) == [
        ("colour", ("red", "blue")), ("size", ("S", "M", "L")),
    ]  # fmt: skip
    assert family.prices == (PriceRange(currency="EUR", lowest=900, highest=1100),)
    assert {product.sku for product in family.items} == {"S-RED", "M-RED", "L-BLUE"}


async def test_option_values_follow_file_order(
    inventory_app: InventoryApp,
) -> None:
    rows = [f'SHIRT-{size},Shirt,10,EUR,shirt,"{{""size"":""{size}""}}"' for size in "SMLS"]
    file = "\n".join(["sku,name,price,currency,family,options", *rows])

    await ImportClient(inventory_app).import_to_end(file)

    assert (await get_family(inventory_app)).options == {"size": ("S", "M", "L")}


async def test_prices_range_per_currency(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A", 5, currency="JPY")
    await add_shirt(inventory_app, "B", 900)
    await add_shirt(inventory_app, "C", 1000)

    assert (await get_family(inventory_app)).prices == (
        PriceRange(currency="EUR", lowest=900, highest=1000),
        PriceRange(currency="JPY", lowest=5, highest=5),
    )


async def test_family_prices_are_current(inventory_app: InventoryApp) -> None:
    starts = (inventory_app.clock.now + timedelta(hours=1)).isoformat()
    sale = {"amount": 100, "currency": "EUR", "valid_from": starts}
    await add_shirt(inventory_app, "A", 900, prices=[sale])
    await add_shirt(inventory_app, "B", 1000)
    before = await get_family(inventory_app)

    inventory_app.clock.advance(hours=1)
    after = await get_family(inventory_app)

    assert [(family.prices[0].lowest, family.prices[0].highest) for family in (before, after)] == [
        (900, 1000),
        (100, 1000),
    ]


async def test_family_without_options_has_none(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A")

    family = await get_family(inventory_app)

    assert (dict(family.options), family.product_count) == ({}, 1)


async def test_option_values_are_limited_to_a_hundred(inventory_app: InventoryApp) -> None:
    for number in range(101):
        await add_shirt(inventory_app, f"A{number}", options={"size": f"{number}"})

    family = await get_family(inventory_app)

    assert family.options["size"] == tuple(str(number) for number in range(100))
    assert family.product_count == 101


async def test_members_are_listed_page_by_page_by_name(inventory_app: InventoryApp) -> None:
    for name in "bca":
        await add_shirt(inventory_app, name, name=name)
    first = await get_family(inventory_app, limit=2)

    second = await get_family(inventory_app, limit=2, cursor=first.next_cursor)

    assert [product.sku for page in (first, second) for product in page.items] == ["a", "b", "c"]
    assert (second.next_cursor, second.product_count) == (None, 3)


async def test_family_without_active_products_is_not_found(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A", status="draft")

    with pytest.raises(FamilyNotFound) as raised:
        await inventory_app.catalogue.get_family(STAFF, "shirt", PageQuery())
    with pytest.raises(FamilyNotFound):
        await inventory_app.catalogue.render_family(ANYONE, "shirt", PageQuery())

    assert raised.value.details == {"family": "shirt"}


async def test_cursor_is_bound_to_its_list(inventory_app: InventoryApp) -> None:
    for sku in ("A", "B"):
        await add_shirt(inventory_app, sku)
    page = await inventory_app.product_search.list_products(ANYONE, ProductQuery(limit=1))

    with pytest.raises(CursorInvalid):
        await get_family(inventory_app, cursor=page.next_cursor)


async def test_rendered_family_equals_family(inventory_app: InventoryApp) -> None:
    await add_shirt(inventory_app, "A", options={"size": "S"})

    rendered = await inventory_app.catalogue.render_family(ANYONE, "shirt", PageQuery())

    assert FamilyView.model_validate_json(rendered.body) == await get_family(inventory_app)
