"""Ports of search: storage, and an external search engine."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from markethall.inventory.catalogue.domain.category_tree import CategoryNode, category_key
from markethall.inventory.catalogue.ports import ProductIndex
from markethall.inventory.search.contract import Facets, FacetValue, ProductQuery
from markethall.inventory.search.domain import SearchQuery


@dataclass(frozen=True)
class FacetCount:
    """The number of products with a value. The first product has the spelling that is shown.

    The name is that of an option; other facets have an empty one.
    """

    count: int
    name_key: str
    value_key: str
    first_product_id: str
    name: str
    value: str

    @property
    def sort_key(self) -> tuple[int, str, str]:
        """The most frequent values come first."""
        return -self.count, self.name_key, self.value_key


@dataclass(frozen=True)
class ProductPageRequest:
    """A page of products to read. `after` is the sort key of the previous page's last product.

    A sort key is a tuple of the values that the sort compares, with the product id at the end.
    `named_categories` are the categories that the query names by a path or a name, and not by their
    key.
    """

    query: ProductQuery
    search: SearchQuery | None
    after: tuple[Any, ...] | None = None
    named_categories: Sequence[str] = ()

    @property
    def category_keys(self) -> Sequence[str] | None:
        if self.query.category is None:
            return None
        return [category_key(name) for name in self.named_categories or [self.query.category]]


@dataclass(frozen=True)
class ProductPageJson:
    """The JSON of the products, joined by commas.

    `last_key` is the sort key of the last product, or None on the last page.
    """

    json: str
    last_key: tuple[Any, ...] | None = None


class ReadStore(Protocol):
    """Reads of product lists without locks. Each is one statement."""

    async def get_product_page(
        self, request: ProductPageRequest, now: datetime
    ) -> ProductPageJson: ...

    async def get_facets(self, request: ProductPageRequest, now: datetime) -> Facets:
        """Count the facets over all matching products. Ignore `after` and the page size."""

    async def list_category_nodes(self, label_keys: Collection[str]) -> Sequence[CategoryNode]:
        """Return the categories that have one of these names."""

    async def get_spelling_suggestions(self, search: SearchQuery) -> Mapping[str, Sequence[str]]:
        """Return similar known words for each misspelt term.

        A term is misspelt if no word of any product begins with it. The result is empty in memory,
        and in Postgres without the extension pg_trgm.
        """

    async def get_products_json(
        self, product_ids: Sequence[UUID], now: datetime
    ) -> ProductPageJson:
        """Return the active products among these ids, in the order of the ids."""


def build_facets(counts: Mapping[str, Sequence[FacetCount]]) -> Facets:
    """Build the facets from the counts, and keep the order of the counts."""
    option_counts = counts.get("options", ())
    # sorted, so that the last name is that of the first product
    by_age = sorted(option_counts, key=lambda count: count.first_product_id, reverse=True)
    names = {count.name_key: count.name for count in by_age}
    options: dict[str, list[FacetValue]] = {}
    for count in option_counts:
        value = FacetValue(value=count.value, count=count.count)
        options.setdefault(names[count.name_key], []).append(value)
    return Facets(
        category=_facet_values(counts.get("category")),
        options={name: tuple(values) for name, values in options.items()}
        if "options" in counts
        else None,
        tag=_facet_values(counts.get("tag")),
    )


def _facet_values(counts: Sequence[FacetCount] | None) -> tuple[FacetValue, ...] | None:
    if counts is None:
        return None
    return tuple(FacetValue(value=count.value, count=count.count) for count in counts)


@dataclass(frozen=True)
class SearchHits:
    """The product ids of one page, the best match first.

    `after` is the cursor by which the engine finds the next page.
    """

    product_ids: Sequence[UUID]
    after: str | None
    facets: Facets


class SearchIndex(ProductIndex, Protocol):
    """An external search engine for active products."""

    async def find(self, query: ProductQuery, after: str | None) -> SearchHits | None:
        """Search. Return None if the engine cannot answer. The store then searches instead."""
