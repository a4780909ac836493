"""Products in memory."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import (
    Category,
    SkuTaken,
)
from markethall.inventory.domain import (
    MAIN_WAREHOUSE,
    Item,
    Stock,
    search_text,
)
from markethall.inventory.memory.stock import MemoryStock, is_active
from markethall.inventory.ports import Card


class MemoryProducts(MemoryStock):
    """One transaction, or reads without one: the products."""

    async def card(self, product_id: UUID, now: datetime) -> Card | None:
        item = self._tables.items.get(product_id)
        return self._card(item, now) if item else None

    async def card_by_sku(self, sku: str, now: datetime) -> Card | None:
        product_id = self._tables.skus.get(sku.lower())
        return await self.card(product_id, now) if product_id else None

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
        self._tell(item)
        self._add_shelf(Stock(item.product_id, MAIN_WAREHOUSE))
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
        self._tell(item)

    def _tell(self, item: Item) -> None:
        """The words by which it is found."""
        text = search_text(item)
        self._tables.texts.put(item.product_id, text)
        for word in text.vocabulary:
            self._tables.vocabulary.add(word, word)

    def _card(self, item: Item, now: datetime) -> Card:
        text = item.seen_with(self._available(item.product_id, now), now).model_dump_json()
        return Card(item.version, is_active(item), text)
