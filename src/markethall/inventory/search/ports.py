from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol
from uuid import UUID

from markethall.inventory.catalogue.domain.categories import CategoryNode, category_key
from markethall.inventory.catalogue.domain.families import FamilyRecord
from markethall.inventory.catalogue.domain.text_keys import label_key
from markethall.inventory.catalogue.ports import ProductIndex
from markethall.inventory.search.contract import Facets, ProductQuery
from markethall.inventory.search.domain import FacetPart, SearchQuery, facet_parts, filter_keys


@dataclass(frozen=True)
class ProductPageRequest:
    """The page of products to read. `after` is the sort key of the previous page's last product.

    A sort key is a tuple of the values that the sort compares, with the product id at the end.

    `named_categories` has the keys of the categories that `query.category` names. It is empty in
    the first read for a single category. This read takes the text as the key of a category. If it
    finds no product, the service looks up the text as a path or a name, and reads again.
    """

    query: ProductQuery
    search: SearchQuery | None
    after: tuple[Any, ...] | None = None
    named_categories: Sequence[str] = ()

    @property
    def category_keys(self) -> Sequence[str] | None:
        if not self.query.category:
            return None
        return [category_key(name) for name in self.named_categories or self.query.category]

    @property
    def facet_parts(self) -> Sequence[FacetPart]:
        """The parts into which the counting of the requested facets is divided."""
        filters: Mapping[str, Collection[str]] = {
            "category": self.query.category,
            "tag": self.query.tag,
            "option": self.option_keys,
            "attribute": self.attribute_keys,
        }
        return facet_parts(self.query.requested_facets, filters)

    def without_ignored(self, part: FacetPart) -> "ProductPageRequest":
        """Leave out the filter that the part ignores."""
        match part.ignored:
            case "":
                return self
            case "category":
                query = self.query.model_copy(update={"category": ()})
                return replace(self, query=query, named_categories=())
            case "tag":
                return replace(self, query=self.query.model_copy(update={"tag": ()}))
        filters: Mapping[str, Sequence[str]] = getattr(self.query, part.ignored)
        others = {n: filters[n] for n in filters if label_key(n) != part.ignored_name}
        return replace(self, query=self.query.model_copy(update={part.ignored: others}))

    @cached_property
    def option_keys(self) -> Mapping[str, Sequence[str]]:
        """The filters by option: see `filter_keys`."""
        return filter_keys(self.query.option)

    @cached_property
    def attribute_keys(self) -> Mapping[str, Sequence[str]]:
        """The filters by attribute: see `filter_keys`."""
        return filter_keys(self.query.attribute)


@dataclass(frozen=True)
class ProductPageJson:
    """The JSON of the products on a page, joined by commas.

    `last_key` is the sort key of the page's last product, or None if there is no next page.
    """

    json: str
    last_key: tuple[Any, ...] | None = None

    @property
    def is_empty(self) -> bool:
        return not self.json


@dataclass(frozen=True)
class FamilyListPage:
    """The families on a page.

    `last_key` is the sort key of the first matching product of the page's last family, or None if
    there is no next page.
    """

    records: Sequence[FamilyRecord]
    last_key: tuple[Any, ...] | None = None

    @property
    def is_empty(self) -> bool:
        return not self.records


class ReadStore(Protocol):
    """Reads of product lists without locks. In Postgres, each method executes one statement."""

    async def get_product_page(
        self, request: ProductPageRequest, now: datetime
    ) -> ProductPageJson: ...

    async def get_family_list_page(
        self, request: ProductPageRequest, now: datetime
    ) -> FamilyListPage:
        """Return the families of the matching products, in the order of the product list.

        A family has the position of its first matching product. Archived families are left out.
        """

    async def get_facets(
        self, request: ProductPageRequest, now: datetime, *, of_families: bool
    ) -> Facets:
        """Count the facets, each over all products that match the filters of the other facets.

        Ignore `after` and the page size. With `of_families`, count families instead of products:
        each counts once for each value that one of its matching products has. A product without a
        family is a family of its own. Archived families are left out.
        """

    async def list_category_nodes(self, label_keys: Collection[str]) -> Sequence[CategoryNode]:
        """Return the categories whose `label_key` is one of these."""

    async def get_spelling_suggestions(self, search: SearchQuery) -> Mapping[str, Sequence[str]]:
        """Return, for each misspelt term, similar words from the names and tags of products.

        A term is misspelt if no word of any product begins with it. The memory store, and Postgres
        without the extension pg_trgm, return an empty mapping.
        """

    async def get_products_json(
        self, product_ids: Sequence[UUID], now: datetime
    ) -> ProductPageJson:
        """Return the active products among these ids, in the order of the ids."""


@dataclass(frozen=True)
class SearchHits:
    """The product ids of one page, the best match first, and the facets as `Facets` defines them.

    `after` is the engine's cursor for the next page, or None if there is no next page.
    """

    product_ids: Sequence[UUID]
    after: str | None
    facets: Facets


class SearchIndex(ProductIndex, Protocol):
    """An external search engine for active products."""

    async def find(self, query: ProductQuery, after: str | None) -> SearchHits | None:
        """Return a page of products, or None if the engine cannot answer.

        The engine applies every filter of the query, or returns None. It compares tags, and names
        and values of options and attributes, by their `label_key`.
        `after` is `SearchHits.after` of the previous page. If the result for the first page is
        None, the caller searches in the store instead.
        """
