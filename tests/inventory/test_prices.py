"""Additional prices, translations and the JSON of products, on each storage."""

import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from markethall.inventory.catalogue.contract.products import NewProduct, ProductChange, ProductView
from markethall.shared.kernel.model import UtcDatetime
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp

EUR = {"currency": "EUR"}


def scheduled_price(
    inventory_app: InventoryApp, amount: int, start: int | None, end: int | None, **more: Any
) -> Any:
    """Build a price that is valid from `start` to `end`, in hours from the current time."""
    now = inventory_app.clock()
    period = {"valid_from": start, "valid_until": end}
    times = {
        name: (now + timedelta(hours=hours)).isoformat()
        for name, hours in period.items()
        if hours is not None
    }
    return {"amount": amount, **EUR, **times, **more}


async def product_with(inventory_app: InventoryApp, *prices: Any, **fields: Any) -> ProductView:
    created = await inventory_app.product(stock=9, price={"amount": 1000, **EUR})
    change = ProductChange.model_validate({"prices": list(prices), **fields})
    return await inventory_app.catalogue.change(STAFF, created.product_id, change, {1})


async def get_product(inventory_app: InventoryApp, product: ProductView) -> ProductView:
    return await inventory_app.catalogue.get_product(ANYONE, product.product_id)


async def test_scheduled_price_applies_during_its_period(inventory_app: InventoryApp) -> None:
    product = await product_with(
        inventory_app, scheduled_price(inventory_app, 700, 1, 3, compare_at=1200), compare_at=1100
    )

    prices = [(product.price.amount, product.compare_at)]
    for hours in (1, 2):
        inventory_app.clock.advance(hours=hours)
        later = await get_product(inventory_app, product)
        prices.append((later.price.amount, later.compare_at))

    assert prices == [(1000, 1100), (700, 1200), (1000, 1100)]


async def test_latest_started_price_wins(inventory_app: InventoryApp) -> None:
    product = await product_with(
        inventory_app,
        scheduled_price(inventory_app, 700, None, None),
        scheduled_price(inventory_app, 600, -1, 9),
        scheduled_price(inventory_app, 500, -2, 9),
        scheduled_price(inventory_app, 650, -1, 8),
    )

    assert product.price.amount == 650
    assert (await get_product(inventory_app, product)).price.amount == 650


async def test_price_in_other_currency_is_listed_and_not_used(inventory_app: InventoryApp) -> None:
    product = await product_with(inventory_app, {"amount": 5, "currency": "JPY"})

    found = await get_product(inventory_app, product)

    assert (found.price.amount, found.price.currency) == (1000, "EUR")
    assert [(price.amount, price.currency) for price in found.prices] == [(5, "JPY")]


async def test_reservation_uses_current_price(inventory_app: InventoryApp) -> None:
    product = await product_with(inventory_app, scheduled_price(inventory_app, 700, 1, 2))
    before = await inventory_app.reserve({product.product_id: 1})

    inventory_app.clock.advance(hours=1)
    during = await inventory_app.reserve({product.product_id: 1})

    assert [reservation.lines[0].unit_price.amount for reservation in (before, during)] == [
        1000,
        700,
    ]


@pytest.mark.parametrize("products", [1, 2])
async def test_reservation_uses_the_price_in_the_requested_currency(
    inventory_app: InventoryApp, products: int
) -> None:
    """A reservation of one product is one statement, of several products a transaction."""
    chf = {"currency": "CHF"}
    both = await product_with(
        inventory_app,
        {"amount": 950, **chf},
        scheduled_price(inventory_app, 900, -1, 1, **chf),
        scheduled_price(inventory_app, 700, -1, 1),
        {"amount": 5, "currency": "JPY"},
    )
    eur_only = await inventory_app.product(stock=9, price={"amount": 1000, **EUR})
    requested = dict.fromkeys([both.product_id, eur_only.product_id][:products], 1)

    async def prices(currency: str | None) -> list[tuple[int, str]]:
        command = inventory_app.order(requested).model_copy(update={"currency": currency})
        lines = (await inventory_app.inventory.reserve(ANYONE, command)).lines
        by_product = {line.product_id: line.unit_price for line in lines}
        return [(by_product[key].amount, by_product[key].currency) for key in requested]

    other = [(1000, "EUR")][: products - 1]
    assert await prices("CHF") == [(900, "CHF"), *other]
    assert await prices("JPY") == [(5, "JPY"), *other]
    assert await prices("EUR") == await prices(None) == [(700, "EUR"), *other]
    assert await prices("USD") == [(700, "EUR"), *other]


