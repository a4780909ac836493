"""The statements that read a page of products: one per set of filters, words and size of page."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import aggregate_order_by

from markethall.inventory.contract import ProductStatus
from markethall.inventory.domain import WEIGHTS
from markethall.inventory.sql.categories import BELOW
from markethall.inventory.sql.parameters import LIMIT, available, number
from markethall.inventory.sql.products import SHOWN, card_json
from markethall.inventory.sql.search import matching, score, with_sku
from markethall.inventory.sql.tables import products
from markethall.shared.db import Statement, constant

_SIZES: Final = (20, 50, 100)
# so many products are tried in the order of the list, before all that match are sorted: a common
# word or a big category fills its page from these, and of a rare one there is little to sort
_TRIED: Final = 1000
_KEYS: Final[Mapping[str, "sa.Column[Any]"]] = {
    "name": products.c.name_key,
    "price": products.c.price_amount,
    "created_at": products.c.created_at,
    "relevance": products.c.created_at,
}
_NAMES: Final = ("score", "key", "product_id")


class Shape(NamedTuple):
    """What makes one list's statement another than the next one's.

    `terms`: how many words are weighed; none unless the order is that of relevance.
    """

    filters: frozenset[str]
    status: ProductStatus
    order: str
    size: int
    after: bool
    terms: int

    @property
    def key(self) -> "sa.Column[Any]":
        return _KEYS[self.order.removeprefix("-")]

    @property
    def falling(self) -> bool:
        return self.order.startswith("-") or self.terms > 0

    @property
    def branches(self) -> bool:
        """Has each category its products in this order, less few that do not fit?"""
        others = {"category", "in_stock"} | self._prices
        active = self.status == ProductStatus.ACTIVE
        return active and "category" in self.filters and self.filters <= others

    @property
    def _prices(self) -> set[str]:
        return {"min_price", "max_price"} if self.order.endswith("price") else set()

    @property
    def narrow(self) -> bool:
        """Would a walk in the order of the list meet many products in vain?"""
        walked = {"in_stock"} | self._prices
        return self.status == ProductStatus.ACTIVE and not self.filters <= walked


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
    weighed = terms if order == "relevance" else 0
    return _page(Shape(frozenset(filters), status, order, size, after, weighed))


@cache
def _page(shape: Shape) -> Statement:
    row = _numbered(shape)
    joined = sa.func.string_agg(row.c.json, aggregate_order_by(constant(","), row.c.number))
    last = row.c.number == LIMIT
    keys = [sa.func.max(row.c[name]).filter(last) for name in _NAMES[:-1] if name in row.c]
    return Statement(
        sa.select(
            joined.filter(row.c.number <= LIMIT).label("json"),
            (sa.func.count() > LIMIT).label("more"),
            *keys,
            sa.func.max(sa.cast(row.c.product_id, sa.Text)).filter(last),
        )
    )


def _numbered(shape: Shape) -> "sa.Subquery":
    found = _found(shape)
    shelf = available(found)
    place = sa.func.row_number().over(order_by=_order(shape, _place(found)))
    return (
        sa.select(found, card_json(found, shelf).label("json"), place.label("number"))
        .select_from(found.join(shelf, sa.true()))
        .subquery("numbered")
    )


def _found(shape: Shape) -> "sa.Subquery":
    if shape.branches:
        return _read(_by_category(shape))
    if shape.narrow:
        return _read(_tried_or_all(shape))
    return _read(_all(shape).subquery("best")) if shape.terms else _walked(shape)


def _read(best: "sa.Subquery") -> "sa.Subquery":
    """Only what the page itself shows is read."""
    shown = [column for column in SHOWN if column.name not in best.c]
    return (
        sa.select(best, *shown)
        .join_from(best, products, products.c.product_id == best.c.product_id)
        .subquery("found")
    )


def _walked(shape: Shape) -> "sa.Subquery":
    """One more than the page holds, by an index that has them in order."""
    query = matching(products, shape.filters, *SHOWN, shape.key.label("key"))
    query = _behind(shape, query.where(_status(shape)), [shape.key, products.c.product_id])
    order = _order(shape, [shape.key, products.c.product_id])
    return _cut(shape, query.order_by(*order)).subquery("found")


def _by_category(shape: Shape) -> "sa.Subquery":
    """The first of each category below the one that is asked for, by an index of its own."""
    below = sa.func.unnest(BELOW).table_valued("category").render_derived(name="branch")
    columns = (products.c.product_id, shape.key.label("key"))
    rows = matching(products, shape.filters - {"category"}, *columns).where(
        _status(shape), products.c.category == below.c.category
    )
    rows = _behind(shape, rows, [shape.key, products.c.product_id])
    rows = rows.order_by(*_order(shape, [shape.key, products.c.product_id]))
    first = _cut(shape, rows).correlate(below).lateral("first")
    merged = sa.select(first).select_from(below.join(first, sa.true()))
    return _cut(shape, merged.order_by(*_order(shape, _place(first)))).subquery("best")


def _tried_or_all(shape: Shape) -> "sa.Subquery":
    tried = _tried(shape).cte("tried")
    enough: sa.ColumnElement[bool] = (
        sa.select(sa.func.count() > shape.size).select_from(tried).scalar_subquery()
    )
    if not shape.terms:
        # or those were all that there are, at the end of the list. Looked at in this order
        enough = sa.case((enough, sa.true()), else_=_ending(shape))
    every = _all(shape).where(~enough).subquery("every")
    both = sa.union_all(sa.select(tried).where(enough), sa.select(every))
    return both.subquery("best")


def _tried(shape: Shape) -> "sa.Select[Any]":
    """Some that match, among the first; by relevance: in the name, all words of it.

    None when there are more to come before: one whose SKU was asked for.
    """
    first = _first(shape)
    filters = shape.filters
    columns = [first.c.product_id, first.c.key]
    if shape.terms:
        columns.insert(0, number(shape.terms * WEIGHTS[0]).label("score"))
        filters = filters - {"words"} | {"top"}
    query = matching(first, filters, *columns)
    if shape.terms:
        query = query.where(~sa.exists(with_sku()))
    return _cut(shape, query.order_by(*_order(shape, [first.c.key, first.c.product_id])))


def _first(shape: Shape) -> "sa.Subquery":
    place = [shape.key, products.c.product_id]
    query = sa.select(products, shape.key.label("key")).where(_status(shape))
    query = _behind(shape, query, place, "top_" if shape.terms else "")
    return query.order_by(*_order(shape, place)).limit(number(_TRIED)).subquery("first")


def _ending(shape: Shape) -> "sa.ColumnElement[bool]":
    place = [shape.key, products.c.product_id]
    rest = _behind(shape, sa.select(number(1)).where(_status(shape)), place)
    rest = rest.select_from(products).order_by(*_order(shape, place)).limit(number(_TRIED))
    return (
        sa.select(sa.func.count() < number(_TRIED))
        .select_from(rest.subquery("rest"))
        .scalar_subquery()
    )


def _all(shape: Shape) -> "sa.Select[Any]":
    """All that match, sorted; what is available is asked in that order, until a page is full."""
    columns = [products.c.product_id, shape.key.label("key")]
    if shape.terms:
        columns.insert(0, score(shape.terms).label("score"))
    rows = (
        matching(products, shape.filters - {"in_stock"}, *columns)
        .where(_status(shape))
        # a fence: else all were walked in order, or weighed twice, to compare and to sort
        .offset(number(0))
        .subquery("rows")
    )
    query = _behind(shape, sa.select(rows), _place(rows)).order_by(*_order(shape, _place(rows)))
    if "in_stock" in shape.filters:
        rows = query.offset(number(0)).subquery("in_order")
        query = matching(rows, {"in_stock"}, rows).order_by(*_order(shape, _place(rows)))
    return _cut(shape, query)


def _behind(
    shape: Shape,
    query: "sa.Select[Any]",
    place: "Sequence[sa.ColumnElement[Any]]",
    prefix: str = "",
) -> "sa.Select[Any]":
    """Only what comes after the place where the last page ended."""
    if not shape.after:
        return query
    names = [prefix + name for name in _NAMES[-len(place) :]]
    last = sa.tuple_(
        *(bindparam(name, type_=key.type) for name, key in zip(names, place, strict=True))
    )
    here = sa.tuple_(*place)
    return query.where(here < last if shape.falling else here > last)


def _cut(shape: Shape, query: "sa.Select[Any]") -> "sa.Select[Any]":
    """One more than the page holds."""
    return query.limit(number(shape.size + 1))


def _status(shape: Shape) -> "sa.ColumnElement[bool]":
    return products.c.status == constant(shape.status)


def _place(rows: "sa.FromClause") -> "list[sa.ColumnElement[Any]]":
    return [rows.c[name] for name in _NAMES if name in rows.c]


def _order(shape: Shape, place: "Iterable[sa.ColumnElement[Any]]") -> list[Any]:
    direction = sa.desc if shape.falling else sa.asc
    return [direction(key) for key in place]
