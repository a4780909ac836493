"""Families: products that differ by their options, on one page."""

from markethall.inventory.contract import Family, FamilyNotFound, ProductQuery, Rendered
from markethall.inventory.ports import Database, ProductCache
from markethall.inventory.service.lists import ProductLists
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.pages import PageQuery
from markethall.shared.versions import digest


class FamilyPages:
    """The part of contract.Catalogue that shows families."""

    def __init__(
        self, database: Database, cache: ProductCache, lists: ProductLists, clock: Clock
    ) -> None:
        self._database = database
        self._cache = cache
        self._lists = lists
        self._clock = clock

    async def family(self, call: Call, family: str, query: PageQuery) -> Family:
        async with self._database.reading() as shelf:
            facts = await shelf.family(family, self._clock())
        if facts is None:
            raise FamilyNotFound(family=family)
        members = ProductQuery(family=family, sort="name", limit=query.limit, cursor=query.cursor)
        page = await self._lists.products(call, members)
        return Family(family=family, **vars(facts), **vars(page))

    async def body(self, call: Call, family: str, query: PageQuery) -> Rendered:
        async def load() -> Rendered:
            found = await self.family(call, family, query)
            body = found.model_dump_json().encode()
            return Rendered(body, f'"{digest(body)}"')

        key = f"family {query.model_dump_json(exclude_defaults=True)} {family}"
        return await self._cache.page(key, load)
