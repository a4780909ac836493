"""Products in SQL: what the rest of the context sees of the statements."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from markethall.inventory.contract import (
    PriceRange,
    PriceView,
    ProductStatus,
    SkuTaken,
    TranslationView,
)
from markethall.inventory.domain import (
    MAIN_WAREHOUSE,
    Item,
    search_text,
)
from markethall.inventory.ports import Card, FamilyFacts
from markethall.inventory.sql import families, products
from markethall.inventory.sql.vectors import vector
from markethall.shared import sql as shared
from markethall.shared.money import Money

if TYPE_CHECKING:
    from asyncpg.protocol import Record

_PRICES: Final = TypeAdapter(tuple[PriceView, ...])
_TRANSLATIONS: Final = TypeAdapter(dict[str, TranslationView])


class SqlProducts(shared.SqlStore):
    """One transaction, or reads without one: the products."""

    async def card(self, product_id: UUID, now: datetime) -> Card | None:
        row = await self._session.one(products.CARD, of=product_id, now=now)
        return _card(row) if row else None

    async def card_by_sku(self, sku: str, now: datetime) -> Card | None:
        row = await self._session.one(products.CARD_BY_SKU, of=sku, now=now)
        return _card(row) if row else None

    async def family(self, family: str, now: datetime) -> FamilyFacts | None:
        return _facts(await self._session.all(families.FACTS, family=family, now=now))

    async def count(self) -> int:
        return int(await self._session.value(products.COUNT))

    async def add(self, item: Item) -> bool:
        row = row_of(item)
        return bool(await self._session.value(products.ADD, **row, main=MAIN_WAREHOUSE))

    async def item(self, product_id: UUID) -> Item | None:
        row = await self._session.one(products.ITEM, of=product_id)
        return item_of(row) if row else None

    async def save(self, item: Item) -> None:
        row = {f"new_{name}": value for name, value in row_of(item).items()}
        try:
            words = row.pop("new_vocabulary")
            await self._session.run(products.SAVE, of=item.product_id, vocabulary=words, **row)
        except asyncpg.UniqueViolationError:
            raise SkuTaken(sku=item.sku) from None


def _card(row: "Record") -> Card:
    version, status, text = row
    return Card(version, status == "active", text)


def _facts(rows: "Sequence[Record]") -> FamilyFacts | None:
    options: dict[str, list[str]] = {}
    prices = []
    count = 0
    for name, value, currency, lowest, highest, members in rows:
        if currency is None:
            options.setdefault(name, []).append(value)
        else:
            prices.append(PriceRange(currency=currency, lowest=lowest, highest=highest))
            count += members
    values = {name: tuple(options[name]) for name in sorted(options)}
    return FamilyFacts(count, values, tuple(prices)) if prices else None


def row_of(item: Item) -> dict[str, Any]:
    text = search_text(item)
    return {
        **vars(item),
        "price_amount": item.price.amount,
        "price_currency": item.price.currency,
        "options": _named(item.options),
        "attributes": _named(item.attributes),
        "prices": _prices(item.prices),
        "translations": _named(
            {language: texts.model_dump() for language, texts in item.translations.items()}
        ),
        "tags": list(item.tags),
        "images": list(item.images),
        "status": item.status.value,
        "search": vector(text),
        "vocabulary": text.vocabulary,
    }


def _named(values: Mapping[str, Any]) -> str:
    # most have none, and an import makes a hundred thousand of them
    return json.dumps(dict(values)) if values else "{}"


def _prices(prices: Sequence[PriceView]) -> str:
    return json.dumps([price.model_dump(mode="json") for price in prices]) if prices else "[]"


def item_of(row: "Record") -> Item:
    return Item(
        product_id=row["product_id"],
        sku=row["sku"],
        name=row["name"],
        description=row["description"],
        price=Money(amount=row["price_amount"], currency=row["price_currency"]),
        category=row["category"],
        family=row["family"],
        options=_mapping(row["options"]),
        tags=tuple(row["tags"]),
        images=tuple(row["images"]),
        attributes=_mapping(row["attributes"]),
        barcode=row["barcode"],
        weight_grams=row["weight_grams"],
        tax_class=row["tax_class"],
        compare_at=row["compare_at"],
        prices=_PRICES.validate_json(prices) if (prices := row["prices"]) != "[]" else (),
        translations=_TRANSLATIONS.validate_json(texts)
        if (texts := row["translations"]) != "{}"
        else {},
        backorder_limit=row["backorder_limit"],
        low_stock_threshold=row["low_stock_threshold"],
        status=ProductStatus(row["status"]),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _mapping(text: str) -> dict[str, Any]:
    # as above: most have none
    return json.loads(text) if text != "{}" else {}