@pytest.mark.parametrize("products", [1, 2])
async def test_reservation_has_the_fields_that_totals_need(
    inventory_app: InventoryApp, products: int
) -> None:
    product = await product_with(
        inventory_app, tax_class="reduced", weight_grams=120, category="tea", tags=["new", "sale"]
    )
    other = await inventory_app.product(stock=9)
    requested = dict.fromkeys([product.product_id, other.product_id][:products], 1)

    reserved = await inventory_app.reserve(requested)
    committed = await inventory_app.inventory.commit(ANYONE, reserved.reservation_id)

    for reservation in (reserved, committed):
        line = next(line for line in reservation.lines if line.product_id == product.product_id)
        assert (line.tax_class, line.weight_grams) == ("reduced", 120)
        assert (line.category, line.tags) == ("tea", ("new", "sale"))


async def test_storages_render_fields_in_same_order(inventory_app: InventoryApp) -> None:
    product = await product_with(
        inventory_app,
        scheduled_price(inventory_app, 700, None, 5),
        options={"size": "S", "cut": "slim", "colour": "ä"},
        translations={"fr": {"name": "Thé"}, "de": {"description": "Grüner Tee"}},
    )

    rendered = await inventory_app.catalogue.render_product(ANYONE, product.product_id)

    body = json.loads(rendered.body)
    assert list(body) == list(ProductView.model_fields)
    assert list(body["options"]) == ["cut", "size", "colour"]
    assert list(body["translations"]) == ["de", "fr"]
    assert body["translations"]["fr"] == {"name": "Thé", "description": None}
    assert list(body["prices"][0]) == [
        "amount", "currency", "compare_at", "valid_from", "valid_until",
    ]  # fmt: skip
    assert ProductView.model_validate(body) == product


async def test_translations_are_merged_by_language(inventory_app: InventoryApp) -> None:
    product = await product_with(
        inventory_app, translations={"de": {"name": "Tee"}, "fr": {"name": "Thé"}}
    )
    change = ProductChange.model_validate({"translations": {"fr": None, "it": {"name": "Tè"}}})

    changed = await inventory_app.catalogue.change(
        STAFF, product.product_id, change, {product.version}
    )

    assert {key: text.name for key, text in changed.translations.items()} == {
        "de": "Tee",
        "it": "Tè",
    }


async def test_absent_translation_text_is_kept(inventory_app: InventoryApp) -> None:
    both = {"name": "Tee", "description": "Grün"}
    product = await product_with(inventory_app, translations={"de": both, "fr": both})
    texts = {"de": {"name": "Neu"}, "fr": {"description": None}}
    change = ProductChange.model_validate({"translations": texts})

    changed = await inventory_app.catalogue.change(
        STAFF, product.product_id, change, {product.version}
    )

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
def test_invalid_product_fields_are_rejected(wrong: dict[str, Any]) -> None:
    product = {"sku": "A", "name": "A", "price": {"amount": 1, **EUR}}

    NewProduct.model_validate(product)
    with pytest.raises(ValueError, match="validation error"):
        NewProduct.model_validate(product | wrong)


def test_times_are_stored_in_utc() -> None:
    moment = TypeAdapter(UtcDatetime).validate_python("2026-01-01T01:00:00+01:00")

    assert moment.isoformat() == "2026-01-01T00:00:00+00:00"
