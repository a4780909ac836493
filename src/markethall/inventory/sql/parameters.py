"""Parameters and sums that several statements share."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.selectable import LateralFromClause

from markethall.inventory.sql.tables import HELD, lines, stock

NOW: Final = bindparam("now", type_=sa.TIMESTAMP(timezone=True))
LIMIT: Final = bindparam("limit", type_=sa.Integer)
ZERO: Final = sa.literal_column("0", sa.BigInteger)
IDS: Final = bindparam("product_ids", type_=ARRAY(sa.Uuid))


def units(name: str) -> "sa.BindParameter[int]":
    return bindparam(name, type_=sa.BigInteger)


def uuid(name: str) -> "sa.BindParameter[Any]":
    return bindparam(name, type_=sa.Uuid)


def number(fixed: int) -> "sa.ColumnElement[int]":
    """A fixed number inside a statement."""
    return sa.literal_column(str(fixed), sa.Integer)


def total(column: "sa.ColumnElement[int]") -> "sa.ColumnElement[int]":
    return sa.func.coalesce(sa.cast(sa.func.sum(column), sa.BigInteger), ZERO)


def overdue(*where: "sa.ColumnElement[bool]") -> "sa.ScalarSelect[int]":
    """What expired holds still have, before the sweeper comes."""
    expired = sa.and_(lines.c.status == HELD, lines.c.expires_at <= NOW)
    return sa.select(total(lines.c.reserved)).where(expired, *where).scalar_subquery()


def there_of(shelf: "sa.FromClause") -> "sa.ColumnElement[int]":
    """How many of a shelf are there for the next one, expired holds left alone."""
    there: sa.ColumnElement[int] = shelf.c.on_hand - shelf.c.reserved
    return there


def free_of(shelf: "sa.FromClause") -> "sa.ColumnElement[int]":
    """How many of a shelf can be taken, there or not yet, expired holds left alone."""
    free: sa.ColumnElement[int] = there_of(shelf) + shelf.c.backorder
    return free


def available(of: "sa.FromClause") -> LateralFromClause:
    """What can be bought now of a row that has a product_id."""
    free = total(free_of(stock))
    late = overdue(lines.c.product_id == of.c.product_id).correlate(of)
    return (
        sa.select((free + late).label("available"))
        .where(stock.c.product_id == of.c.product_id)
        .correlate(of)
        .lateral("shelf")
    )
