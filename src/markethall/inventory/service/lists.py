"""The list of products: its pages, and how all that match are spread."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.inventory.contract import (
    Facets,
    Product,
    ProductPage,
    ProductQuery,
    ProductStatus,
    Rendered,
)
from markethall.inventory.domain import Item, Search
from markethall.inventory.ports import (
    Cards,
    Database,
    Found,
    Listing,
    ProductCache,
    SearchIndex,
    Shelf,
    spread,
)
from markethall.shared.auth import CATALOGUE_WRITE
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.errors import Forbidden, Unauthenticated, Unavailable
from markethall.shared.pages import Cursors
from markethall.shared.versions import digest

_PRODUCTS: Final = TypeAdapter(tuple[Product, ...])
# stands before a place that is an engine's own
_ENGINE: Final = "engine"


@dataclass(frozen=True)
class Answer:
    """A page: its products as JSON joined by commas."""

    json: str
    facets: Facets | None
    cursor: str | None


class NoSearchIndex:
    """A ports.SearchIndex: there is no engine outside, the store finds products itself."""

    async def find(self, query: ProductQuery, after: str | None) -> Found | None:  # noqa: ARG002 - the port
        return None

    async def tell(self, items: Sequence[Item]) -> None:
        pass


class ProductLists:
    """The part of contract.Catalogue that lists and searches."""

    def __init__(
        self,
        database: Database,
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

    async def products(self, call: Call, query: ProductQuery) -> ProductPage:
        answer = await self._answer(call, query)
        items = _PRODUCTS.validate_json(f"[{answer.json}]")
        return ProductPage(items=items, next_cursor=answer.cursor, facets=answer.facets)

    async def page_body(self, call: Call, query: ProductQuery) -> Rendered:
        async def load() -> Rendered:
            return _rendered(await self._answer(call, query))

        if query.status == ProductStatus.ACTIVE:
            key = query.model_dump_json(exclude_defaults=True)
            return await self._cache.page(key, load, counted=bool(query.facets))
        page = await load()
        return Rendered(page.body, page.etag, public=False)

    async def tell(self, items: Sequence[Item]) -> None:
        """The engine outside, of what is new or has changed."""
        await self._index.tell(items)

    async def _answer(self, call: Call, query: ProductQuery) -> Answer:
        """Raises CursorInvalid, Unauthenticated, Forbidden, Unavailable."""
        if query.status != ProductStatus.ACTIVE and not call.actor.may(CATALOGUE_WRITE):
            if call.actor.known_as == "anonymous":
                raise Unauthenticated(reason="missing")
            raise Forbidden(scope=CATALOGUE_WRITE)
        name = "products:" + query.model_dump_json(exclude={"limit", "cursor", "facets"})
        position = self._cursors.decode(name, query.cursor)
        cards, facets = await self._read(query, position)
        cursor = self._cursors.encode(name, _position(cards.last)) if cards.last else None
        return Answer(cards.json, facets if query.facets else None, cursor)

    async def _read(
        self, query: ProductQuery, position: list[Any] | None
    ) -> tuple[Cards, Facets | None]:
        """Who began a list goes on with it: the engine outside, or the store itself."""
        if query.q is not None and (position is None or position[0] == _ENGINE):
            found = await self._index.find(query, position[1] if position else None)
            if found is not None:
                return await self._cards_of(found), found.facets
            if position is not None:
                raise Unavailable(dependency="search")
        return await self._here(Listing(query, _search(query), _place(query, position)))

    async def _cards_of(self, found: Found) -> Cards:
        async with self._database.reading() as shelf:
            cards = await shelf.cards_of(found.product_ids, self._clock())
        return Cards(cards.json, (_ENGINE, found.after) if found.after else None)

    async def _here(self, listing: Listing) -> tuple[Cards, Facets | None]:
        """By the store itself. A search that finds nothing is read once more as it was meant."""
        if listing.search is not None and not listing.search.terms:
            return Cards(""), spread(dict.fromkeys(listing.query.counted, ()))
        now = self._clock()
        async with self._database.reading() as shelf:
            cards = await shelf.page(listing, now)
            if not cards.json and (meant := await _meant(shelf, listing)) is not None:
                listing = meant
                cards = await shelf.page(listing, now)
            facets = await shelf.facets(listing, now) if listing.query.counted else None
        return cards, facets


async def _meant(shelf: Shelf, listing: Listing) -> Listing | None:
    """None when no word of the query seems to be mistyped."""
    if listing.search is None:
        return None
    guesses = await shelf.guesses(listing.search)
    if not any(guesses.values()):
        return None
    return replace(listing, search=listing.search.instead(guesses))


def _search(query: ProductQuery) -> Search | None:
    return None if query.q is None else Search.of(query.q)


def _rendered(answer: Answer) -> Rendered:
    facets = answer.facets.model_dump_json(exclude_none=True) if answer.facets else "null"
    cursor = json.dumps(answer.cursor)
    body = f'{{"items":[{answer.json}],"next_cursor":{cursor},"facets":{facets}}}'.encode()
    return Rendered(body, f'"{digest(body)}"')


def _position(last: tuple[Any, ...]) -> list[Any]:
    """A place as JSON."""
    return [_plain(part) for part in last]


def _plain(part: Any) -> Any:
    if isinstance(part, datetime):
        return part.isoformat()
    return str(part) if isinstance(part, UUID) else part


def _place(query: ProductQuery, position: list[Any] | None) -> tuple[Any, ...] | None:
    """What the sort compares, as `_position` has told it."""
    if position is None:
        return None
    *scores, key, product_id = position
    by_time = query.order in {"relevance", "-created_at"}
    return (*scores, datetime.fromisoformat(key) if by_time else key, UUID(product_id))
