import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from markethall.inventory.catalogue.domain.search_document import FIELD_WEIGHTS
from markethall.inventory.catalogue.domain.text_keys import find_attribute, find_option, label_key
from markethall.inventory.catalogue.sql.expressions import WEIGHT_LETTERS
from markethall.inventory.catalogue.sql.store import SqlProductStore, family_record_from_row
from markethall.inventory.search.contract import Facets
from markethall.inventory.search.domain import (
    NAMED_FACETS,
    FacetCount,
    FacetPart,
    SearchQuery,
    SearchTerm,
    build_facets,
    spelling_suggestions,
)
from markethall.inventory.search.ports import FamilyListPage, ProductPageJson, ProductPageRequest
from markethall.inventory.search.sql import statements
from markethall.inventory.search.sql.facet_statements import FacetPartShape, count_facets
from markethall.inventory.search.sql.product_page_statements import (
    PAGE_SIZES,
    PageQueryShape,
    family_page_statement,
    product_page_statement,
)
from markethall.shared.composition.sql import ContextStatements
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.postgres import Connection

if TYPE_CHECKING:
    from asyncpg.protocol import Record

# times before and after the `created_at` of all products
_BEFORE_ALL: Final = datetime(1, 1, 1, tzinfo=UTC)
_AFTER_ALL: Final = datetime(9999, 12, 31, tzinfo=UTC)
_MIN_ID: Final = UUID(int=0)


class TrigramSupport:
    """Cached check whether the database has the optional extension pg_trgm."""

    def __init__(self) -> None:
        self._available: bool | None = None

    async def is_available(self, connection: Connection) -> bool:
        if self._available is None:
            self._available = bool(await connection.fetch_value(statements.HAS_TRIGRAMS))
        return self._available


class SqlSearchStore(SqlProductStore):
    def __init__(
        self,
        connection: Connection,
        common: ContextStatements,
        clock: Clock,
        *,
        trigrams: TrigramSupport,
    ) -> None:
        super().__init__(connection, common, clock)
        self._trigrams = trigrams

    async def get_product_page(self, request: ProductPageRequest, now: datetime) -> ProductPageJson:
        statement = product_page_statement(_shape(request))
        row = await self._connection.fetch_one(statement, **_page_values(request), now=now)
        if row is None or row["json"] is None:
            return ProductPageJson("")
        json, more, *key = row
        return ProductPageJson(json, tuple(key) if more else None)

    async def get_family_list_page(
        self, request: ProductPageRequest, now: datetime
    ) -> FamilyListPage:
        limit = request.query.limit
        statement = family_page_statement(_shape(request, of_families=True))
        rows = await self._connection.fetch_all(statement, **_page_values(request), now=now)
        has_more = len(rows) > limit
        return FamilyListPage(
            [family_record_from_row(row) for row in rows[:limit]],
            _sort_key(rows[limit - 1]) if has_more else None,
        )

    async def get_facets(
        self, request: ProductPageRequest, now: datetime, *, of_families: bool
    ) -> Facets:
        parts = request.facet_parts
        shapes, values = _facet_part_shapes(request, parts)
        statement = count_facets(shapes, request.query.status, of_families=of_families)
        counts: dict[str, list[FacetCount]] = {}
        for row in await self._connection.fetch_all(statement, **values, now=now):
            facet = parts[row["part"]].facet
            counts.setdefault(facet, []).append(_facet_count(facet, row))
        return build_facets(request.query.requested_facets, counts)

    async def get_spelling_suggestions(self, search: SearchQuery) -> Mapping[str, Sequence[str]]:
        if not await self._trigrams.is_available(self._connection):
            return {}
        candidates_by_word: dict[str, list[str]] = {}
        for word, candidate in await self._connection.fetch_all(
            statements.GET_SPELLING_CANDIDATES, typed=search.correctable_terms
        ):
            candidates_by_word.setdefault(word, []).append(candidate)
        return {
            word: spelling_suggestions(word, candidates)
            for word, candidates in candidates_by_word.items()
        }

    async def get_products_json(
        self, product_ids: Sequence[UUID], now: datetime
    ) -> ProductPageJson:
        json = await self._connection.fetch_value(
            statements.GET_PRODUCTS_JSON, product_ids=list(product_ids), now=now
        )
        return ProductPageJson(json or "")


def _shape(request: ProductPageRequest, *, of_families: bool = False) -> PageQueryShape:
    query = request.query
    scored = request.search if query.effective_sort == "relevance" else None
    return PageQueryShape(
        filters=frozenset(_filters(request)),
        status=query.status,
        order=query.effective_sort,
        size=next(size for size in PAGE_SIZES if query.limit <= size),
        after=request.after is not None,
        terms=len(scored.terms) if scored else 0,
        of_families=of_families,
    )


def _page_values(request: ProductPageRequest) -> dict[str, Any]:
    values = {**_filters(request), **_score_values(request), **_key_values(request)}
    return values | {"limit": request.query.limit}


