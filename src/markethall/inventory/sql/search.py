"""Statements that find products: by filters and by words, counted, guessed."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY, aggregate_order_by

from markethall.inventory.contract import MOST_FACET_VALUES, ProductStatus
from markethall.inventory.domain import CANDIDATES, EXACT_SKU, MOST_SLIPS, WEIGHTS
from markethall.inventory.sql.categories import BELOW
from markethall.inventory.sql.parameters import available, number
from markethall.inventory.sql.products import card_json
from markethall.inventory.sql.tables import ACTIVE, products, vocabulary
from markethall.inventory.sql.vectors import LETTERS
from markethall.shared.db import Statement, constant

# products, or some of them
Rows = "sa.Table | sa.Subquery"

_FILTERS: Final[Mapping[str, Callable[[Any], "sa.ColumnElement[bool]"]]] = {
    "category": lambda rows: rows.c.category == sa.any_(BELOW),
    "family": lambda rows: rows.c.family == bindparam("family"),
    "tag": lambda rows: rows.c.tags.contains(bindparam("tag", type_=ARRAY(sa.Text))),
    "min_price": lambda rows: rows.c.price_amount >= bindparam("min_price"),
    "max_price": lambda rows: rows.c.price_amount <= bindparam("max_price"),
    "words": lambda rows: matches(rows, "words"),
    "top": lambda rows: matches(rows, "top"),
}


def matching(rows: Any, filters: Iterable[str], *columns: Any) -> "sa.Select[Any]":
    """The rows that fit. What is available is asked here only to filter by it."""
    query = sa.select(*columns)
    if "in_stock" in filters:
        shelf = available(rows)
        query = query.select_from(rows.join(shelf, sa.true()))
        wanted = bindparam("in_stock", type_=sa.Boolean)
        query = query.where((shelf.c.available > number(0)) == wanted)
    return query.where(*(_FILTERS[name](rows) for name in sorted(filters) if name in _FILTERS))


def matches(rows: Any, name: str) -> "sa.ColumnElement[bool]":
    return sa.type_coerce(rows.c.search.op("@@")(bindparam(name, type_=TSQUERY)), sa.Boolean)


def with_sku() -> "sa.Select[tuple[Any]]":
    """The one product whose SKU is the whole query."""
    whole = sa.func.lower(products.c.sku) == bindparam("sku", type_=sa.Text)
    return sa.select(products.c.product_id).where(whole).correlate(None)


def score(terms: int) -> "sa.ColumnElement[int]":
    """domain.Search.score of a product that has all the terms."""
    exact = products.c.product_id == with_sku().scalar_subquery()
    bonus: sa.ColumnElement[int] = sa.case((exact, number(EXACT_SKU)), else_=number(0))
    return sum((_weight(term) for term in range(terms)), start=bonus)


def _weight(term: int) -> "sa.ColumnElement[int]":
    *better, (_, least) = zip(LETTERS, WEIGHTS, strict=True)
    return sa.case(
        *((matches(products, f"{letter}{term}"), number(weight)) for letter, weight in better),
        else_=number(least),
    )


# Facets


def facets(kinds: Iterable[str], filters: Iterable[str], status: ProductStatus) -> Statement:
    """How all that match are spread: facet, name, value, count; the most frequent first."""
    return _facets(tuple(sorted(kinds)), frozenset(filters), status)


@cache
def _facets(kinds: tuple[str, ...], filters: frozenset[str], status: ProductStatus) -> Statement:
    # not one common table: of a large catalogue that would go to the disk
    return Statement(sa.union_all(*(_counted(kind, filters, status) for kind in kinds)))


def _counted(kind: str, filters: frozenset[str], status: ProductStatus) -> "sa.Select[Any]":
    values = _values(kind, filters, status)
    # as text of the collation C: the same order on every server, and in memory
    name, value = (sa.collate(values.c[part], "C") for part in ("name", "value"))
    count = sa.func.count()
    most = (
        sa.select(name.label("name"), value.label("value"), count.label("count"))
        .where(value.is_not(None))
        .group_by(name, value)
        .order_by(count.desc(), name, value)
        .limit(number(MOST_FACET_VALUES))
        .subquery(f"most_{kind}")
    )
    return sa.select(constant(kind).label("facet"), most)


def _values(kind: str, filters: frozenset[str], status: ProductStatus) -> "sa.Subquery":
    """The name, of an option, and the values of each product that matches."""
    columns = (products.c.category, products.c.options, products.c.tags)
    some = matching(products, filters, *columns).where(products.c.status == constant(status))
    matched = some.subquery("matched")
    name = constant("").label("name")
    if kind == "category":
        query = sa.select(name, matched.c.category.label("value"))
    elif kind == "tag":
        query = sa.select(name, sa.func.unnest(matched.c.tags).label("value"))
    else:
        pairs = sa.func.jsonb_each_text(matched.c.options).table_valued("name", "value")
        pair = pairs.render_derived(name="pair")
        query = sa.select(pair.c.name, pair.c.value).select_from(matched.join(pair, sa.true()))
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
        .where(slips <= number(MOST_SLIPS))
        .order_by(sa.func.similarity(vocabulary.c.word, word).desc(), vocabulary.c.word)
        .limit(number(CANDIDATES))
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
    shelf = available(products)
    card = card_json(products, shelf)
    joined = sa.func.string_agg(card, aggregate_order_by(constant(","), wanted.c.number))
    return Statement(
        sa.select(joined)
        .select_from(
            wanted.join(products, products.c.product_id == wanted.c.product_id).join(
                shelf, sa.true()
            )
        )
        .where(products.c.status == ACTIVE)
    )


CARDS: Final = _cards()
