import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from markethall.inventory.catalogue.contract.fields import InventoryPolicy, ProductStatus
from markethall.inventory.catalogue.contract.products import (
    AdditionalPriceView,
    SkuTaken,
    TranslationView,
)
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.search_document import build_search_document
from markethall.inventory.catalogue.domain.text_keys import (
    attribute_keys,
    label_key,
    name_key,
    option_keys,
    sku_key,
)
from markethall.inventory.catalogue.ports import ProductJson
from markethall.inventory.catalogue.sql import statements
from markethall.inventory.catalogue.sql.expressions import tsvector_text
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.kernel.money import Money

if TYPE_CHECKING:
    from asyncpg.protocol import Record

_PRICES: Final = TypeAdapter(tuple[AdditionalPriceView, ...])
_TRANSLATIONS: Final = TypeAdapter(dict[str, TranslationView])
# the fields that have the same type in a row
_PLAIN_FIELDS: Final = (
    "product_id", "sku", "name", "description", "category", "family", "barcode", "weight_grams",
    "tax_class", "compare_at", "backorder_limit", "track_inventory", "low_stock_threshold",
    "version", "created_at", "updated_at",
)  # fmt: skip


class SqlProductStore(SqlUnitOfWork):
    async def get_product_json(self, product_id: UUID, now: datetime) -> ProductJson | None:
        row = await self._connection.fetch_one(
            statements.GET_PRODUCT_JSON, product_id=product_id, now=now
        )
        return _product_json(row) if row else None

    async def get_product_json_by_sku(self, sku: str, now: datetime) -> ProductJson | None:
        row = await self._connection.fetch_one(
            statements.GET_PRODUCT_JSON_BY_SKU, sku_key=sku_key(sku), now=now
        )
        return _product_json(row) if row else None

    async def count_products(self) -> int:
        return int(await self._connection.fetch_value(statements.COUNT_PRODUCTS))

    async def add_product(self, product: Product) -> bool:
        row = product_to_row(product)
        return await self._fetch_bool(statements.ADD_PRODUCT, **row)

    async def get_product_for_update(self, product_id: UUID) -> Product | None:
        row = await self._connection.fetch_one(
            statements.GET_PRODUCT_FOR_UPDATE, product_id=product_id
        )
        return product_from_row(row) if row else None

    async def list_products_of_family_for_update(self, label: str) -> Sequence[Product]:
        rows = await self._connection.fetch_all(
            statements.LIST_PRODUCTS_OF_FAMILY_FOR_UPDATE, label=label
        )
        return [product_from_row(row) for row in rows]

    async def save_product(self, product: Product) -> None:
        row = {f"new_{name}": value for name, value in product_to_row(product).items()}
        try:
            vocabulary = row.pop("new_vocabulary")
            await self._connection.execute(
                statements.SAVE_PRODUCT, product_id=product.product_id, vocabulary=vocabulary, **row
            )
        except asyncpg.UniqueViolationError:
            raise SkuTaken(sku=product.sku) from None


def _product_json(row: "Record") -> ProductJson:
    version, status, text = row
    return ProductJson(version, status == "active", text)


def product_to_row(product: Product) -> dict[str, Any]:
    document = build_search_document(product)
    return {
        **vars(product),
        "sku_key": sku_key(product.sku),
        "name_key": name_key(product.name),
        "price_amount": product.price.amount,
        "price_currency": product.price.currency,
        "options": _dump_mapping(product.options),
        "option_keys": _dump_mapping(option_keys(product.options)),
        "attributes": _dump_mapping(product.attributes),
        "attribute_keys": _dump_mapping(attribute_keys(product.attributes)),
        "prices": json.dumps([price.model_dump(mode="json") for price in product.prices]),
        "translations": _dump_mapping(
            {language: texts.model_dump() for language, texts in product.translations.items()}
        ),
        "tags": list(product.tags),
        "tag_keys": [label_key(tag) for tag in product.tags],
        "images": list(product.images),
        "search": tsvector_text(document),
        "vocabulary": document.vocabulary,
    }


def _dump_mapping(values: Mapping[str, Any]) -> str:
    # most mappings are empty; skipping json.dumps for them makes imports faster
    return json.dumps(dict(values)) if values else "{}"


def product_from_row(row: "Record") -> Product:
    return Product(
        **{name: row[name] for name in _PLAIN_FIELDS},
        price=Money(amount=row["price_amount"], currency=row["price_currency"]),
        options=_load_mapping(row["options"]),
        tags=tuple(row["tags"]),
        images=tuple(row["images"]),
        attributes=_load_mapping(row["attributes"]),
        prices=_PRICES.validate_json(prices) if (prices := row["prices"]) != "[]" else (),
        translations=_TRANSLATIONS.validate_json(texts)
        if (texts := row["translations"]) != "{}"
        else {},
        inventory_policy=InventoryPolicy(row["inventory_policy"]),
        status=ProductStatus(row["status"]),
    )


def _load_mapping(text: str) -> dict[str, Any]:
    # most mappings are empty, and json.loads is slower than this comparison
    return json.loads(text) if text != "{}" else {}