def _sort_key(row: "Record") -> tuple[Any, ...]:
    """Return the sort key of the row: the columns before those of `summarize_families`."""
    names = list(row.keys())
    return tuple(row[name] for name in names[: names.index("own_family_id")])


def _filters(request: ProductPageRequest) -> dict[str, Any]:
    """Return the filters that the query sets. The keys are also the names of bind parameters."""
    query = request.query
    names = ("min_price", "max_price", "in_stock")
    filters = {name: getattr(query, name) for name in names if getattr(query, name) is not None}
    if query.family is not None:
        filters["family"] = label_key(query.family)
    if request.category_keys is not None:
        filters["category"] = request.category_keys
    if query.tag:
        filters["tag"] = [label_key(tag) for tag in query.tag]
    for name, keys in (("option", request.option_keys), ("attribute", request.attribute_keys)):
        if keys:
            filters[name] = jsonpath_all(keys)
    if request.search is not None:
        filters["tsquery"] = tsquery_all(request.search)
    return filters


def _score_values(request: ProductPageRequest) -> dict[str, Any]:
    """Return the bind parameters of the scores and the sample, only for the sort by relevance."""
    if request.search is None or request.query.effective_sort != "relevance":
        return {}
    terms = {
        f"{letter}{number}": tsquery_term(term, letter)
        for number, term in enumerate(request.search.terms)
        for letter in WEIGHT_LETTERS[:-1]
    }
    return {
        **terms,
        "name_tsquery": tsquery_all(request.search, WEIGHT_LETTERS[0]),
        "sku": request.search.sku,
    }


def _key_values(request: ProductPageRequest) -> dict[str, Any]:
    """Return the bind parameters of the previous page's last sort key.

    The sort by relevance needs a second cursor for the sample. All products of the sample have the
    same score, `best`: the weight of a name for each term. So this cursor has no score; it depends
    on the last product of the previous page:
    - If the score of that product is `best`, the sample continues after that product.
    - If the score is lower, the sample is empty, because earlier pages have all its products.
    - If the score is higher, because the query is the SKU of that product, the sample starts at
      the beginning of the list.
    """
    if request.after is None:
        return {}
    *scores, key, product_id = request.after
    key_values = {"key": key, "product_id": product_id}
    if not scores or request.search is None:
        return key_values
    score, best = scores[0], len(request.search.terms) * FIELD_WEIGHTS[0]
    if score != best:
        key, product_id = _BEFORE_ALL if score < best else _AFTER_ALL, _MIN_ID
    return {
        **key_values,
        "score": score,
        "name_match_key": key,
        "name_match_product_id": product_id,
    }


def _facet_part_shapes(
    request: ProductPageRequest, parts: Sequence[FacetPart]
) -> tuple[tuple[FacetPartShape, ...], Mapping[str, Any]]:
    """Return the shapes of the parts, and the bind parameters of all of them."""
    shapes: list[FacetPartShape] = []
    values: dict[str, Any] = {}
    for number, part in enumerate(parts):
        filters = _filters(request.without_ignored(part))
        if part.ignored_name and part.ignored in filters:
            filters[f"{part.ignored}_{number}"] = filters.pop(part.ignored)
        values |= filters
        names = part.other_names if part.names is None else part.names
        if names:
            values[f"names_{number}"] = list(names)
        kind = ("other" if part.names is None else "only") if names else ""
        shapes.append(FacetPartShape(part.facet, frozenset(filters), number, kind))
    return tuple(shapes), values


def _facet_count(facet: str, row: "Record") -> FacetCount:
    _, name_key, value_key, count, first, shown = row
    name, value = "", shown or value_key
    if facet in NAMED_FACETS:
        find = find_option if facet == "options" else find_attribute
        name, value = find(json.loads(shown), name_key) or (name_key, value_key)
    return FacetCount(count, name_key, value_key, first, name, value)


# search terms consist of letters, digits and `_`, so they need no escaping in a tsquery
def tsquery_all(search: SearchQuery, letter: str = "") -> str:
    """Return the text of a tsquery for all terms, in fields with the weight label `letter`.

    If `letter` is empty, any field may have the terms.
    """
    return " & ".join(f"({tsquery_term(term, letter)})" for term in search.terms)


def tsquery_term(term: SearchTerm, letter: str = "") -> str:
    """Return the text of a tsquery for one term, in fields with the weight label `letter`.

    If `letter` is empty, any field may have the term.
    """
    if term.suggestions:
        return " | ".join(
            f"'{word}':{letter}" if letter else f"'{word}'" for word in term.suggestions
        )
    return f"'{term.word}':*{letter}"


def jsonpath_all(keys: Mapping[str, Iterable[str]]) -> str:
    """Return a predicate that selects objects with one of the given values for each name."""
    return " && ".join(f"({_jsonpath_any(name, values)})" for name, values in keys.items())


def _jsonpath_any(name: str, values: Iterable[str]) -> str:
    return " || ".join(f"$.{_quote(name)} == {_quote(value)}" for value in values)


def _quote(text: str) -> str:
    # a string literal of a JSON path has the escapes of JSON
    return json.dumps(text, ensure_ascii=False)
