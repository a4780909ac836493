"""The use cases of product lists. An external search engine or the store finds the products."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

from pydantic import TypeAdapter

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.contract.products import ProductView, RenderedResponse
from markethall.inventory.catalogue.domain.categories import CategoryTree, category_key, label_keys
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.ports import ProductCache
from markethall.inventory.search.contract import (
    Facets,
    FamilyPage,
    FamilyQuery,
    ProductPage,
    ProductQuery,
)
from markethall.inventory.search.domain import SearchQuery, build_facets
from markethall.inventory.search.ports import (
    FamilyListPage,
    ProductPageJson,
    ProductPageRequest,
    ReadStore,
    SearchHits,
    SearchIndex,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Forbidden, Unauthenticated, Unavailable
from markethall.shared.kernel.etags import content_digest
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.kernel.scopes import CATALOGUE_WRITE
from markethall.shared.persistence.database import ReadDatabase

P = TypeVar("P", ProductPageJson, FamilyListPage)

_PRODUCT_VIEWS: Final = TypeAdapter(tuple[ProductView, ...])
# The first element of a cursor that belongs to the external engine. No sort key of the store begins
# with it, because stored texts contain no NUL.
_INDEX_CURSOR: Final = "\x00index"
_IndexKeyset = tuple[Literal["\x00index"], str]
# for each sort, the type of a decoded sort key of the store
_STORE_KEYSETS: Final[Mapping[str, Any]] = {
    "relevance": tuple[int, datetime, UUID],
    "name": tuple[str, UUID],
    "price": tuple[int, UUID],
    "-price": tuple[int, UUID],
    "-created_at": tuple[datetime, UUID],
}
# the cursor of a product list belongs to the external engine, or is a sort key of the store
_KEYSETS: Final[Mapping[str, TypeAdapter[tuple[Any, ...]]]] = {
    sort: TypeAdapter(_IndexKeyset | keyset) for sort, keyset in _STORE_KEYSETS.items()
}
_FAMILY_KEYSETS: Final[Mapping[str, TypeAdapter[tuple[Any, ...]]]] = {
    sort: TypeAdapter(keyset) for sort, keyset in _STORE_KEYSETS.items()
}


@dataclass(frozen=True)
class PageContent:
    """A page. `json` is the JSON of its products or families, joined by commas."""

    json: str
    facets: Facets | None
    next_cursor: str | None


class NoSearchIndex:
    """Implementation of `SearchIndex` without an engine. The store searches instead."""

    async def find(self, query: ProductQuery, after: str | None) -> SearchHits | None:
        return None

    async def index(self, products: Sequence[Product]) -> None:
        pass


class ProductListQueries:
    """Implementation of `ProductSearch`."""

    def __init__(
        self,
        database: ReadDatabase[ReadStore],
        cache: ProductCache,
        index: SearchIndex,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._index = index
        self._cursors = cursors
        self._clock = clock

    async def list_products(self, ctx: CallContext, query: ProductQuery) -> ProductPage:
        content = await self._load_page(ctx, query)
        products = _PRODUCT_VIEWS.validate_json(f"[{content.json}]")
        return ProductPage(items=products, next_cursor=content.next_cursor, facets=content.facets)

    async def render_product_page(self, ctx: CallContext, query: ProductQuery) -> RenderedResponse:
        async def load() -> RenderedResponse:
            return _render(await self._load_page(ctx, query))

        if query.status == ProductStatus.ACTIVE:
            key = query.model_dump_json(exclude_defaults=True)
            return await self._cache.get_or_load_page(key, load, has_counts=bool(query.facets))
        return replace(await load(), is_public=False)

    async def _load_page(self, ctx: CallContext, query: ProductQuery) -> PageContent:
        """Raises CursorInvalid, Unauthenticated, Forbidden, Unavailable."""
        if query.status != ProductStatus.ACTIVE and not ctx.actor.has_scope(CATALOGUE_WRITE):
            if ctx.actor.audit_name == "anonymous":
                raise Unauthenticated(reason="missing")
            raise Forbidden(scope=CATALOGUE_WRITE)
        name = "products:" + query.model_dump_json(exclude={"limit", "cursor", "facets"})
        keyset_type = _KEYSETS[query.effective_sort]
        after_key = self._cursors.decode(name, query.cursor, keyset_type)
        page, facets = await self._read_from_index_or_store(query, after_key)
        cursor = self._cursors.encode(name, page.last_key) if page.last_key else None
        return PageContent(page.json, facets if query.facets else None, cursor)

    async def _read_from_index_or_store(
        self, query: ProductQuery, after_key: tuple[Any, ...] | None
    ) -> tuple[ProductPageJson, Facets | None]:
        """Read a page from the external engine or from the store.

        All pages of a list come from the same source, because a cursor of one source is not valid
        in the other. Raises Unavailable if the cursor belongs to the engine and the engine cannot
        answer.
        """
        if query.q is not None and (after_key is None or after_key[0] == _INDEX_CURSOR):
            hits = await self._index.find(query, after_key[1] if after_key else None)
            if hits is not None:
                return await self._load_hits(hits), hits.facets
            if after_key is not None:
                raise Unavailable(dependency="search")
        now = self._clock()
        return await _read_page(
            self._database,
            ProductPageRequest(query, _parse_search(query), after_key),
            now,
            lambda reads, request: reads.get_product_page(request, now),
            ProductPageJson(""),
        )

    async def _load_hits(self, hits: SearchHits) -> ProductPageJson:
        async with self._database.read_session() as reads:
            page = await reads.get_products_json(hits.product_ids, self._clock())
        return ProductPageJson(page.json, (_INDEX_CURSOR, hits.after) if hits.after else None)


class FamilyListQueries:
    """Implementation of `FamilySearch`. It always searches in the store."""

    def __init__(
        self, database: ReadDatabase[ReadStore], cache: ProductCache, cursors: Cursors, clock: Clock
    ) -> None:
        self._database = database
        self._cache = cache
        self._cursors = cursors
        self._clock = clock

    async def list_families(self, ctx: CallContext, query: FamilyQuery) -> FamilyPage:
        name = "families:" + query.model_dump_json(exclude={"limit", "cursor", "facets"})
        after_key = self._cursors.decode(name, query.cursor, _FAMILY_KEYSETS[query.effective_sort])
        products, now = query.to_product_query(), self._clock()
        page, facets = await _read_page(
            self._database,
            ProductPageRequest(products, _parse_search(products), after_key),
            now,
            lambda reads, request: reads.get_family_list_page(request, now),
            FamilyListPage(()),
            of_families=True,
        )
        cursor = self._cursors.encode(name, page.last_key) if page.last_key else None
        items = tuple(record.to_view() for record in page.records)
        return FamilyPage(items=items, next_cursor=cursor, facets=facets)

    async def render_family_page(self, ctx: CallContext, query: FamilyQuery) -> RenderedResponse:
        async def load() -> RenderedResponse:
            page = await self.list_families(ctx, query)
            items = ",".join(item.model_dump_json() for item in page.items)
            return _render(PageContent(items, page.facets, page.next_cursor))

        key = f"families {query.model_dump_json(exclude_defaults=True)}"
        return await self._cache.get_or_load_page(key, load, has_counts=bool(query.facets))


async def _read_page(
    database: ReadDatabase[ReadStore],
    request: ProductPageRequest,
    now: datetime,
    read: Callable[[ReadStore, ProductPageRequest], Awaitable[P]],
    empty: P,
    *,
    of_families: bool = False,
) -> tuple[P, Facets | None]:
    """Read a page, and the facets if requested, from the store.

    If the page is empty, look up the category as a path or a name, and read again. If the query has
    several categories, look up all of them before the first read, because a page with products does
    not prove that each text is a key. If the page is still empty, read again with spelling
    suggestions.
    """
    requested = request.query.requested_facets
    if request.search is not None and not request.search.terms:
        return empty, build_facets(requested, {}) if requested else None
    async with database.read_session() as reads:
        if len(request.query.category) > 1:
            request = await _with_named_categories(reads, request) or request
        page = await read(reads, request)
        for change in (_with_named_categories, _with_spelling_suggestions):
            if page.is_empty and (changed := await change(reads, request)) is not None:
                request = changed
                page = await read(reads, request)
        facets = None
        if requested:
            facets = await reads.get_facets(request, now, of_families=of_families)
    return page, facets


async def _with_named_categories(
    reads: ReadStore, request: ProductPageRequest
) -> ProductPageRequest | None:
    """Add the categories that the texts in `query.category` name.

    Return None if the request would not change, because no category is found, or because the texts
    are already the keys of the categories.
    """
    texts = request.query.category
    if not texts or request.named_categories:
        return None
    tree = CategoryTree(await reads.list_category_nodes(label_keys(texts)))
    named = list(dict.fromkeys(chain.from_iterable(map(tree.find, texts))))
    if not named or [category_key(category) for category in named] == request.category_keys:
        return None
    return replace(request, named_categories=named)


async def _with_spelling_suggestions(
    reads: ReadStore, request: ProductPageRequest
) -> ProductPageRequest | None:
    """Add spelling suggestions to the request. Return None if no term has suggestions."""
    if request.search is None:
        return None
    suggestions = await reads.get_spelling_suggestions(request.search)
    if not any(suggestions.values()):
        return None
    return replace(request, search=request.search.with_suggestions(suggestions))


def _parse_search(query: ProductQuery) -> SearchQuery | None:
    return None if query.q is None else SearchQuery.parse(query.q)


def _render(content: PageContent) -> RenderedResponse:
    facets = content.facets.model_dump_json(exclude_none=True) if content.facets else "null"
    cursor = json.dumps(content.next_cursor)
    body = f'{{"items":[{content.json}],"next_cursor":{cursor},"facets":{facets}}}'.encode()
    return RenderedResponse(body, f'"{content_digest(body)}"')
