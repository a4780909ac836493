"""The copies of products that change after each batch: cached responses and the search index."""

from markethall.inventory.catalogue.ports import ProductCache, ProductIndex
from markethall.inventory.imports.service.import_batch import BatchChanges


class ReadModels:
    def __init__(self, cache: ProductCache, search_index: ProductIndex) -> None:
        self._cache = cache
        self._search_index = search_index

    def invalidate(self, changes: BatchChanges) -> None:
        """Invalidate the products of the batch, which may have been applied, and all pages."""
        self._cache.invalidate(changes.touched_product_ids, pages=True)

    async def update(self, changes: BatchChanges) -> None:
        """Invalidate and index the products of the batch, which has been applied."""
        product_ids = changes.touched_product_ids
        has_changes = bool(product_ids or changes.families.changed)
        self._cache.invalidate(product_ids, pages=has_changes)
        if products := changes.written_products:
            await self._search_index.index(products)
