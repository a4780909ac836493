"""Further prices, and what else a product has, in memory and in SQL alike."""

import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from markethall.inventory.contract import NewProduct, Product, ProductChange
from markethall.shared.model import Moment
from tests.inventory.conftest import ANYONE, STAFF, House

EUR = {"currency": "EUR"}


def timed(house: House, amount: int, begins: int | None, ends: int | None, **more: Any) -> Any:
    """A price from so many hours from now, until before so many."""
    now = house.watch()
    window = {"valid_from": begins, "valid_until": ends}
    times = {
        name: (now + timedelta(hours=hours)).isoformat()
        for name, hours in window.items()
        if hours is not None
    }
    return {"amount": amount, **EUR, **times, **more}


async def product_with(house: House, *prices: Any, **fields: Any) -> Product:
    made = await house.product(stock=9, price={"amount": 1000, **EUR})
    change = ProductChange.model_validate({"prices": list(prices), **fields})
    return await house.catalogue.change(STAFF, made.product_id, change, {1})


async def shown(house: House, product: Product) -> Product:
    return await house.catalogue.product(ANYONE, product.product_id)


async def test_a_price_holds_for_its_time(house: House) -> None:
    product = await product_with(house, timed(house, 700, 1, 3, compare_at=1200), compare_at=1100)

    seen = [(product.price.amount, product.compare_at)]
    for hours in (1, 2):
        house.watch.forward(hours=hours)
        later = await shown(house, product)
        seen.append((later.price.amount, later.compare_at))

    assert seen == [(1000, 1100), (700, 1200), (1000, 1100)]


async def test_of_several_that_hold_the_one_that_began_last_wins(house: House) -> None:
    product = await product_with(
        house,
        timed(house, 700, None, None),
        timed(house, 600, -1, 9),
        timed(house, 500, -2, 9),
        timed(house, 650, -1, 8),
    )

    assert product.price.amount == 650
    assert (await shown(house, product)).price.amount == 650


async def test_a_price_in_another_currency_is_listed_and_not_taken(house: House) -> None:
    product = await product_with(house, {"amount": 5, "currency": "JPY"})

    found = await shown(house, product)

    assert (found.price.amount, found.price.currency) == (1000, "EUR")
    assert [(price.amount, price.currency) for price in found.prices] == [(5, "JPY")]


async def test_goods_are_sold_at_the_price_of_the_moment(house: House) -> None:
    product = await product_with(house, timed(house, 700, 1, 2))
    before = await house.reserve({product.product_id: 1})

    house.watch.forward(hours=1)
    during = await house.reserve({product.product_id: 1})

    assert [hold.lines[0].unit_price.amount for hold in (before, during)] == [1000, 700]


async def test_every_storage_shows_the_same_order_of_fields(house: House) -> None:
    product = await product_with(
        house,
        timed(house, 700, None, 5),
        options={"size": "S", "cut": "slim", "colour": "ä"},
        translations={"fr": {"name": "Thé"}, "de": {"description": "Grüner Tee"}},
    )

    rendered = await house.catalogue.product_body(ANYONE, product.product_id)

    body = json.loads(rendered.body)
    assert list(body) == list(Product.model_fields)
    assert list(body["options"]) == ["cut", "size", "colour"]
    assert list(body["translations"]) == ["de", "fr"]
    assert body["translations"]["fr"] == {"name": "Thé", "description": None}
    assert list(body["prices"][0]) == [
        "amount", "currency", "compare_at", "valid_from", "valid_until",
    ]  # fmt: skip
    assert Product.model_validate(body) == product


async def test_translations_are_merged_by_language(house: House) -> None:
    product = await product_with(house, translations={"de": {"name": "Tee"}, "fr": {"name": "Thé"}})
    change = ProductChange.model_validate({"translations": {"fr": None, "it": {"name": "Tè"}}})

    changed = await house.catalogue.change(STAFF, product.product_id, change, {product.version})

    assert {key: text.name for key, text in changed.translations.items()} == {
        "de": "Tee",
        "it": "Tè",
    }


async def test_of_a_translation_a_text_that_is_absent_stays(house: House) -> None:
    both = {"name": "Tee", "description": "Grün"}
    product = await product_with(house, translations={"de": both, "fr": both})
    texts = {"de": {"name": "Neu"}, "fr": {"description": None}}
    change = ProductChange.model_validate({"translations": texts})

    changed = await house.catalogue.change(STAFF, product.product_id, change, {product.version})

    assert {key: text.model_dump() for key, text in changed.translations.items()} == {
        "de": {"name": "Neu", "description": "Grün"},
        "fr": {"name": "Tee", "description": None},
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"prices": [{"amount": -1, **EUR}]},
        {"prices": [{"amount": 1, "currency": "EURO"}]},
        {"prices": [{"amount": 1, **EUR, "valid_from": "2026-01-01T00:00:00"}]},
        {"prices": [{"amount": 1, **EUR, "valid_from": 1}]},
        {"prices": [{"amount": 1, **EUR, "valid_from": "0001-01-01T00:00:00+01:00"}]},
        {
            "prices": [
                {
                    "amount": 1,
                    **EUR,
                    "valid_from": "2026-01-02T00:00:00Z",
                    "valid_until": "2026-01-02T01:00:00+01:00",
                }
            ]
        },
        {"translations": {"deutsch!": {"name": "Tee"}}},
        {"translations": {"de": {"title": "Tee"}}},
        {"weight_grams": -1},
        {"compare_at": -1},
        {"backorder_limit": -1},
        {"low_stock_threshold": -1},
        {"tax_class": ""},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    product = {"sku": "A", "name": "A", "price": {"amount": 1, **EUR}}

    NewProduct.model_validate(product)
    with pytest.raises(ValueError, match="validation error"):
        NewProduct.model_validate(product | wrong)


def test_a_moment_is_kept_in_utc() -> None:
    moment = TypeAdapter(Moment).validate_python("2026-01-01T01:00:00+01:00")

    assert moment.isoformat() == "2026-01-01T00:00:00+00:00"
