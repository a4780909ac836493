"""The SQL statements of edits of orders."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.orders.sql.statements import LINE_COLUMNS, unnested_rows
from markethall.orders.sql.tables import lines, order_edits, orders
from markethall.shared.persistence.postgres import Statement

AMOUNT_COLUMNS = (
    "subtotal",
    "discount",
    "shipping",
    "tax",
    "total",
    "included_tax",
    "shipping_line",
    "payment_id",
    "payment_amount",
)
_the_order = bindparam("order_id", type_=sa.Uuid)

UPDATE_AMOUNTS = Statement(
    sa.update(orders)
    .where(orders.c.order_id == _the_order)
    .values({name: bindparam(name) for name in AMOUNT_COLUMNS})
)
DELETE_LINES = Statement(sa.delete(lines).where(lines.c.order_id == _the_order))


def _insert_lines() -> Statement:
    rows = unnested_rows(lines, LINE_COLUMNS, "line")
    source = sa.select(_the_order, *(rows.c[name] for name in LINE_COLUMNS))
    return Statement(sa.insert(lines).from_select(["order_id", *LINE_COLUMNS], source))


INSERT_LINES = _insert_lines()
INSERT_EDIT = Statement(
    insert(order_edits).values({column.name: bindparam(column.name) for column in order_edits.c})
)
HAS_EDIT = Statement(
    sa.select(sa.exists().where(order_edits.c.edit_id == bindparam("edit_id", type_=sa.Uuid)))
)
