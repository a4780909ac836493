"""Families, in memory and in SQL alike."""

from datetime import timedelta
from typing import Any

import pytest

from markethall.inventory.contract import Family, FamilyNotFound, PriceRange, ProductQuery
from markethall.shared.pages import CursorInvalid, PageQuery
from tests.inventory.carrier import Carrier
from tests.inventory.conftest import ANYONE, STAFF, House


async def shirt(house: House, sku: str, amount: int = 1000, **fields: Any) -> None:
    price = {"amount": amount, "currency": fields.pop("currency", "EUR")}
    usual: dict[str, Any] = {"family": "shirt", "price": price}
    await house.product(sku, **(usual | fields))


async def seen(house: House, **query: Any) -> Family:
    return await house.catalogue.family(ANYONE, "shirt", PageQuery.model_validate(query))


async def test_a_family_shows_what_its_members_have_between_them(house: House) -> None:
    await shirt(house, "S-RED", 900, options={"size": "S", "colour": "red"})
    await shirt(house, "M-RED", 1000, options={"size": "M", "colour": "red"})
    await shirt(house, "L-BLUE", 1100, options={"size": "L", "colour": "blue"})
    await shirt(house, "XL", 99_999, status="draft", options={"size": "XL"})
    await house.product("CUP", family="cup", options={"size": "S"})

    family = await seen(house)

    assert (family.family, family.product_count) == ("shirt", 3)
    assert list(family.options.items()) == [
        ("colour", ("red", "blue")), ("size", ("S", "M", "L")),
    ]  # fmt: skip
    assert family.prices == (PriceRange(currency="EUR", lowest=900, highest=1100),)
    assert {product.sku for product in family.items} == {"S-RED", "M-RED", "L-BLUE"}


async def test_values_of_products_that_came_at_once_are_in_the_order_of_the_file(
    house: House,
) -> None:
    rows = [f'SHIRT-{size},Shirt,10,EUR,shirt,"{{""size"":""{size}""}}"' for size in "SMLS"]
    file = "\n".join(["sku,name,price,currency,family,options", *rows])

    await Carrier(house).bring(file)

    assert (await seen(house)).options == {"size": ("S", "M", "L")}


async def test_prices_range_per_currency(house: House) -> None:
    await shirt(house, "A", 5, currency="JPY")
    await shirt(house, "B", 900)
    await shirt(house, "C", 1000)

    assert (await seen(house)).prices == (
        PriceRange(currency="EUR", lowest=900, highest=1000),
        PriceRange(currency="JPY", lowest=5, highest=5),
    )


async def test_prices_are_those_of_this_moment(house: House) -> None:
    begins = (house.watch.now + timedelta(hours=1)).isoformat()
    sale = {"amount": 100, "currency": "EUR", "valid_from": begins}
    await shirt(house, "A", 900, prices=[sale])
    await shirt(house, "B", 1000)
    before = await seen(house)

    house.watch.forward(hours=1)
    after = await seen(house)

    assert [(one.prices[0].lowest, one.prices[0].highest) for one in (before, after)] == [
        (900, 1000),
        (100, 1000),
    ]


async def test_options_without_members_that_have_any(house: House) -> None:
    await shirt(house, "A")

    family = await seen(house)

    assert (dict(family.options), family.product_count) == ({}, 1)


async def test_options_have_a_hundred_values_at_most(house: House) -> None:
    for number in range(101):
        await shirt(house, f"A{number}", options={"size": f"{number}"})

    family = await seen(house)

    assert family.options["size"] == tuple(str(number) for number in range(100))
    assert family.product_count == 101


async def test_members_are_listed_page_by_page_by_name(house: House) -> None:
    for name in "bca":
        await shirt(house, name, name=name)
    first = await seen(house, limit=2)

    second = await seen(house, limit=2, cursor=first.next_cursor)

    assert [product.sku for page in (first, second) for product in page.items] == ["a", "b", "c"]
    assert (second.next_cursor, second.product_count) == (None, 3)


async def test_a_family_without_active_products_is_not_found(house: House) -> None:
    await shirt(house, "A", status="draft")

    with pytest.raises(FamilyNotFound) as refused:
        await house.catalogue.family(STAFF, "shirt", PageQuery())
    with pytest.raises(FamilyNotFound):
        await house.catalogue.family_body(ANYONE, "shirt", PageQuery())

    assert refused.value.details == {"family": "shirt"}


async def test_a_cursor_of_another_list_is_refused(house: House) -> None:
    for sku in ("A", "B"):
        await shirt(house, sku)
    page = await house.catalogue.products(ANYONE, ProductQuery(limit=1))

    with pytest.raises(CursorInvalid):
        await seen(house, cursor=page.next_cursor)


async def test_a_rendered_family_is_the_family(house: House) -> None:
    await shirt(house, "A", options={"size": "S"})

    rendered = await house.catalogue.family_body(ANYONE, "shirt", PageQuery())

    assert Family.model_validate_json(rendered.body) == await seen(house)
