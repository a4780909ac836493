"""The statements that read a page of products: one per set of filters, words and size of page."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import aggregate_order_by

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.domain.search_document import FIELD_WEIGHTS
from markethall.inventory.catalogue.sql.availability import available_quantity
from markethall.inventory.catalogue.sql.category_statements import SUBTREE
from markethall.inventory.catalogue.sql.parameters import LIMIT, integer_literal
from markethall.inventory.catalogue.sql.statements import PAGE_COLUMNS, product_json_text
from markethall.inventory.catalogue.sql.tables import products
from markethall.inventory.search.sql.statements import (
    score_expression,
    select_by_sku,
    select_matching,
)
from markethall.shared.persistence.postgres import Statement, sql_literal

_PAGE_SIZES: Final = (20, 50, 100)
# so many products are tried in the order of the list, before all that match are sorted: a common
# word or a big category fills its page from these, and of a rare one there is little to sort
_SAMPLE_SIZE: Final = 1000
_SORT_COLUMNS: Final[Mapping[str, "sa.Column[Any]"]] = {
    "name": products.c.name_key,
    "price": products.c.price_amount,
    "created_at": products.c.created_at,
    "relevance": products.c.created_at,
}
_KEY_NAMES: Final = ("score", "key", "product_id")


class PageQueryShape(NamedTuple):
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
    def sort_column(self) -> "sa.Column[Any]":
        return _SORT_COLUMNS[self.order.removeprefix("-")]

    @property
    def is_descending(self) -> bool:
        return self.order.startswith("-") or self.terms > 0

    @property
    def uses_category_index(self) -> bool:
        """Has each category its products in this order, less few that do not fit?"""
        others = {"category", "in_stock"} | self._price_filters
        active = self.status == ProductStatus.ACTIVE
        return active and "category" in self.filters and self.filters <= others

    @property
    def _price_filters(self) -> set[str]:
        return {"min_price", "max_price"} if self.order.endswith("price") else set()

    @property
    def is_selective(self) -> bool:
        """Would a walk in the order of the list meet many products in vain?"""
        walked = {"in_stock"} | self._price_filters
        return self.status == ProductStatus.ACTIVE and not self.filters <= walked


def product_page_statement(
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
    size = next(size for size in _PAGE_SIZES if limit <= size)
    weighed = terms if order == "relevance" else 0
    return _build_page_statement(
        PageQueryShape(frozenset(filters), status, order, size, after, weighed)
    )


@cache
def _build_page_statement(shape: PageQueryShape) -> Statement:
    row = _numbered(shape)
    joined = sa.func.string_agg(row.c.json, aggregate_order_by(sql_literal(","), row.c.number))
    last = row.c.number == LIMIT
    keys = [sa.func.max(row.c[name]).filter(last) for name in _KEY_NAMES[:-1] if name in row.c]
    return Statement(
        sa.select(
            joined.filter(row.c.number <= LIMIT).label("json"),
            (sa.func.count() > LIMIT).label("more"),
            *keys,
            sa.func.max(sa.cast(row.c.product_id, sa.Text)).filter(last),
        )
    )


def _numbered(shape: PageQueryShape) -> "sa.Subquery":
    rows = _found_rows(shape)
    availability = available_quantity(rows)
    sort_key = sa.func.row_number().over(order_by=_order_by(shape, _key_columns(rows)))
    return (
        sa.select(
            rows, product_json_text(rows, availability).label("json"), sort_key.label("number")
        )
        .select_from(rows.join(availability, sa.true()))
        .subquery("numbered")
    )


def _found_rows(shape: PageQueryShape) -> "sa.Subquery":
    if shape.uses_category_index:
        return _with_page_columns(_by_category(shape))
    if shape.is_selective:
        return _with_page_columns(_sample_or_full_scan(shape))
    return (
        _with_page_columns(_full_scan(shape).subquery("best"))
        if shape.terms
        else _index_scan(shape)
    )


def _with_page_columns(best: "sa.Subquery") -> "sa.Subquery":
    """Only what the page itself shows is read."""
    shown = [column for column in PAGE_COLUMNS if column.name not in best.c]
    return (
        sa.select(best, *shown)
        .join_from(best, products, products.c.product_id == best.c.product_id)
        .subquery("found")
    )


def _index_scan(shape: PageQueryShape) -> "sa.Subquery":
    """One more than the page holds, by an index that has them in order."""
    query = select_matching(products, shape.filters, *PAGE_COLUMNS, shape.sort_column.label("key"))
    query = _after_cursor(
        shape, query.where(_has_status(shape)), [shape.sort_column, products.c.product_id]
    )
    order = _order_by(shape, [shape.sort_column, products.c.product_id])
    return _limit_plus_one(shape, query.order_by(*order)).subquery("found")


def _by_category(shape: PageQueryShape) -> "sa.Subquery":
    """The first of each category below the one that is asked for, by an index of its own."""
    category_keys = (
        sa.func.unnest(SUBTREE).table_valued("category").render_derived(name="category_key")
    )
    columns = (products.c.product_id, shape.sort_column.label("key"))
    rows = select_matching(products, shape.filters - {"category"}, *columns).where(
        _has_status(shape), products.c.category == category_keys.c.category
    )
    rows = _after_cursor(shape, rows, [shape.sort_column, products.c.product_id])
    rows = rows.order_by(*_order_by(shape, [shape.sort_column, products.c.product_id]))
    first = _limit_plus_one(shape, rows).correlate(category_keys).lateral("first")
    merged = sa.select(first).select_from(category_keys.join(first, sa.true()))
    return _limit_plus_one(shape, merged.order_by(*_order_by(shape, _key_columns(first)))).subquery(
        "best"
    )


def _sample_or_full_scan(shape: PageQueryShape) -> "sa.Subquery":
    sample = _sample(shape).cte("sample")
    is_sample_enough: sa.ColumnElement[bool] = (
        sa.select(sa.func.count() > shape.size).select_from(sample).scalar_subquery()
    )
    if not shape.terms:
        # or those were all that there are, at the end of the list. Looked at in this order
        is_sample_enough = sa.case((is_sample_enough, sa.true()), else_=_reached_end(shape))
    all_rows = _full_scan(shape).where(~is_sample_enough).subquery("all_rows")
    united = sa.union_all(sa.select(sample).where(is_sample_enough), sa.select(all_rows))
    return united.subquery("best")


def _sample(shape: PageQueryShape) -> "sa.Select[Any]":
    """Some that match, among the first; by relevance: in the name, all words of it.

    None when there are more to come before: one whose SKU was asked for.
    """
    first = _first_in_order(shape)
    filters = shape.filters
    columns = [first.c.product_id, first.c.key]
    if shape.terms:
        columns.insert(0, integer_literal(shape.terms * FIELD_WEIGHTS[0]).label("score"))
        filters = filters - {"tsquery"} | {"name_tsquery"}
    query = select_matching(first, filters, *columns)
    if shape.terms:
        query = query.where(~sa.exists(select_by_sku()))
    return _limit_plus_one(
        shape, query.order_by(*_order_by(shape, [first.c.key, first.c.product_id]))
    )


def _first_in_order(shape: PageQueryShape) -> "sa.Subquery":
    key_columns = [shape.sort_column, products.c.product_id]
    query = sa.select(products, shape.sort_column.label("key")).where(_has_status(shape))
    query = _after_cursor(shape, query, key_columns, "name_match_" if shape.terms else "")
    return (
        query.order_by(*_order_by(shape, key_columns))
        .limit(integer_literal(_SAMPLE_SIZE))
        .subquery("first")
    )


def _reached_end(shape: PageQueryShape) -> "sa.ColumnElement[bool]":
    key_columns = [shape.sort_column, products.c.product_id]
    rest = _after_cursor(
        shape, sa.select(integer_literal(1)).where(_has_status(shape)), key_columns
    )
    rest = (
        rest.select_from(products)
        .order_by(*_order_by(shape, key_columns))
        .limit(integer_literal(_SAMPLE_SIZE))
    )
    return (
        sa.select(sa.func.count() < integer_literal(_SAMPLE_SIZE))
        .select_from(rest.subquery("rest"))
        .scalar_subquery()
    )


def _full_scan(shape: PageQueryShape) -> "sa.Select[Any]":
    """All that match, sorted; what is available is asked in that order, until a page is full."""
    columns = [products.c.product_id, shape.sort_column.label("key")]
    if shape.terms:
        columns.insert(0, score_expression(shape.terms).label("score"))
    rows = (
        select_matching(products, shape.filters - {"in_stock"}, *columns)
        .where(_has_status(shape))
        # a fence: else all were walked in order, or weighed twice, to compare and to sort
        .offset(integer_literal(0))
        .subquery("rows")
    )
    query = _after_cursor(shape, sa.select(rows), _key_columns(rows)).order_by(
        *_order_by(shape, _key_columns(rows))
    )
    if "in_stock" in shape.filters:
        rows = query.offset(integer_literal(0)).subquery("in_order")
        query = select_matching(rows, {"in_stock"}, rows).order_by(
            *_order_by(shape, _key_columns(rows))
        )
    return _limit_plus_one(shape, query)


def _after_cursor(
    shape: PageQueryShape,
    query: "sa.Select[Any]",
    key_columns: "Sequence[sa.ColumnElement[Any]]",
    prefix: str = "",
) -> "sa.Select[Any]":
    """Only what comes after the place where the last page ended."""
    if not shape.after:
        return query
    names = [prefix + name for name in _KEY_NAMES[-len(key_columns) :]]
    after_key = sa.tuple_(
        *(bindparam(name, type_=key.type) for name, key in zip(names, key_columns, strict=True))
    )
    current_key = sa.tuple_(*key_columns)
    return query.where(current_key < after_key if shape.is_descending else current_key > after_key)


def _limit_plus_one(shape: PageQueryShape, query: "sa.Select[Any]") -> "sa.Select[Any]":
    """One more than the page holds."""
    return query.limit(integer_literal(shape.size + 1))


def _has_status(shape: PageQueryShape) -> "sa.ColumnElement[bool]":
    return products.c.status == sql_literal(shape.status)


def _key_columns(rows: "sa.FromClause") -> "list[sa.ColumnElement[Any]]":
    return [rows.c[name] for name in _KEY_NAMES if name in rows.c]


def _order_by(shape: PageQueryShape, key_columns: "Iterable[sa.ColumnElement[Any]]") -> list[Any]:
    direction = sa.desc if shape.is_descending else sa.asc
    return [direction(key) for key in key_columns]
