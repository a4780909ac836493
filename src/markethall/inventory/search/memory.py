"""The in-memory store of product lists. It has no spelling suggestions."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import name_key
from markethall.inventory.catalogue.memory import MemoryProductStore
from markethall.inventory.search.contract import MAX_FACET_VALUES, Facets, ProductQuery
from markethall.inventory.search.domain import SearchQuery
from markethall.inventory.search.ports import ProductPageJson, ProductPageRequest, build_facets

FacetCounter = Counter[tuple[str, str]]


class MemorySearchStore(MemoryProductStore):
    async def get_product_page(self, request: ProductPageRequest, now: datetime) -> ProductPageJson:
        query, after = request.query, request.after
        is_descending = query.effective_sort.startswith("-") or query.effective_sort == "relevance"
        found = [
            (self._sort_key(request, product), product)
            for product in self._find_products(request, now)
        ]
        if after is not None:
            found = [row for row in found if (row[0] < after if is_descending else row[0] > after)]
        found.sort(key=itemgetter(0), reverse=is_descending)
        page_rows = found[: query.limit]
        return ProductPageJson(
            ",".join(self._product_json(product, now).json for _, product in page_rows),
            page_rows[-1][0] if len(found) > query.limit else None,
        )

    async def get_facets(self, request: ProductPageRequest, now: datetime) -> Facets:
        products = self._find_products(request, now)
        kinds = {
            kind: Counter(_FACET_VALUES[kind](products)) for kind in request.query.requested_facets
        }
        return build_facets({kind: _most_frequent(counts) for kind, counts in kinds.items()})

    async def get_spelling_suggestions(self, search: SearchQuery) -> Mapping[str, Sequence[str]]:
        return {}

    async def get_products_json(
        self, product_ids: Sequence[UUID], now: datetime
    ) -> ProductPageJson:
        products = (self._tables.products.get(product_id) for product_id in product_ids)
        active = (product for product in products if product is not None and product.is_active)
        return ProductPageJson(
            ",".join(self._product_json(product, now).json for product in active)
        )

    def _find_products(self, request: ProductPageRequest, now: datetime) -> list[Product]:
        search, category = request.search, request.query.category
        subtree = self._subtree(category) if category is not None else None

        def matches(product: Product) -> bool:
            return (
                (subtree is None or product.category in subtree)
                and self._matches_filters(product, request.query, now)
                and (search is None or self._score(search, product) > 0)
            )

        return self._tables.products.where(matches)

    def _sort_key(self, request: ProductPageRequest, product: Product) -> tuple[Any, ...]:
        if request.query.effective_sort == "relevance" and request.search is not None:
            return self._score(request.search, product), product.created_at, product.product_id
        return _SORT_KEYS[request.query.effective_sort.removeprefix("-")](
            product
        ), product.product_id

    def _score(self, search: SearchQuery, product: Product) -> int:
        document = self._tables.search_documents.get(product.product_id)
        return search.score(document, product.sku) if document else 0

    def _matches_filters(self, product: Product, query: ProductQuery, now: datetime) -> bool:
        return (
            product.status == query.status
            and query.family in {None, product.family}
            and (query.tag is None or query.tag in product.tags)
            and (query.min_price is None or query.min_price <= product.price.amount)
            and (query.max_price is None or product.price.amount <= query.max_price)
            and (
                query.in_stock is None
                or query.in_stock == (self._available(product.product_id, now) > 0)
            )
        )


_SORT_KEYS: Final[Mapping[str, Callable[[Product], Any]]] = {
    "name": lambda product: name_key(product.name),
    "price": lambda product: product.price.amount,
    "created_at": lambda product: product.created_at,
}
_FACET_VALUES: Final[Mapping[str, Callable[[Iterable[Product]], Iterable[tuple[str, str]]]]] = {
    "category": lambda products: (
        ("", product.category) for product in products if product.category is not None
    ),
    "options": lambda products: (pair for product in products for pair in product.options.items()),
    "tag": lambda products: (("", tag) for product in products for tag in product.tags),
}


def _most_frequent(counts: FacetCounter) -> list[tuple[str, str, int]]:
    """Return (name, value, count), sorted by falling count, then by name and value."""
    order = sorted(counts, key=lambda pair: (-counts[pair], pair))
    return [(*pair, counts[pair]) for pair in order[:MAX_FACET_VALUES]]
