"""SQL statements that read a page of products, one for each `PageQueryShape`.

A statement reads a page in one of two ways. If an index has the products in list order and nearly
all of them match, the statement scans the index until the page is full. Otherwise it filters a
sample, the first 1,000 products in list order. If the matches in the sample do not fill the page,
it selects and sorts all matching products.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import aggregate_order_by

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.domain.search_document import FIELD_WEIGHTS
from markethall.inventory.catalogue.sql.category_store import SUBTREE
from markethall.inventory.catalogue.sql.expressions import (
    LIMIT,
    available_quantity,
    integer_literal,
)
from markethall.inventory.catalogue.sql.family_statements import summarize_families
from markethall.inventory.catalogue.sql.statements import PAGE_COLUMNS, product_json_text
from markethall.inventory.catalogue.sql.tables import products
from markethall.inventory.search.sql.statements import (
    is_first_of_family,
    score_expression,
    select_by_sku,
    select_matching,
)
from markethall.shared.persistence.postgres import Statement, sql_literal

# The limit of a page is rounded up to one of these sizes, which is a literal in the statement. With
# a bind parameter, Postgres would plan the statement at each execution.
PAGE_SIZES: Final = (20, 50, 100)
# The number of products in a sample. If the search words are frequent, the matches in the sample
# fill a page. If they are rare, the statement selects all matches, which are few.
_SAMPLE_SIZE: Final = 1000
_SORT_COLUMNS: Final[Mapping[str, "sa.Column[Any]"]] = {
    "name": products.c.name_key,
    "price": products.c.price_amount,
    "created_at": products.c.created_at,
    "relevance": products.c.created_at,
}
_KEY_NAMES: Final = ("score", "key", "product_id")
# Clients can choose among thousands of shapes. A client that requests all of them evicts other
# statements, which are then built again, but the memory of the cache stays limited.
_MAX_CACHED_STATEMENTS: Final = 256


class PageQueryShape(NamedTuple):
    """The properties of a query that determine the text of its statement.

    `size` is one of PAGE_SIZES. `after` tells whether the query has a cursor. `terms` is the
    number of search terms if the sort is by relevance, else 0. `of_families` tells whether the list
    has only the first product of each family.
    """

    filters: frozenset[str]
    status: ProductStatus
    order: str
    size: int
    after: bool
    terms: int
    of_families: bool = False

    @property
    def shown_columns(self) -> "list[sa.Column[Any]]":
        """The columns of a row of the page, without those of the sort key."""
        return [products.c.product_id, products.c.family] if self.of_families else PAGE_COLUMNS

    @property
    def sort_column(self) -> "sa.Column[Any]":
        return _SORT_COLUMNS[self.order.removeprefix("-")]

    @property
    def sort_keys(self) -> "list[sa.Column[Any]]":
        return [self.sort_column, products.c.product_id]

    @property
    def is_descending(self) -> bool:
        return self.order.startswith("-") or self.terms > 0

    @property
    def scans_index(self) -> bool:
        """Tell whether an index has the products in list order, and nearly all of them match.

        A price range is one contiguous part of the index by price, so the scan reads only products
        in the range. The same is true for a category and the indexes by category, which contain
        only active products.
        """
        unselective = {"in_stock"}
        if self.order.endswith("price"):
            unselective |= {"min_price", "max_price"}
        if self.status == ProductStatus.ACTIVE:
            unselective.add("category")
        return self.filters <= unselective


@lru_cache(_MAX_CACHED_STATEMENTS)
def product_page_statement(shape: PageQueryShape) -> Statement:
    """Build the statement of a page.

    It returns one row: the JSON of the products, joined by commas; whether another page follows;
    the sort key of the page's last product.
    """
    row = _numbered_rows(shape)
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


@lru_cache(_MAX_CACHED_STATEMENTS)
def family_page_statement(shape: PageQueryShape) -> Statement:
    """Build the statement of a page of families.

    It returns a row for each family of the page, and one more if another page follows. The first
    columns are those of the sort key. `summarize_families` lists the others.
    """
    rows = _found_rows(shape)
    number = sa.func.row_number().over(order_by=_order_by(shape, _key_columns(rows)))
    numbered = sa.select(rows, number.label("number")).subquery("numbered")
    page = (
        sa.select(numbered, numbered.c.family.label("label"))
        .where(numbered.c.number <= LIMIT + integer_literal(1))
        .cte("page")
    )
    return Statement(summarize_families(page, *_key_columns(page)))


def _found_rows(shape: PageQueryShape) -> "sa.Subquery":
    return _index_scan(shape) if shape.scans_index else _sample_or_full_scan(shape)


def _numbered_rows(shape: PageQueryShape) -> "sa.Subquery":
    rows = _found_rows(shape)
    availability = available_quantity(rows)
    number = sa.func.row_number().over(order_by=_order_by(shape, _key_columns(rows)))
    return (
        sa.select(rows, product_json_text(rows, availability).label("json"), number.label("number"))
        .select_from(rows.join(availability, sa.true()))
        .subquery("numbered")
    )


# The index scan


def _index_scan(shape: PageQueryShape) -> "sa.Subquery":
    """Scan the index of the sort for all products, or for each category of a subtree in turn."""
    by_category = "category" in shape.filters
    # With a category filter, the index is scanned once for each category of the subtree. These
    # scans read only ids and sort keys, which are in the index. The table rows are read after the
    # results have been merged, and only for the products on the page.
    columns = [products.c.product_id] if by_category else shape.shown_columns
    key = shape.sort_column.label("key")
    rows = select_matching(products, shape.filters - {"category"}, *columns, key)
    rows = _after_cursor(shape, rows.where(_has_status(shape)), shape.sort_keys)
    rows = _first_of_families(shape, rows, products, shape.sort_keys, shape.filters)
    rows = rows.order_by(*_order_by(shape, shape.sort_keys))
    if not by_category:
        return _limit_plus_one(shape, rows).subquery("found")
    first = _first_of_each_category(shape, rows)
    return _with_page_columns(shape, _limit_plus_one(shape, first).subquery("best"))


def _first_of_each_category(shape: PageQueryShape, rows: "sa.Select[Any]") -> "sa.Select[Any]":
    unnested = sa.func.unnest(SUBTREE).table_valued("category")
    subtree = unnested.render_derived(name="subtree")
    in_category = rows.where(products.c.category == subtree.c.category)
    first = _limit_plus_one(shape, in_category).correlate(subtree).lateral("first")
    merged = sa.select(first).select_from(subtree.join(first, sa.true()))
    return merged.order_by(*_order_by(shape, _key_columns(first)))


# The sample, or all matches


def _sample_or_full_scan(shape: PageQueryShape) -> "sa.Subquery":
    sample = _sample(shape).cte("sample")
    is_sample_enough: sa.ColumnElement[bool] = (
        sa.select(sa.func.count() > shape.size).select_from(sample).scalar_subquery()
    )
    if not shape.terms:
        # The sample is also enough if it reached the end of the list, because then there are no
        # other matches. This test is slower; CASE evaluates it only if the first test is false.
        is_sample_enough = sa.case((is_sample_enough, sa.true()), else_=_reached_end(shape))
    all_matches = _full_scan(shape).where(~is_sample_enough).subquery("all_matches")
    best = sa.union_all(sa.select(sample).where(is_sample_enough), sa.select(all_matches)).subquery(
        "best"
    )
    return _with_page_columns(shape, best)


def _sample(shape: PageQueryShape) -> "sa.Select[Any]":
    """Select the matching products among the first products of the list.

    For the sort by relevance, select only products with all terms in the name, because they have
    the highest score. Only a product whose SKU equals the query has a higher score. If there is
    one, select nothing, so that the statement selects all matching products instead.
    """
    first = _first_products(shape)
    filters = shape.filters
    columns = [first.c.product_id, first.c.key]
    if shape.terms:
        columns.insert(0, integer_literal(shape.terms * FIELD_WEIGHTS[0]).label("score"))
        filters = filters - {"tsquery"} | {"name_tsquery"}
    query = select_matching(first, filters, *columns)
    if shape.terms:
        query = query.where(~sa.exists(select_by_sku()))
    # all rows of the sample have the same score, so it is not compared
    keys = [first.c.key, first.c.product_id]
    query = _first_of_families(shape, query, first, keys, filters)
    return _limit_plus_one(shape, query.order_by(*_order_by(shape, keys)))


def _first_products(shape: PageQueryShape) -> "sa.Subquery":
    query = sa.select(products, shape.sort_column.label("key")).where(_has_status(shape))
    query = _after_cursor(shape, query, shape.sort_keys, "name_match_" if shape.terms else "")
    return _limit_to_sample(shape, query).subquery("first")


def _reached_end(shape: PageQueryShape) -> "sa.ColumnElement[bool]":
    """Tell whether fewer than _SAMPLE_SIZE products follow the cursor in the list."""
    rest = sa.select(integer_literal(1)).select_from(products).where(_has_status(shape))
    rest = _limit_to_sample(shape, _after_cursor(shape, rest, shape.sort_keys))
    return (
        sa.select(sa.func.count() < integer_literal(_SAMPLE_SIZE))
        .select_from(rest.subquery("rest"))
        .scalar_subquery()
    )


def _limit_to_sample(shape: PageQueryShape, query: "sa.Select[Any]") -> "sa.Select[Any]":
    ordered = query.order_by(*_order_by(shape, shape.sort_keys))
    return ordered.limit(integer_literal(_SAMPLE_SIZE))


def _full_scan(shape: PageQueryShape) -> "sa.Select[Any]":
    """Select and sort all matching products. Then filter by availability until the page is full.

    Availability comes last, because it is slow to compute.
    """
    columns = [products.c.product_id, shape.sort_column.label("key")]
    if shape.terms:
        columns.insert(0, score_expression(shape.terms).label("score"))
    if shape.of_families:
        columns.append(products.c.family)
    rows = (
        select_matching(products, shape.filters - {"in_stock"}, *columns)
        .where(_has_status(shape))
        # OFFSET 0 keeps Postgres from merging the subquery into the outer query; otherwise it may
        # scan an index in list order, or compute the score twice
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
    if shape.of_families:
        rows = query.offset(integer_literal(0)).subquery("matching")
        keys = _key_columns(rows)
        shown = [column for column in rows.c if column.name != "family"]
        query = _first_of_families(shape, sa.select(*shown), rows, keys, shape.filters)
        query = query.order_by(*_order_by(shape, keys))
    return _limit_plus_one(shape, query)


# Parts that both ways use


def _first_of_families(
    shape: PageQueryShape,
    query: "sa.Select[Any]",
    rows: Any,
    keys: "Sequence[sa.ColumnElement[Any]]",
    filters: Iterable[str],
) -> "sa.Select[Any]":
    """In a list of families, keep only the first product of each family."""
    if not shape.of_families:
        return query
    return query.where(
        is_first_of_family(
            rows,
            keys,
            shape.sort_column,
            filters,
            terms=shape.terms if len(keys) == len(_KEY_NAMES) else 0,
            is_descending=shape.is_descending,
        )
    )


def _with_page_columns(shape: PageQueryShape, best: "sa.Subquery") -> "sa.Subquery":
    shown = [column for column in shape.shown_columns if column.name not in best.c]
    return (
        sa.select(best, *shown)
        .join_from(best, products, products.c.product_id == best.c.product_id)
        .subquery("found")
    )


def _after_cursor(
    shape: PageQueryShape,
    query: "sa.Select[Any]",
    key_columns: "Sequence[sa.ColumnElement[Any]]",
    prefix: str = "",
) -> "sa.Select[Any]":
    """Keep the rows after the last sort key of the previous page."""
    if not shape.after:
        return query
    names = [prefix + name for name in _KEY_NAMES[-len(key_columns) :]]
    after_key = sa.tuple_(
        *(bindparam(name, type_=key.type) for name, key in zip(names, key_columns, strict=True))
    )
    current_key = sa.tuple_(*key_columns)
    return query.where(current_key < after_key if shape.is_descending else current_key > after_key)


def _limit_plus_one(shape: PageQueryShape, query: "sa.Select[Any]") -> "sa.Select[Any]":
    """Read one row more than the page holds. The extra row tells that another page follows."""
    return query.limit(integer_literal(shape.size + 1))


def _has_status(shape: PageQueryShape) -> "sa.ColumnElement[bool]":
    return products.c.status == sql_literal(shape.status)


def _key_columns(rows: "sa.FromClause") -> "list[sa.ColumnElement[Any]]":
    return [rows.c[name] for name in _KEY_NAMES if name in rows.c]


def _order_by(shape: PageQueryShape, key_columns: "Iterable[sa.ColumnElement[Any]]") -> list[Any]:
    direction = sa.desc if shape.is_descending else sa.asc
    return [direction(key) for key in key_columns]
