"""Queries of families. A family is a set of products that differ by their options."""

from markethall.inventory.catalogue.contract.products import (
    FamilyNotFound,
    FamilyView,
    RenderedResponse,
)
from markethall.inventory.catalogue.ports import FamilyMembers, ProductCache, ReadStore
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.etags import content_digest
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.database import ReadDatabase


class FamilyQueries:
    """The queries of families. CatalogueService delegates to it."""

    def __init__(
        self,
        database: ReadDatabase[ReadStore],
        cache: ProductCache,
        members: FamilyMembers,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._members = members
        self._clock = clock

    async def get_family(self, ctx: CallContext, family: str, query: PageQuery) -> FamilyView:
        async with self._database.read_session() as reads:
            summary = await reads.get_family_summary(family, self._clock())
        if summary is None:
            raise FamilyNotFound(family=family)
        page = await self._members.list_family_members(ctx, family, query)
        return FamilyView(
            family=family, **vars(summary), items=page.items, next_cursor=page.next_cursor
        )

    async def render_family(
        self, ctx: CallContext, family: str, query: PageQuery
    ) -> RenderedResponse:
        async def load() -> RenderedResponse:
            view = await self.get_family(ctx, family, query)
            body = view.model_dump_json().encode()
            return RenderedResponse(body, f'"{content_digest(body)}"')

        key = f"family {query.model_dump_json(exclude_defaults=True)} {family}"
        return await self._cache.get_or_load_page(key, load)
