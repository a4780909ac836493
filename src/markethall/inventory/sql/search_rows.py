"""The list of products in SQL: what the rest of the context sees of the statements."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from markethall.inventory.contract import Facets
from markethall.inventory.domain import WEIGHTS, Search, guesses
from markethall.inventory.ports import Cards, Count, Listing, spread
from markethall.inventory.sql import search as statements
from markethall.inventory.sql.lists import page
from markethall.inventory.sql.product_rows import SqlProducts
from markethall.inventory.sql.vectors import LETTERS, every, one
from markethall.shared.clock import Clock
from markethall.shared.db import Session
from markethall.shared.sql import ContextStatements

# before all products, and after them
_AGES_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)
_NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)
_NO_ID: Final = UUID(int=0)


class Trigrams:
    """Has the server pg_trgm? Asked once per pool: an extension may be there or not."""

    def __init__(self) -> None:
        self._known: bool | None = None

    async def there(self, session: Session) -> bool:
        if self._known is None:
            self._known = bool(await session.value(statements.HAS_TRIGRAMS))
        return self._known


class SqlSearch(SqlProducts):
    """One transaction, or reads without one: products that are looked for."""

    def __init__(
        self, session: Session, common: ContextStatements, clock: Clock, *, trigrams: Trigrams
    ) -> None:
        super().__init__(session, common, clock)
        self._trigrams = trigrams

    async def page(self, listing: Listing, now: datetime) -> Cards:
        query = listing.query
        filters = _filters(listing)
        statement = page(
            filters,
            query.status,
            query.order,
            query.limit,
            after=listing.after is not None,
            terms=len(listing.search.terms) if listing.search else 0,
        )
        values = {**filters, **_terms(listing), **_place(listing)}
        row = await self._session.one(statement, **values, now=now, limit=query.limit)
        if row is None or row["json"] is None:
            return Cards("")
        json, more, *place = row
        return Cards(json, tuple(place) if more else None)

    async def facets(self, listing: Listing, now: datetime) -> Facets:
        filters, kinds = _filters(listing), listing.query.counted
        statement = statements.facets(kinds, filters, listing.query.status)
        counts: dict[str, list[Count]] = {kind: [] for kind in kinds}
        for facet, name, value, count in await self._session.all(statement, **filters, now=now):
            counts[facet].append((name, value, count))
        return spread({kind: sorted(of, key=_rank) for kind, of in counts.items()})

    async def guesses(self, search: Search) -> Mapping[str, Sequence[str]]:
        if not await self._trigrams.there(self._session):
            return {}
        near: dict[str, list[str]] = {}
        for word, candidate in await self._session.all(statements.GUESSES, typed=search.doubtful):
            near.setdefault(word, []).append(candidate)
        return {word: guesses(word, candidates) for word, candidates in near.items()}

    async def cards_of(self, product_ids: Sequence[UUID], now: datetime) -> Cards:
        json = await self._session.value(statements.CARDS, product_ids=list(product_ids), now=now)
        return Cards(json or "")


def _filters(listing: Listing) -> dict[str, Any]:
    """Only those that are set."""
    query = listing.query
    names = ("category", "family", "min_price", "max_price", "in_stock")
    filters = {name: getattr(query, name) for name in names if getattr(query, name) is not None}
    if query.tag is not None:
        filters["tag"] = [query.tag]
    if listing.search is not None:
        filters["words"] = every(listing.search)
    return filters


def _terms(listing: Listing) -> dict[str, Any]:
    """What the score needs."""
    if listing.search is None or listing.query.order != "relevance":
        return {}
    terms = {
        f"{letter}{number}": one(term, letter)
        for number, term in enumerate(listing.search.terms)
        for letter in LETTERS[:-1]
    }
    return {**terms, "top": every(listing.search, LETTERS[0]), "sku": listing.search.sku}


def _place(listing: Listing) -> dict[str, Any]:
    """Where the last page ended; `top`: among those that have all words in their name."""
    if listing.after is None:
        return {}
    *scores, key, product_id = listing.after
    place = {"key": key, "product_id": product_id}
    if not scores or listing.search is None:
        return place
    score, best = scores[0], len(listing.search.terms) * WEIGHTS[0]
    top = (key, product_id) if score == best else (_AGES_AGO if score < best else _NEVER, _NO_ID)
    return {**place, "score": score, "top_key": top[0], "top_product_id": top[1]}


def _rank(count: Count) -> tuple[int, str, str]:
    name, value, number = count
    return -number, name, value
