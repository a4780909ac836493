"""Statements on the list of products: one per set of filters, words and size of page."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY, aggregate_order_by

from markethall.inventory.contract import MOST_FACET_VALUES, ProductStatus
from markethall.inventory.domain import CANDIDATES, EXACT_SKU, MOST_SLIPS, WEIGHTS
from markethall.inventory.sql.parameters import LIMIT, available
from markethall.inventory.sql.products import card_json
from markethall.inventory.sql.tables import ACTIVE, products, vocabulary
from markethall.inventory.sql.vectors import LETTERS
from markethall.shared.db import Statement, constant

_shelf: Final = available(products)
_FILTERS: Final[Mapping[str, "sa.ColumnElement[bool]"]] = {
    "category": products.c.category == bindparam("category"),
    "family": products.c.family == bindparam("family"),
    "tag": products.c.tags.contains(bindparam("tag", type_=ARRAY(sa.Text))),
    "min_price": products.c.price_amount >= bindparam("min_price"),
    "max_price": products.c.price_amount <= bindparam("max_price"),
    "in_stock": (_shelf.c.available > 0) == bindparam("in_stock", type_=sa.Boolean),
    "words": products.c.search.op("@@")(bindparam("words", type_=TSQUERY)),
}
_SIZES: Final = (20, 50, 100)
_KEYS: Final[Mapping[str, "sa.Column[Any]"]] = {
    "name": products.c.name_key,
    "price": products.c.price_amount,
    "created_at": products.c.created_at,
}


class Shape(NamedTuple):
    """What makes one list's statement another than the next one's. `terms`: how many words."""

    filters: frozenset[str]
    status: ProductStatus
    order: str
    size: int
    after: bool
    terms: int

    @property
    def falling(self) -> bool:
        return self.order.startswith("-") or self.order == "relevance"


def page(
    filters: Iterable[str],
    status: ProductStatus,
    order: str,
    limit: int,
    *,
    after: bool,
    terms: int,
) -> Statement:
    """A page in one row: its cards' JSON joined by commas, is there more, where it ends.

    One statement per set of filters and size of page, so that Postgres sees just what is asked,
    and plans it once: with a limit that it does not know it would plan anew each time.
    """
    size = next(size for size in _SIZES if limit <= size)
    scored = terms if order == "relevance" else 0
    return _page(Shape(frozenset(filters), status, order, size, after, scored))


@cache
def _page(shape: Shape) -> Statement:
    row = _numbered(shape)
    joined = sa.func.string_agg(row.c.json, aggregate_order_by(constant(","), row.c.number))
    last = row.c.number == LIMIT
    return Statement(
        sa.select(
            joined.filter(row.c.number <= LIMIT).label("json"),
            (sa.func.count() > LIMIT).label("more"),
            *(
                sa.func.max(row.c[name]).filter(last).label(name)
                for name in ("score", "key")
                if name in row.c
            ),
            sa.func.max(sa.cast(row.c.product_id, sa.Text)).filter(last).label("id"),
        )
    )


def _numbered(shape: Shape) -> "sa.Subquery":
    found = _best(shape) if shape.terms else _found(shape)
    shelf = available(found)
    number = sa.func.row_number().over(order_by=_order(shape, _place(found)))
    return (
        sa.select(found, card_json(found.c.face, shelf).label("json"), number.label("number"))
        .select_from(found.join(shelf, sa.true()))
        .subquery("numbered")
    )


def _found(shape: Shape) -> "sa.Subquery":
    """One more than the page holds. What is available is asked here only to filter by it."""
    key = _KEYS[shape.order.removeprefix("-")]
    query = _matching(shape, products.c.product_id, products.c.face, key.label("key"))
    return _cut(shape, query, [key, products.c.product_id]).subquery("found")


def _best(shape: Shape) -> "sa.Subquery":
    """As _found, by score: all that match are weighed, and only the page's own are read."""
    weighed = (
        _matching(
            shape,
            products.c.product_id,
            products.c.created_at.label("key"),
            _score(shape.terms).label("score"),
        )
        # a fence: else the score would be reckoned once to compare, and again to sort
        .offset(sa.literal_column("0", sa.Integer))
        .subquery("weighed")
    )
    best = _cut(shape, sa.select(weighed), _place(weighed)).subquery("best")
    return (
        sa.select(best, products.c.face)
        .join_from(best, products, products.c.product_id == best.c.product_id)
        .subquery("found")
    )


def _matching(shape: Shape, *columns: "sa.ColumnElement[Any]") -> "sa.Select[Any]":
    query = sa.select(*columns)
    if "in_stock" in shape.filters:
        query = query.select_from(products.join(_shelf, sa.true()))
    query = query.where(products.c.status == constant(shape.status))
    return query.where(*(_FILTERS[name] for name in sorted(shape.filters)))


def _cut(
    shape: Shape, query: "sa.Select[Any]", place: "list[sa.ColumnElement[Any]]"
) -> "sa.Select[Any]":
    if shape.after:
        names = ("score", "key", "id")[-len(place) :]
        last = sa.tuple_(
            *(bindparam(name, type_=key.type) for name, key in zip(names, place, strict=True))
        )
        here = sa.tuple_(*place)
        query = query.where(here < last if shape.falling else here > last)
    size = sa.literal_column(str(shape.size + 1), sa.Integer)
    return query.order_by(*_order(shape, place)).limit(size)


