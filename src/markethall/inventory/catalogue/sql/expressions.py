"""Bind parameters and SQL expressions that several statements use."""

from collections.abc import Iterable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, Insert, insert
from sqlalchemy.sql.selectable import LateralFromClause

from markethall.inventory.catalogue.domain.search_document import FIELD_WEIGHTS, SearchDocument
from markethall.shared.persistence.postgres import sql_literal

NOW: Final = bindparam("now", type_=sa.TIMESTAMP(timezone=True))
LIMIT: Final = bindparam("limit", type_=sa.Integer)
ZERO: Final = sa.literal_column("0", sa.BigInteger)
PRODUCT_IDS: Final = bindparam("product_ids", type_=ARRAY(sa.Uuid))


def bigint_parameter(name: str) -> "sa.BindParameter[int]":
    return bindparam(name, type_=sa.BigInteger)


def uuid_parameter(name: str) -> "sa.BindParameter[Any]":
    return bindparam(name, type_=sa.Uuid)


def text_parameter(name: str) -> "sa.BindParameter[str]":
    return bindparam(name, type_=sa.Text)


def texts_parameter(name: str) -> "sa.BindParameter[Any]":
    return bindparam(name, type_=ARRAY(sa.Text))


def insert_row(table: sa.Table) -> Insert:
    """Insert a row from bind parameters that have the names of the columns.

    Do nothing if a row has the same key.
    """
    stored = [column.name for column in table.c if not column.identity]
    return insert(table).values({name: bindparam(name) for name in stored}).on_conflict_do_nothing()


def new_values(
    columns: "Iterable[sa.Column[Any]]", *unchanged: str
) -> "dict[str, sa.BindParameter[Any]]":
    """Return the values of an UPDATE of all columns, except `unchanged`, from `new_{column}`."""
    return {
        column.name: bindparam(f"new_{column.name}", type_=column.type)
        for column in columns
        if column.name not in unchanged
    }


def read_columns(columns: "Iterable[sa.Column[Any]]", *ignored: str) -> list[Any]:
    """Select the columns, except `ignored`: JSON as text, because the connection has no codec."""
    return [
        sa.cast(column, sa.Text).label(column.name) if isinstance(column.type, JSONB) else column
        for column in columns
        if column.name not in ignored
    ]


def integer_literal(fixed: int) -> "sa.ColumnElement[int]":
    """Build a literal: the number is part of the SQL text, not a bind parameter."""
    return sa.literal_column(str(fixed), sa.Integer)


def sum_or_zero(column: "sa.ColumnElement[int]") -> "sa.ColumnElement[int]":
    return sa.func.coalesce(sa.cast(sa.func.sum(column), sa.BigInteger), ZERO)


stock_columns: Final = sa.table(
    "stock",
    sa.column("product_id", sa.Uuid),
    sa.column("on_hand", sa.BigInteger),
    sa.column("reserved", sa.BigInteger),
    sa.column("backorder", sa.BigInteger),
    schema="inventory",
)
line_columns: Final = sa.table(
    "reservation_line",
    sa.column("product_id", sa.Uuid),
    sa.column("warehouse_id", sa.Uuid),
    sa.column("status", sa.Text),
    sa.column("expires_at", sa.TIMESTAMP(timezone=True)),
    sa.column("reserved", sa.BigInteger),
    schema="inventory",
)


def overdue_quantity(
    product_id: "sa.ColumnElement[Any]", warehouse_id: "sa.ColumnElement[Any] | None" = None
) -> "sa.ScalarSelect[int]":
    """Select the units of overdue reservations of the product, in one warehouse or in all."""
    lines = line_columns.c
    query = sa.select(sum_or_zero(lines.reserved)).where(
        lines.status == sql_literal("held"), lines.expires_at <= NOW, lines.product_id == product_id
    )
    if warehouse_id is not None:
        query = query.where(lines.warehouse_id == warehouse_id)
    return query.scalar_subquery()


def unreserved_quantity(stock: "sa.FromClause") -> "sa.ColumnElement[int]":
    """Compute the units on hand that are not reserved. Overdue reservations count as reserved."""
    unreserved: sa.ColumnElement[int] = stock.c.on_hand - stock.c.reserved
    return unreserved


def allocatable_quantity(stock: "sa.FromClause") -> "sa.ColumnElement[int]":
    """Compute the units that can be reserved, including backorder.

    Units of overdue reservations are not included until the expiry job has released them.
    """
    allocatable: sa.ColumnElement[int] = unreserved_quantity(stock) + stock.c.backorder
    return allocatable


def available_quantity(rows: "sa.FromClause") -> LateralFromClause:
    """Compute the units of a product that can be bought, for each row with a `product_id`.

    They include backorder and the units of overdue reservations.
    """
    allocatable = sum_or_zero(allocatable_quantity(stock_columns))
    overdue = overdue_quantity(rows.c.product_id).correlate(rows)
    return (
        sa.select((allocatable + overdue).label("available"))
        .where(stock_columns.c.product_id == rows.c.product_id)
        .correlate(rows)
        .lateral("availability")
    )


# the weight labels of Postgres, the heaviest first
WEIGHT_LETTERS: Final = "ABCD"
_LETTER_BY_WEIGHT: Final = dict(zip(FIELD_WEIGHTS, WEIGHT_LETTERS, strict=True))


def tsvector_text(document: SearchDocument) -> str:
    """Write each word with the position 1 and its weight label.

    The position is always 1, because the search does not use positions, but Postgres stores a
    weight only with a position. Words consist of letters, digits and `_`, so they need no escaping.
    """
    return " ".join(
        f"'{word}':1{_LETTER_BY_WEIGHT[weight]}" for word, weight in document.weights.items()
    )
