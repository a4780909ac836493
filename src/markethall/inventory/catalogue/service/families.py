"""Families: products that differ by their options, on one page."""

from markethall.inventory.catalogue.contract.products import (
    FamilyNotFound,
    FamilyView,
    RenderedResponse,
)
from markethall.inventory.catalogue.ports.products import ProductCache
from markethall.inventory.search.contract import ProductQuery
from markethall.inventory.search.service import ProductListQueries
from markethall.inventory.store_ports import Database
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.etags import content_digest
from markethall.shared.kernel.pagination import PageQuery


class FamilyQueries:
    """The part of contract.Catalogue that shows families."""

    def __init__(
        self,
        database: Database,
        cache: ProductCache,
        product_lists: ProductListQueries,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._product_lists = product_lists
        self._clock = clock

    async def get_family(self, ctx: CallContext, family: str, query: PageQuery) -> FamilyView:
        async with self._database.read_session() as reads:
            summary = await reads.get_family_summary(family, self._clock())
        if summary is None:
            raise FamilyNotFound(family=family)
        member_query = ProductQuery(
            family=family, sort="name", limit=query.limit, cursor=query.cursor
        )
        page = await self._product_lists.list_products(ctx, member_query)
        return FamilyView(family=family, **vars(summary), **vars(page))

    async def render_family(
        self, ctx: CallContext, family: str, query: PageQuery
    ) -> RenderedResponse:
        async def load() -> RenderedResponse:
            view = await self.get_family(ctx, family, query)
            body = view.model_dump_json().encode()
            return RenderedResponse(body, f'"{content_digest(body)}"')

        key = f"family {query.model_dump_json(exclude_defaults=True)} {family}"
        return await self._cache.get_or_load_page(key, load)
