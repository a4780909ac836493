"""Ports of search: product lists read from the store, and an external search engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from markethall.inventory.catalogue.ports import ProductIndex
from markethall.inventory.search.contract import Facets, FacetValue, ProductQuery
from markethall.inventory.search.domain import SearchQuery

FacetCount = tuple[str, str, int]  # option name (empty for other facets), value, count


@dataclass(frozen=True)
class ProductPageRequest:
    """Page of products to read. `after` is the last key of the previous page.

    A key has the values that the sort compares, and the product's id at the end.
    """

    query: ProductQuery
    search: SearchQuery | None
    after: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class ProductPageJson:
    """Products' JSON joined by commas, and the key of the last one if more follow."""

    json: str
    last_key: tuple[Any, ...] | None = None


class ReadStore(Protocol):
    """Reads of product lists. Each is one statement that takes no lock."""

    async def get_product_page(
        self, request: ProductPageRequest, now: datetime
    ) -> ProductPageJson: ...

    async def get_facets(self, request: ProductPageRequest, now: datetime) -> Facets:
        """Count over all matches: `after` and the page size are ignored."""

    async def get_spelling_suggestions(self, search: SearchQuery) -> Mapping[str, Sequence[str]]:
        """Return known words by each misspelt term: a term that begins no word of any product.

        Empty where the store has no spelling help: in memory, and in Postgres without pg_trgm.
        """

    async def get_products_json(
        self, product_ids: Sequence[UUID], now: datetime
    ) -> ProductPageJson:
        """Return the active products among these ids, in this order."""


def build_facets(counts: Mapping[str, Sequence[FacetCount]]) -> Facets:
    """Build the facets that have counts, in the order of their counts."""
    options: dict[str, list[FacetValue]] = {}
    for name, value, count in counts.get("options", ()):
        options.setdefault(name, []).append(FacetValue(value=value, count=count))
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
    return tuple(FacetValue(value=value, count=count) for _, value, count in counts)


@dataclass(frozen=True)
class SearchHits:
    """Product ids of one page, best first. `after` is the engine's own cursor of the next page."""

    product_ids: Sequence[UUID]
    after: str | None
    facets: Facets


class SearchIndex(ProductIndex, Protocol):
    """External search engine for active products. It receives every change after the commit."""

    async def find(self, query: ProductQuery, after: str | None) -> SearchHits | None:
        """Return None if the engine is unavailable or cannot answer: the store searches then."""
