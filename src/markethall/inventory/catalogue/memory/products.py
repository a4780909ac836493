"""Products in memory."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from markethall.inventory.catalogue.contract.products import PriceRange, SkuTaken
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.memory.categories import MemoryCategoryStore
from markethall.inventory.catalogue.ports.products import FamilySummary, ProductJson
from markethall.inventory.reservations.memory import is_active
from markethall.inventory.search.contract import MAX_FACET_VALUES
from markethall.inventory.search.domain import build_search_document
from markethall.inventory.stock.domain.stock import Stock
from markethall.inventory.stock.domain.warehouses import MAIN_WAREHOUSE


class MemoryProductStore(MemoryCategoryStore):
    """One transaction, or reads without one: the products."""

    async def get_product_json(self, product_id: UUID, now: datetime) -> ProductJson | None:
        product = self._tables.products.get(product_id)
        return self._product_json(product, now) if product else None

    async def get_product_json_by_sku(self, sku: str, now: datetime) -> ProductJson | None:
        product_id = self._tables.product_ids_by_sku.get(sku.lower())
        return await self.get_product_json(product_id, now) if product_id else None

    async def get_family_summary(self, family: str, now: datetime) -> FamilySummary | None:
        members = self._tables.products.where(
            lambda product: product.family == family and is_active(product)
        )
        if not members:
            return None
        members.sort(key=lambda product: (product.created_at, product.product_id))
        return FamilySummary(len(members), _option_values(members), _price_ranges(members, now))

    async def count_products(self) -> int:
        return len(self._tables.products.where(is_active))

    async def add_product(self, product: Product) -> bool:
        if product.sku.lower() in self._tables.product_ids_by_sku or not self._tables.products.add(
            product.product_id, product
        ):
            return False
        self._tables.product_ids_by_sku.put(product.sku.lower(), product.product_id)
        self._ensure_category(product.category)
        self._index(product)
        self._insert_stock_row(
            Stock(product.product_id, MAIN_WAREHOUSE).with_backorder_limit(product.backorder_limit)
        )
        return True

    async def get_product_for_update(self, product_id: UUID) -> Product | None:
        return self._tables.products.get(product_id)

    async def save_product(self, product: Product) -> None:
        stored = self._tables.products.get(product.product_id)
        if stored is not None and stored.sku.lower() != product.sku.lower():
            if not self._tables.product_ids_by_sku.add(product.sku.lower(), product.product_id):
                raise SkuTaken(sku=product.sku)
            self._tables.product_ids_by_sku.remove(stored.sku.lower())
        self._tables.products.put(product.product_id, product)
        if stored is None or stored.backorder_limit != product.backorder_limit:
            self._apply_backorder_limit(product)
        self._ensure_category(product.category)
        self._index(product)

    def _apply_backorder_limit(self, product: Product) -> None:
        stock_key = (product.product_id, MAIN_WAREHOUSE)
        stock = self._tables.stock.get(stock_key)
        if stock is not None:
            self._tables.stock.put(stock_key, stock.with_backorder_limit(product.backorder_limit))

    def _index(self, product: Product) -> None:
        self._tables.search_documents.put(product.product_id, build_search_document(product))

    def _product_json(self, product: Product, now: datetime) -> ProductJson:
        text = product.to_view(self._available(product.product_id, now), now).model_dump_json()
        return ProductJson(product.version, is_active(product), text)


def _option_values(members: Iterable[Product]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for product in members:
        for name, value in product.options.items():
            found.setdefault(name, {})[value] = None
    return {name: tuple(found[name])[:MAX_FACET_VALUES] for name in sorted(found)}


def _price_ranges(members: Iterable[Product], now: datetime) -> tuple[PriceRange, ...]:
    amounts: dict[str, list[int]] = {}
    for product in members:
        price, _ = product.price_at(now)
        amounts.setdefault(price.currency, []).append(price.amount)
    return tuple(
        PriceRange(currency=currency, lowest=min(some), highest=max(some))
        for currency, some in sorted(amounts.items())
    )