def _place(rows: "sa.Subquery") -> "list[sa.ColumnElement[Any]]":
    return [rows.c[name] for name in ("score", "key", "product_id") if name in rows.c]


def _order(shape: Shape, place: "Iterable[sa.ColumnElement[Any]]") -> list[Any]:
    direction = sa.desc if shape.falling else sa.asc
    return [direction(key) for key in place]


def _score(terms: int) -> "sa.ColumnElement[int]":
    """domain.Search.score of a product that has all the terms."""
    exact = sa.func.lower(products.c.sku) == bindparam("sku", type_=sa.Text)
    bonus: sa.ColumnElement[int] = sa.case((exact, _number(EXACT_SKU)), else_=_number(0))
    return sum((_weight(term) for term in range(terms)), start=bonus)


def _weight(term: int) -> "sa.ColumnElement[int]":
    *better, least = zip(LETTERS, WEIGHTS, strict=True)
    return sa.case(
        *(
            (
                products.c.search.op("@@")(bindparam(f"{letter}{term}", type_=TSQUERY)),
                _number(weight),
            )
            for letter, weight in better
        ),
        else_=_number(least[1]),
    )


def _number(number: int) -> "sa.ColumnElement[int]":
    return sa.literal_column(str(number), sa.Integer)


# Facets


def facets(kinds: Iterable[str], filters: Iterable[str], status: ProductStatus) -> Statement:
    """How all that match are spread: facet, name, value, count; the most frequent first."""
    return _facets(tuple(sorted(kinds)), Shape(frozenset(filters), status, "", 0, False, 0))


@cache
def _facets(kinds: tuple[str, ...], shape: Shape) -> Statement:
    columns = (products.c.category, products.c.options, products.c.tags)
    matched = _matching(shape, *columns).cte("matched")
    return Statement(sa.union_all(*(_counted(kind, matched) for kind in kinds)))


def _counted(kind: str, matched: "sa.CTE") -> "sa.Select[Any]":
    values = _values(kind, matched)
    # as text of the collation C: the same order on every server, and in memory
    name, value = (sa.collate(values.c[part], "C") for part in ("name", "value"))
    count = sa.func.count()
    most = (
        sa.select(name.label("name"), value.label("value"), count.label("count"))
        .group_by(name, value)
        .order_by(count.desc(), name, value)
        .limit(_number(MOST_FACET_VALUES))
        .subquery(f"most_{kind}")
    )
    return sa.select(constant(kind).label("facet"), most)


def _values(kind: str, matched: "sa.CTE") -> "sa.Subquery":
    nothing = constant("").label("name")
    if kind == "category":
        query = sa.select(nothing, matched.c.category.label("value")).where(
            matched.c.category.is_not(None)
        )
    elif kind == "tag":
        query = sa.select(nothing, sa.func.unnest(matched.c.tags).label("value"))
    else:
        pair = sa.func.jsonb_each_text(matched.c.options).table_valued("key", "value")
        pair = pair.render_derived(name="pair")
        query = sa.select(pair.c.key.label("name"), pair.c.value).select_from(
            sa.join(matched, pair, sa.true())
        )
    return query.subquery(f"values_{kind}")


# Words that were mistyped

HAS_TRIGRAMS: Final = Statement(
    sa.select(sa.func.to_regprocedure(constant("similarity(text, text)")).is_not(None))
)


def _guesses() -> Statement:
    """For each word that begins no word of a product, those with the most trigrams in common."""
    typed = sa.func.unnest(bindparam("typed", type_=ARRAY(sa.Text))).table_valued("word")
    typed = typed.render_derived(name="typed")
    word = sa.type_coerce(typed.c.word, sa.Text)
    begins = sa.cast(constant("''") + word + constant("'':*"), TSQUERY)
    known = sa.exists().where(products.c.search.op("@@")(begins)).correlate(typed)
    slips = sa.func.abs(sa.func.length(vocabulary.c.word) - sa.func.length(word))
    near = (
        sa.select(vocabulary.c.word)
        .where(slips <= _number(MOST_SLIPS))
        .order_by(sa.func.similarity(vocabulary.c.word, word).desc(), vocabulary.c.word)
        .limit(_number(CANDIDATES))
        .correlate(typed)
        .lateral("near")
    )
    return Statement(
        sa.select(word.label("typed"), near.c.word.label("near"))
        .select_from(typed.join(near, sa.true()))
        .where(~known)
    )


GUESSES: Final = _guesses()


# An engine outside has found them


def _cards() -> Statement:
    ids = sa.func.unnest(bindparam("product_ids", type_=ARRAY(sa.Uuid)))
    wanted = ids.table_valued("product_id", with_ordinality="number").render_derived(name="wanted")
    card = card_json(products.c.face, _shelf)
    joined = sa.func.string_agg(card, aggregate_order_by(constant(","), wanted.c.number))
    return Statement(
        sa.select(joined)
        .select_from(
            wanted.join(products, products.c.product_id == wanted.c.product_id).join(
                _shelf, sa.true()
            )
        )
        .where(products.c.status == ACTIVE)
    )


CARDS: Final = _cards()
