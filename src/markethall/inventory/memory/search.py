"""The list of products in memory."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from markethall.inventory.contract import MOST_FACET_VALUES, Facets, ProductQuery
from markethall.inventory.domain import Item, Search, Term, guesses, nearest
from markethall.inventory.memory.products import MemoryProducts
from markethall.inventory.memory.stock import is_active
from markethall.inventory.ports import Cards, Listing, spread

Counts = Counter[tuple[str, str]]


class MemorySearch(MemoryProducts):
    """One transaction, or reads without one: products that are looked for."""

    async def page(self, listing: Listing, now: datetime) -> Cards:
        query, after = listing.query, listing.after
        falling = query.order.startswith("-") or query.order == "relevance"
        found = [(self._place(listing, item), item) for item in self._found(listing, now)]
        if after is not None:
            found = [one for one in found if (one[0] < after if falling else one[0] > after)]
        found.sort(key=itemgetter(0), reverse=falling)
        kept = found[: query.limit]
        return Cards(
            ",".join(self._card(item, now).json for _, item in kept),
            kept[-1][0] if len(found) > query.limit else None,
        )

    async def facets(self, listing: Listing, now: datetime) -> Facets:
        items = self._found(listing, now)
        kinds = {kind: Counter(_FACETS[kind](items)) for kind in listing.query.counted}
        return spread({kind: _most(counts) for kind, counts in kinds.items()})

    async def guesses(self, search: Search) -> Mapping[str, Sequence[str]]:
        vocabulary = list(self._tables.vocabulary.rows())
        return {
            word: guesses(word, nearest(word, vocabulary))
            for word in search.doubtful
            if not self._begins_a_word(Term(word))
        }

    async def cards_of(self, product_ids: Sequence[UUID], now: datetime) -> Cards:
        items = (self._tables.items.get(product_id) for product_id in product_ids)
        active = (item for item in items if item is not None and is_active(item))
        return Cards(",".join(self._card(item, now).json for item in active))

    def _found(self, listing: Listing, now: datetime) -> list[Item]:
        search, category = listing.search, listing.query.category
        below = self._below(category) if category is not None else None

        def matches(item: Item) -> bool:
            return (
                (below is None or item.category in below)
                and self._matches(item, listing.query, now)
                and (search is None or self._score(search, item) > 0)
            )

        return self._tables.items.where(matches)

    def _place(self, listing: Listing, item: Item) -> tuple[Any, ...]:
        if listing.query.order == "relevance" and listing.search is not None:
            return self._score(listing.search, item), item.created_at, item.product_id
        return _KEYS[listing.query.order.removeprefix("-")](item), item.product_id

    def _score(self, search: Search, item: Item) -> int:
        text = self._tables.texts.get(item.product_id)
        return search.score(text, item.sku) if text else 0

    def _begins_a_word(self, term: Term) -> bool:
        return any(term.weight_in(text) for text in self._tables.texts.rows())

    def _matches(self, item: Item, query: ProductQuery, now: datetime) -> bool:
        return (
            item.status == query.status
            and query.family in {None, item.family}
            and (query.tag is None or query.tag in item.tags)
            and (query.min_price is None or query.min_price <= item.price.amount)
            and (query.max_price is None or item.price.amount <= query.max_price)
            and (
                query.in_stock is None
                or query.in_stock == (self._available(item.product_id, now) > 0)
            )
        )


_KEYS: Final[Mapping[str, Callable[[Item], Any]]] = {
    "name": lambda item: item.name.lower(),
    "price": lambda item: item.price.amount,
    "created_at": lambda item: item.created_at,
}
_FACETS: Final[Mapping[str, Callable[[Iterable[Item]], Iterable[tuple[str, str]]]]] = {
    "category": lambda items: (("", item.category) for item in items if item.category is not None),
    "options": lambda items: (pair for item in items for pair in item.options.items()),
    "tag": lambda items: (("", tag) for item in items for tag in item.tags),
}


def _most(counts: Counts) -> list[tuple[str, str, int]]:
    """Name, value and count: the most frequent first, then by name and value."""
    order = sorted(counts, key=lambda pair: (-counts[pair], pair))
    return [(*pair, counts[pair]) for pair in order[:MOST_FACET_VALUES]]
