"""Products in SQL: what the rest of the context sees of the statements."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from markethall.inventory.contract import (
    Category,
    ProductQuery,
    ProductStatus,
    SkuTaken,
)
from markethall.inventory.domain import (
    MAIN_WAREHOUSE,
    Item,
)
from markethall.inventory.ports import Card, Cards, Listing
from markethall.inventory.sql import products
from markethall.shared import sql as shared
from markethall.shared.money import Money

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlProducts(shared.SqlStore):
    """One transaction, or reads without one: the products."""

    async def card(self, product_id: UUID, now: datetime) -> Card | None:
        row = await self._session.one(products.CARD, of=product_id, now=now)
        return _card(row) if row else None

    async def card_by_sku(self, sku: str, now: datetime) -> Card | None:
        row = await self._session.one(products.CARD_BY_SKU, of=sku, now=now)
        return _card(row) if row else None

    async def page(self, listing: Listing, now: datetime) -> Cards:
        query, after = listing.query, listing.after
        filters = _filters(query)
        statement = products.page(
            filters, query.status, query.sort, query.limit, after=after is not None
        )
        if after is not None:
            filters |= {"key": after[0], "id": after[1]}
        row = await self._session.one(statement, **filters, now=now, limit=query.limit)
        if row is None or row["json"] is None:
            return Cards("", None)
        return Cards(row["json"], (row["key"], row["id"]) if row["more"] else None)

    async def categories(self, after: str, limit: int) -> Sequence[Category]:
        rows = await self._session.all(products.CATEGORIES, after=after, limit=limit)
        return [Category(**row) for row in rows]

    async def count(self) -> int:
        return int(await self._session.value(products.COUNT))

    async def add(self, item: Item) -> bool:
        row = _row(item)
        return bool(await self._session.value(products.ADD, **row, main=MAIN_WAREHOUSE))

    async def item(self, product_id: UUID) -> Item | None:
        row = await self._session.one(products.ITEM, of=product_id)
        return _item(row) if row else None

    async def save(self, item: Item) -> None:
        row = {f"new_{name}": value for name, value in _row(item).items()}
        try:
            await self._session.run(products.SAVE, of=item.product_id, **row)
        except asyncpg.UniqueViolationError:
            raise SkuTaken(sku=item.sku) from None


def _card(row: "Record") -> Card:
    version, status, text = row
    return Card(version, status == "active", text)


def _filters(query: ProductQuery) -> dict[str, Any]:
    """Only those that are set."""
    names = ("category", "family", "min_price", "max_price", "in_stock")
    filters = {name: getattr(query, name) for name in names if getattr(query, name) is not None}
    if query.tag is not None:
        filters["tag"] = [query.tag]
    if query.q is not None:
        filters["q"] = f"%{_literally(query.q)}%"
    return filters


def _literally(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _row(item: Item) -> dict[str, Any]:
    return {
        **vars(item),
        "price_amount": item.price.amount,
        "price_currency": item.price.currency,
        "options": json.dumps(dict(item.options)),
        "attributes": json.dumps(dict(item.attributes)),
        "tags": list(item.tags),
        "images": list(item.images),
        "status": item.status.value,
    }


def _item(row: "Record") -> Item:
    return Item(
        product_id=row["product_id"],
        sku=row["sku"],
        name=row["name"],
        description=row["description"],
        price=Money(amount=row["price_amount"], currency=row["price_currency"]),
        category=row["category"],
        family=row["family"],
        options=json.loads(row["options"]),
        tags=tuple(row["tags"]),
        images=tuple(row["images"]),
        attributes=json.loads(row["attributes"]),
        status=ProductStatus(row["status"]),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
