"""Products in memory."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import MOST_FACET_VALUES, PriceRange, SkuTaken
from markethall.inventory.domain import (
    MAIN_WAREHOUSE,
    Item,
    Stock,
    search_text,
)
from markethall.inventory.memory.categories import MemoryCategories
from markethall.inventory.memory.stock import is_active
from markethall.inventory.ports import Card, FamilyFacts


class MemoryProducts(MemoryCategories):
    """One transaction, or reads without one: the products."""

    async def card(self, product_id: UUID, now: datetime) -> Card | None:
        item = self._tables.items.get(product_id)
        return self._card(item, now) if item else None

    async def card_by_sku(self, sku: str, now: datetime) -> Card | None:
        product_id = self._tables.skus.get(sku.lower())
        return await self.card(product_id, now) if product_id else None

    async def family(self, family: str, now: datetime) -> FamilyFacts | None:
        members = self._tables.items.where(lambda item: item.family == family and is_active(item))
        if not members:
            return None
        members.sort(key=lambda item: (item.created_at, item.product_id))
        return FamilyFacts(len(members), _options(members), _price_ranges(members, now))

    async def count(self) -> int:
        return len(self._tables.items.where(is_active))

    async def add(self, item: Item) -> bool:
        if item.sku.lower() in self._tables.skus or not self._tables.items.add(
            item.product_id, item
        ):
            return False
        self._tables.skus.put(item.sku.lower(), item.product_id)
        self._name(item.category)
        self._tell(item)
        self._add_shelf(Stock(item.product_id, MAIN_WAREHOUSE).limited_to(item.backorder_limit))
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
        if before is None or before.backorder_limit != item.backorder_limit:
            self._limit_backorders(item)
        self._name(item.category)
        self._tell(item)

    def _limit_backorders(self, item: Item) -> None:
        shelf = (item.product_id, MAIN_WAREHOUSE)
        stock = self._tables.stock.get(shelf)
        if stock is not None:
            self._tables.stock.put(shelf, stock.limited_to(item.backorder_limit))

    def _tell(self, item: Item) -> None:
        """The words by which it is found."""
        text = search_text(item)
        self._tables.texts.put(item.product_id, text)
        for word in text.vocabulary:
            self._tables.vocabulary.add(word, word)

    def _card(self, item: Item, now: datetime) -> Card:
        text = item.seen_with(self._available(item.product_id, now), now).model_dump_json()
        return Card(item.version, is_active(item), text)


def _options(members: Iterable[Item]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for item in members:
        for name, value in item.options.items():
            found.setdefault(name, {})[value] = None
    return {name: tuple(found[name])[:MOST_FACET_VALUES] for name in sorted(found)}


def _price_ranges(members: Iterable[Item], now: datetime) -> tuple[PriceRange, ...]:
    amounts: dict[str, list[int]] = {}
    for item in members:
        price, _ = item.price_at(now)
        amounts.setdefault(price.currency, []).append(price.amount)
    return tuple(
        PriceRange(currency=currency, lowest=min(some), highest=max(some))
        for currency, some in sorted(amounts.items())
    )
