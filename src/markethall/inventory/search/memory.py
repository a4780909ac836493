"""The in-memory store of product lists. It has no spelling suggestions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any, Final
from uuid import UUID

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import (
    attribute_keys,
    attribute_text,
    label_key,
    name_key,
    option_keys,
)
from markethall.inventory.catalogue.memory import MemoryProductStore, find_rows
from markethall.inventory.search.contract import Facets
from markethall.inventory.search.domain import (
    NAMED_FACETS,
    FacetCount,
    FacetPart,
    SearchQuery,
    build_facets,
    matches_keys,
    most_frequent,
)
from markethall.inventory.search.ports import FamilyListPage, ProductPageJson, ProductPageRequest

# returns the unit that a facet counts for a product: the product or its family
_UnitOf = Callable[[Product], object]


def _unit_of_family_list(product: Product) -> object:
    return product.family or product.product_id


class MemorySearchStore(MemoryProductStore):
    async def get_product_page(self, request: ProductPageRequest, now: datetime) -> ProductPageJson:
        page_rows, last_key = _page_of(request, self._sorted_products(request, now))
        return ProductPageJson(
            ",".join(self._product_json(product, now).json for _, product in page_rows), last_key
        )

    async def get_family_list_page(
        self, request: ProductPageRequest, now: datetime
    ) -> FamilyListPage:
        first: dict[object, tuple[Any, Product]] = {}
        for row in self._sorted_products(request, now):
            first.setdefault(_unit_of_family_list(row[1]), row)
        rows = [row for row in first.values() if not self._is_archived_family(row[1].family)]
        page_rows, last_key = _page_of(request, rows)
        return FamilyListPage(
            [self._family_of_product(product, now) for _, product in page_rows], last_key
        )

    def _sorted_products(
        self, request: ProductPageRequest, now: datetime
    ) -> list[tuple[Any, Product]]:
        """Return the sort key and the product of each match, in list order."""
        found = [
            (self._sort_key(request, product), product)
            for product in self._find_products(request, now)
        ]
        return sorted(found, key=itemgetter(0), reverse=_is_descending(request))

    async def get_facets(
        self, request: ProductPageRequest, now: datetime, *, of_families: bool
    ) -> Facets:
        unit_of = _unit_of_family_list if of_families else attrgetter("product_id")
        counts: dict[str, list[FacetCount]] = {}
        for part in request.facet_parts:
            products = self._find_products(request.without_ignored(part), now)
            if of_families:
                products = [each for each in products if not self._is_archived_family(each.family)]
            # sorted, because a value is shown in the spelling of the matching product with the
            # lowest id
            products.sort(key=lambda product: str(product.product_id))
            counts.setdefault(part.facet, []).extend(self._count(products, part, unit_of))
        return build_facets(request.query.requested_facets, counts)

    async def get_spelling_suggestions(self, search: SearchQuery) -> Mapping[str, Sequence[str]]:
        return {}

    async def get_products_json(
        self, product_ids: Sequence[UUID], now: datetime
    ) -> ProductPageJson:
        products = find_rows(self._tables.products, product_ids)
        active = (self._product_json(each, now).json for each in products if each.is_active)
        return ProductPageJson(",".join(active))

    def _count(
        self, products: Iterable[Product], part: FacetPart, unit_of: _UnitOf
    ) -> Sequence[FacetCount]:
        if part.facet == "category":
            return most_frequent(self._count_categories(products, unit_of), by_name=False)
        counts = _count_labels(products, part, unit_of)
        return most_frequent(counts, by_name=part.facet in NAMED_FACETS)

    def _count_categories(
        self, products: Iterable[Product], unit_of: _UnitOf
    ) -> Iterable[FacetCount]:
        """Count the units of each category together with those of the categories below it."""
        units: dict[str, set[object]] = {}
        for product in products:
            node = self._tables.categories.get(product.category) if product.category else None
            while node is not None:
                units.setdefault(node.category, set()).add(unit_of(product))
                node = self._tables.categories.get(node.parent) if node.parent else None
        return [FacetCount(len(found), "", name, "", "", name) for name, found in units.items()]

    def _find_products(self, request: ProductPageRequest, now: datetime) -> list[Product]:
        search, keys = request.search, request.category_keys
        subtree = self._subtree(keys) if keys is not None else None
        family = request.query.family and self._label_of_family(request.query.family)

        def matches(product: Product) -> bool:
            return (
                (subtree is None or product.category in subtree)
                and (family is None or product.family == family)
                and self._matches_filters(product, request, now)
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

    def _matches_filters(
        self, product: Product, request: ProductPageRequest, now: datetime
    ) -> bool:
        query, tags = request.query, set(map(label_key, request.query.tag))
        return (
            product.status == query.status
            and (not query.tag or not tags.isdisjoint(map(label_key, product.tags)))
            and matches_keys(option_keys(product.options), request.option_keys)
            and matches_keys(attribute_keys(product.attributes), request.attribute_keys)
            and (query.min_price is None or query.min_price <= product.price.amount)
            and (query.max_price is None or product.price.amount <= query.max_price)
            and (
                query.in_stock is None
                or query.in_stock == (self._available(product.product_id, now) > 0)
            )
        )


def _is_descending(request: ProductPageRequest) -> bool:
    sort = request.query.effective_sort
    return sort.startswith("-") or sort == "relevance"


def _page_of(
    request: ProductPageRequest, rows: Sequence[tuple[Any, Product]]
) -> tuple[Sequence[tuple[Any, Product]], tuple[Any, ...] | None]:
    """Return the rows of the page, and the sort key of its last row if another page follows."""
    after, limit = request.after, request.query.limit
    if after is not None:
        is_descending = _is_descending(request)
        rows = [row for row in rows if (row[0] < after if is_descending else row[0] > after)]
    return rows[:limit], rows[limit - 1][0] if len(rows) > limit else None


_SORT_KEYS: Final[Mapping[str, Callable[[Product], Any]]] = {
    "name": lambda product: name_key(product.name),
    "price": lambda product: product.price.amount,
    "created_at": lambda product: product.created_at,
}
# for each facet, the pairs (name, value) of a product; tags have no names
_LABELS: Final[Mapping[str, Callable[[Product], Iterable[tuple[str, str]]]]] = {
    "options": lambda product: product.options.items(),
    "tag": lambda product: (("", tag) for tag in product.tags),
    "attributes": lambda product: (
        (name, attribute_text(value)) for name, value in product.attributes.items()
    ),
}


def _count_labels(
    products: Iterable[Product], part: FacetPart, unit_of: _UnitOf
) -> Iterable[FacetCount]:
    """Count the units with each label. The products are sorted by id."""
    first: dict[tuple[str, str], FacetCount] = {}
    units: dict[tuple[str, str], set[object]] = {}
    for product in products:
        for name, value in _LABELS[part.facet](product):
            keys = label_key(name), label_key(value)
            if keys[1] and part.counts_name(keys[0]):
                first.setdefault(keys, FacetCount(0, *keys, str(product.product_id), name, value))
                units.setdefault(keys, set()).add(unit_of(product))
    return [replace(count, count=len(units[keys])) for keys, count in first.items()]
