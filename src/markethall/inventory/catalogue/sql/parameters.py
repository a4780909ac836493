"""Parameters and sums that several statements share."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.selectable import LateralFromClause

from markethall.inventory.catalogue.sql.tables import HELD, reservation_lines, stock

NOW: Final = bindparam("now", type_=sa.TIMESTAMP(timezone=True))
LIMIT: Final = bindparam("limit", type_=sa.Integer)
ZERO: Final = sa.literal_column("0", sa.BigInteger)
PRODUCT_IDS: Final = bindparam("product_ids", type_=ARRAY(sa.Uuid))


def bigint_parameter(name: str) -> "sa.BindParameter[int]":
    return bindparam(name, type_=sa.BigInteger)


def uuid_parameter(name: str) -> "sa.BindParameter[Any]":
    return bindparam(name, type_=sa.Uuid)


def integer_literal(fixed: int) -> "sa.ColumnElement[int]":
    """A fixed number inside a statement."""
    return sa.literal_column(str(fixed), sa.Integer)


def sum_or_zero(column: "sa.ColumnElement[int]") -> "sa.ColumnElement[int]":
    return sa.func.coalesce(sa.cast(sa.func.sum(column), sa.BigInteger), ZERO)


def overdue_quantity(*where: "sa.ColumnElement[bool]") -> "sa.ScalarSelect[int]":
    """What expired holds still have, before the sweeper comes."""
    expired = sa.and_(reservation_lines.c.status == HELD, reservation_lines.c.expires_at <= NOW)
    return (
        sa.select(sum_or_zero(reservation_lines.c.reserved))
        .where(expired, *where)
        .scalar_subquery()
    )


def unreserved_quantity(stock_row: "sa.FromClause") -> "sa.ColumnElement[int]":
    """How many of a shelf are there for the next one, expired holds left alone."""
    unreserved: sa.ColumnElement[int] = stock_row.c.on_hand - stock_row.c.reserved
    return unreserved


def allocatable_quantity(stock_row: "sa.FromClause") -> "sa.ColumnElement[int]":
    """How many of a shelf can be taken, there or not yet, expired holds left alone."""
    allocatable: sa.ColumnElement[int] = unreserved_quantity(stock_row) + stock_row.c.backorder
    return allocatable


def available_quantity(rows: "sa.FromClause") -> LateralFromClause:
    """What can be bought now of a row that has a product_id."""
    allocatable = sum_or_zero(allocatable_quantity(stock))
    reserved_by_expired = overdue_quantity(
        reservation_lines.c.product_id == rows.c.product_id
    ).correlate(rows)
    return (
        sa.select((allocatable + reserved_by_expired).label("available"))
        .where(stock.c.product_id == rows.c.product_id)
        .correlate(rows)
        .lateral("availability")
    )
