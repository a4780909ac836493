"""Parameters and sums that several statements share."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.inventory.sql.tables import HELD, lines, products, stock

NOW: Final = bindparam("now", type_=sa.TIMESTAMP(timezone=True))
LIMIT: Final = bindparam("limit", type_=sa.Integer)
IDS: Final = bindparam("product_ids", type_=ARRAY(sa.Uuid))


def units(name: str) -> "sa.BindParameter[int]":
    return bindparam(name, type_=sa.BigInteger)


def uuid(name: str) -> "sa.BindParameter[Any]":
    return bindparam(name, type_=sa.Uuid)


def total(column: "sa.ColumnElement[int]") -> "sa.ColumnElement[int]":
    return sa.func.coalesce(sa.cast(sa.func.sum(column), sa.BigInteger), 0)


def overdue(*where: "sa.ColumnElement[bool]") -> "sa.ScalarSelect[int]":
    """What expired holds still have, before the sweeper comes."""
    expired = sa.and_(lines.c.status == HELD, lines.c.expires_at <= NOW)
    return sa.select(total(lines.c.reserved)).where(expired, *where).scalar_subquery()


OF_PRODUCT: Final = stock.c.product_id == products.c.product_id
AVAILABLE: Final = (
    sa.select(
        (
            total(stock.c.on_hand - stock.c.reserved)
            + overdue(lines.c.product_id == products.c.product_id).correlate(products)
        ).label("available")
    )
    .where(OF_PRODUCT)
    .correlate(products)
    .lateral("shelf")
)
