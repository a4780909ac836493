import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from markethall.inventory.catalogue.contract.categories import CategoryNotFound
from markethall.inventory.catalogue.contract.families import FamilyStatus, OptionValuesView, SeoView
from markethall.inventory.catalogue.contract.fields import InventoryPolicy, ProductStatus
from markethall.inventory.catalogue.contract.products import (
    AdditionalPriceView,
    PriceRange,
    SkuTaken,
    TranslationView,
)
from markethall.inventory.catalogue.domain.families import (
    Family,
    FamilyLookup,
    FamilyName,
    FamilyRecord,
    FamilySummary,
    FirstMember,
)
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.search_document import build_search_document
from markethall.inventory.catalogue.domain.text_keys import (
    attribute_keys,
    find_option,
    label_key,
    name_key,
    option_keys,
    sku_key,
)
from markethall.inventory.catalogue.ports import FamilyPageJson, ProductJson
from markethall.inventory.catalogue.sql import family_statements, statements
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


_METADATA: Final = TypeAdapter(dict[str, str])


class SqlFamilyStore(SqlUnitOfWork):
    async def list_family_names(self, keys: Collection[str]) -> Sequence[FamilyName]:
        rows = await self._connection.fetch_all(
            family_statements.LIST_FAMILY_NAMES, keys=list(keys)
        )
        return [FamilyName(*row) for row in rows]

    async def list_taken_slugs(self, slugs: Collection[str]) -> Sequence[str]:
        rows = await self._connection.fetch_all(
            family_statements.LIST_TAKEN_SLUGS, slugs=list(slugs)
        )
        return [row["slug"] for row in rows]

    async def lock_family_names(self) -> None:
        await self._connection.fetch_value(family_statements.LOCK_FAMILY_NAMES)

    async def add_family(self, family: Family) -> bool:
        row = {**_family_to_row(family), "label_key": family.key}
        try:
            return await self._has_effect(family_statements.ADD_FAMILY, **row)
        except asyncpg.ForeignKeyViolationError:
            raise CategoryNotFound(category=family.category) from None

    async def get_family_for_update(self, name: FamilyLookup) -> Family | None:
        row = await self._connection.fetch_one(
            family_statements.GET_FAMILY_FOR_UPDATE, key=name.key, family_id=name.family_id
        )
        return _family_from_row(row) if row else None

    async def save_family(self, family: Family) -> None:
        try:
            await self._connection.execute(
                family_statements.SAVE_FAMILY,
                family_id=family.family_id,
                **_changed_values(family),
            )
        except asyncpg.ForeignKeyViolationError:
            raise CategoryNotFound(category=family.category) from None

    async def get_families_for_update(self, labels: Collection[str]) -> Sequence[Family]:
        rows = await self._connection.fetch_all(
            family_statements.GET_FAMILIES_FOR_UPDATE, labels=list(labels)
        )
        return [_family_from_row(row) for row in rows]

    async def list_families(self, after: str, limit: int) -> Sequence[Family]:
        rows = await self._connection.fetch_all(
            family_statements.LIST_FAMILIES, after=after, limit=limit
        )
        return [_family_from_row(row) for row in rows]

    async def add_families(self, families: Sequence[Family]) -> None:
        rows = [{**_family_to_row(family), "label_key": family.key} for family in families]
        await self._connection.execute_many(family_statements.ADD_FAMILY, rows)

    async def save_families(self, families: Sequence[Family]) -> None:
        rows = [{**_changed_values(family), "family_id": family.family_id} for family in families]
        await self._connection.execute_many(family_statements.SAVE_FAMILY, rows)
        slugs = [{"slug": family.slug, "family_id": family.family_id} for family in families]
        await self._connection.execute_many(family_statements.ADD_SLUG, slugs)

    async def get_family_page(self, name: FamilyLookup, now: datetime) -> FamilyPageJson | None:
        row = await self._connection.fetch_one(
            family_statements.GET_FAMILY,
            key=name.key,
            family_id=name.family_id,
            product_id=name.product_id,
            now=now,
        )
        return FamilyPageJson(family_record_from_row(row), row["products"] or "") if row else None

    async def add_slug(self, slug: str, family_id: UUID) -> None:
        await self._connection.execute(family_statements.ADD_SLUG, slug=slug, family_id=family_id)


def _family_to_row(family: Family) -> dict[str, Any]:
    row = {**vars(family)}
    seo = row.pop("seo")
    return row | {
        "images": list(family.images),
        "seo_title": seo.title,
        "seo_description": seo.description,
        "metadata": _METADATA.dump_json(dict(family.metadata)).decode(),
        "translations": _TRANSLATIONS.dump_json(dict(family.translations)).decode(),
    }


def _changed_values(family: Family) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in _family_to_row(family).items()}


def _family_from_row(row: "Record", prefix: str = "") -> Family:
    names = ("family_id", "label", "slug", "name", "description", "category")
    return Family(
        **{
            name: row[f"{prefix}{name}"] for name in (*names, "version", "created_at", "updated_at")
        },
        images=tuple(row[f"{prefix}images"]),
        seo=SeoView(title=row[f"{prefix}seo_title"], description=row[f"{prefix}seo_description"]),
        metadata=_METADATA.validate_json(row[f"{prefix}metadata"]),
        translations=_TRANSLATIONS.validate_json(row[f"{prefix}translations"]),
        status=FamilyStatus(row[f"{prefix}status"]),
    )


def family_record_from_row(row: "Record") -> FamilyRecord:
    """Read a row of the query of `summarize_families`."""
    family = _family_from_row(row, "own_") if row["own_family_id"] is not None else None
    if not row["product_count"]:
        return FamilyRecord(family)
    first = FirstMember(
        **{field.name: row[f"first_{field.name}"] for field in fields(FirstMember)}
        | {"translations": _TRANSLATIONS.validate_json(row["first_translations"])}
    )
    prices = {name: row[name] for name in ("currency", "lowest", "highest")}
    summary = FamilySummary(
        product_count=row["product_count"],
        available=row["available"],
        first=first,
        name_limits=(row["lowest_name"], row["highest_name"]),
        images=tuple(row["images"] or ()),
        options=_option_values(row["options"]),
        price_range=PriceRange(**prices),
    )
    return FamilyRecord(family, summary)


def _option_values(pairs: str | None) -> Sequence[OptionValuesView]:
    found: dict[str, tuple[str, list[str]]] = {}
    for key, options in json.loads(pairs or "[]"):
        name, value = find_option(options, key) or (key, "")
        found.setdefault(key, (name, []))[1].append(value)
    return [OptionValuesView(name=name, values=tuple(values)) for name, values in found.values()]
