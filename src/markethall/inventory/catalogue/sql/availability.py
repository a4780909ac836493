"""The available quantity of products, inside other statements.

Stock and reservations belong to sub-domains above the catalogue. Their tables stand here as
column stubs, because a product is read together with its availability in one statement.
tests/inventory/test_availability_columns.py compares the stubs with the real tables.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.sql.selectable import LateralFromClause

from markethall.inventory.catalogue.sql.parameters import NOW, sum_or_zero
from markethall.shared.persistence.postgres import sql_literal

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
    """Units of expired reservations that the expiry job has not released yet."""
    lines = line_columns.c
    query = sa.select(sum_or_zero(lines.reserved)).where(
        lines.status == sql_literal("held"), lines.expires_at <= NOW, lines.product_id == product_id
    )
    if warehouse_id is not None:
        query = query.where(lines.warehouse_id == warehouse_id)
    return query.scalar_subquery()


def unreserved_quantity(stock: "sa.FromClause") -> "sa.ColumnElement[int]":
    """Units on hand that no reservation holds, expired reservations included."""
    unreserved: sa.ColumnElement[int] = stock.c.on_hand - stock.c.reserved
    return unreserved


def allocatable_quantity(stock: "sa.FromClause") -> "sa.ColumnElement[int]":
    """Units that can be reserved, on hand or on backorder, without those of expired
    reservations.
    """
    allocatable: sa.ColumnElement[int] = unreserved_quantity(stock) + stock.c.backorder
    return allocatable


def available_quantity(rows: "sa.FromClause") -> LateralFromClause:
    """Units that can be bought now of each row, which has a product_id."""
    allocatable = sum_or_zero(allocatable_quantity(stock_columns))
    overdue = overdue_quantity(rows.c.product_id).correlate(rows)
    return (
        sa.select((allocatable + overdue).label("available"))
        .where(stock_columns.c.product_id == rows.c.product_id)
        .correlate(rows)
        .lateral("availability")
    )
