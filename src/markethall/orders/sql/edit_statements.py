"""The SQL statements of edits of orders."""

from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.orders.configuration.sql import unnested_rows
from markethall.orders.sql.statements import AFTER_KEYSET, LIMIT, LINE_COLUMNS, select_with_lines
from markethall.orders.sql.tables import lines, order_edits, orders
from markethall.shared.persistence.postgres import Statement, sql_literal

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
    "additional_paid",
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
UPDATE_EDIT = Statement(
    sa.update(order_edits)
    .where(order_edits.c.edit_id == bindparam("the_edit_id", type_=sa.Uuid))
    .values(
        status=bindparam("status"),
        refunded=bindparam("refunded"),
        expires_at=bindparam("expires_at"),
        content=sa.case(
            (order_edits.c.status == bindparam("status"), order_edits.c.content), else_=sa.null()
        ),
    )
)
GET_EDIT_STATUS = Statement(
    sa.select(order_edits.c.status).where(
        order_edits.c.edit_id == bindparam("edit_id", type_=sa.Uuid),
        order_edits.c.order_id == bindparam("order_id", type_=sa.Uuid),
    )
)
_edit_keyset = sa.tuple_(order_edits.c.expires_at, order_edits.c.edit_id)


@lru_cache(maxsize=2)
def list_overdue_edits(*, after_keyset: bool) -> Statement:
    """Build the statement, which reads the partial index of open edits."""
    clause = (
        select_with_lines()
        .join_from(orders, order_edits, order_edits.c.order_id == orders.c.order_id)
        .where(
            order_edits.c.status == sql_literal("open"),
            order_edits.c.expires_at <= bindparam("now"),
            *([_edit_keyset > AFTER_KEYSET] if after_keyset else []),
        )
    )
    return Statement(clause.order_by(*_edit_keyset.clauses).limit(LIMIT))
