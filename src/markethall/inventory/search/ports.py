"""Finding products: by the store itself, or by an engine outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from markethall.inventory.catalogue.ports import ProductIndex
from markethall.inventory.search.contract import Facets, FacetValue, ProductQuery
from markethall.inventory.search.domain import SearchQuery


@dataclass(frozen=True)
class ProductPageRequest:
    """A page of products to read: `after` is the place where the last page ended.

    A place is what the sort compares, ending in the product's id.
    """

    query: ProductQuery
    search: SearchQuery | None
    after: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class ProductPageJson:
    """A page of them: their JSON joined by commas, and the place of the last when more follow."""

    json: str
    last_key: tuple[Any, ...] | None = None


class ReadStore(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def get_product_page(
        self, request: ProductPageRequest, now: datetime
    ) -> ProductPageJson: ...

    async def get_facets(self, request: ProductPageRequest, now: datetime) -> Facets:
        """Of everything that matches: `after` and the page's size do not count."""

    async def get_spelling_suggestions(self, search: SearchQuery) -> Mapping[str, Sequence[str]]:
        """What may have been meant by words that begin no word of any product. Nothing where the
        database cannot compare words; then that is not even a statement.
        """

    async def get_products_json(
        self, product_ids: Sequence[UUID], now: datetime
    ) -> ProductPageJson:
        """Of active products, in this order; what is unknown is left out."""


FacetCount = tuple[str, str, int]  # of an option's name (else ""), a value: so many


def build_facets(counts: Mapping[str, Sequence[FacetCount]]) -> Facets:
    """Facets from the counts of those that were asked for, in the order they have."""
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
    """The products of one page, the best first; `after` is any text that finds the next page."""

    product_ids: Sequence[UUID]
    after: str | None
    facets: Facets


class SearchIndex(ProductIndex, Protocol):
    """An external search engine for active products."""

    async def find(self, query: ProductQuery, after: str | None) -> SearchHits | None:
        """None when it is not there, or not able to: then the store finds them itself."""
