"""Products in memory."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from markethall.inventory.contract import (
    Category,
    ProductQuery,
    SkuTaken,
)
from markethall.inventory.domain import (
    MAIN_WAREHOUSE,
    Item,
    Stock,
)
from markethall.inventory.memory.stock import MemoryStock, is_active
from markethall.inventory.ports import Card, Cards, Listing


class MemoryProducts(MemoryStock):
    """One transaction, or reads without one: the products."""

    async def card(self, product_id: UUID, now: datetime) -> Card | None:
        item = self._tables.items.get(product_id)
        return self._card(item, now) if item else None

    async def card_by_sku(self, sku: str, now: datetime) -> Card | None:
        product_id = self._tables.skus.get(sku.lower())
        return await self.card(product_id, now) if product_id else None

    async def page(self, listing: Listing, now: datetime) -> Cards:
        query = listing.query
        key = _KEYS[query.sort.removeprefix("-")]
        falling = query.sort.startswith("-")

        def place(item: Item) -> tuple[Any, UUID]:
            return key(item), item.product_id

        items = self._tables.items.where(lambda item: self._matches(item, query, now))
        if (after := listing.after) is not None:
            items = [i for i in items if (place(i) < after if falling else place(i) > after)]
        items.sort(key=place, reverse=falling)
        kept = items[: query.limit]
        last = (key(kept[-1]), str(kept[-1].product_id)) if len(items) > query.limit else None
        return Cards(",".join(self._card(item, now).json for item in kept), last)

    async def categories(self, after: str, limit: int) -> Sequence[Category]:
        counts: dict[str, int] = {}
        for item in self._tables.items.where(is_active):
            if item.category is not None and item.category > after:
                counts[item.category] = counts.get(item.category, 0) + 1
        return [Category(category=name, product_count=counts[name]) for name in sorted(counts)][
            :limit
        ]

    async def count(self) -> int:
        return len(self._tables.items.where(is_active))

    async def add(self, item: Item) -> bool:
        if item.sku.lower() in self._tables.skus or not self._tables.items.add(
            item.product_id, item
        ):
            return False
        self._tables.skus.put(item.sku.lower(), item.product_id)
        shelf = (item.product_id, MAIN_WAREHOUSE)
        self._tables.stock.put(shelf, Stock(*shelf))
        return True

    async def item(self, product_id: UUID) -> Item | None:
        return self._tables.items.get(product_id)

    async def save(self, item: Item) -> None:
        before = self._tables.items.get(item.product_id)
        if before is not None and before.sku.lower() != item.sku.lower():
            if not self._tables.skus.add(item.sku.lower(), item.product_id):
                raise SkuTaken(sku=item.sku)
            self._tables.skus.remove(before.sku.lower())
        self._tables.items.put(item.product_id, item)

    def _card(self, item: Item, now: datetime) -> Card:
        text = item.seen_with(self._available(item.product_id, now)).model_dump_json()
        return Card(item.version, is_active(item), text)

    def _matches(self, item: Item, query: ProductQuery, now: datetime) -> bool:
        return (
            item.status == query.status
            and query.category in {None, item.category}
            and query.family in {None, item.family}
            and (query.tag is None or query.tag in item.tags)
            and (query.min_price is None or query.min_price <= item.price.amount)
            and (query.max_price is None or item.price.amount <= query.max_price)
            and (query.q is None or _contains(item, query.q))
            and (
                query.in_stock is None
                or query.in_stock == (self._available(item.product_id, now) > 0)
            )
        )


_KEYS: Final[Mapping[str, Callable[[Item], Any]]] = {
    "name": lambda item: item.name.lower(),
    "price": lambda item: item.price.amount,
    "created_at": lambda item: item.created_at,
}


def _contains(item: Item, text: str) -> bool:
    wanted = text.lower()
    return wanted in item.name.lower() or wanted in item.sku.lower()
