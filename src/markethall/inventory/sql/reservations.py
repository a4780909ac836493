"""Statements on reservations. What checks also acts, in the same statement."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.inventory.sql.parameters import (
    IDS,
    LIMIT,
    NOW,
    ZERO,
    units,
    uuid,
)
from markethall.inventory.sql.tables import (
    ACTIVE,
    HELD,
    lines,
    products,
    reservations,
    stock,
)
from markethall.shared.db import Statement, constant

OPEN: Final = Statement(
    insert(reservations)
    .values({column.name: bindparam(column.name) for column in reservations.c})
    # no target: where two do the same at once, the other unique key may be the first to clash
    .on_conflict_do_nothing()
)
_enough: Final = stock.c.on_hand - stock.c.reserved >= units("units")
_there: Final = sa.and_(
    stock.c.product_id == uuid("of"), stock.c.warehouse_id == uuid("in_warehouse")
)
_taken: Final = (
    sa.update(stock)
    .where(
        stock.c.product_id == products.c.product_id, _there, products.c.status == ACTIVE, _enough
    )
    .values(reserved=stock.c.reserved + units("units"))
    .returning(
        stock.c.product_id,
        stock.c.warehouse_id,
        products.c.sku,
        products.c.name,
        products.c.price_amount,
        products.c.price_currency,
    )
    .cte("taken")
)
TAKE: Final = Statement(
    insert(lines)
    .from_select(
        [column.name for column in lines.c if column.name != "reserved"],
        sa.select(
            uuid("reservation"),
            _taken.c.product_id,
            _taken.c.warehouse_id,
            HELD,
            bindparam("expires", type_=sa.TIMESTAMP(timezone=True)),
            units("units"),
            ZERO,
            _taken.c.sku,
            _taken.c.name,
            _taken.c.price_amount,
            _taken.c.price_currency,
        ),
    )
    .returning(lines)
)
TAKE_AGAIN: Final = Statement(
    sa.update(stock).where(_there, _enough).values(reserved=stock.c.reserved + units("units"))
)
GIVE_BACK: Final = Statement(
    sa.update(stock).where(_there).values(reserved=stock.c.reserved - units("units"))
)

_committed: Final = (
    sa.update(reservations)
    .where(reservations.c.reservation_id == bindparam("of"), reservations.c.status == HELD)
    .values(status=constant("committed"))
    .returning(reservations)
    .cte("committed")
)


def _with_lines(header: Any) -> "sa.Select[Any]":
    """One row per line, or one with nulls. The line's own status and time are the header's."""
    of_line = [
        lines.c[name]
        for name in (
            "product_id",
            "warehouse_id",
            "sku",
            "name",
            "unit_amount",
            "unit_currency",
            "quantity",
            "consumed",
        )
    ]
    joined = sa.outerjoin(header, lines, lines.c.reservation_id == header.c.reservation_id)
    return (
        sa.select(*header.c, *of_line)
        .select_from(joined)
        .order_by(header.c.reservation_id, lines.c.product_id, lines.c.warehouse_id)
    )


COMMIT_HELD: Final = Statement(_with_lines(_committed))
FIND_HOLD: Final = Statement(
    _with_lines(reservations).where(reservations.c.reservation_id == bindparam("of"))
)
LOCK_HOLD: Final = Statement(
    sa.select(reservations.c.reservation_id)
    .where(reservations.c.reservation_id == bindparam("of"))
    .with_for_update()
)
_of_order: Final = (
    sa.select(reservations)
    .where(
        reservations.c.order_id == bindparam("of"),
        sa.or_(uuid("after").is_(None), reservations.c.reservation_id > uuid("after")),
    )
    .order_by(reservations.c.reservation_id)
    .limit(LIMIT)
    .cte("of_order")
)
HOLDS_OF: Final = Statement(_with_lines(_of_order))
SAVE_HOLD: Final = Statement(
    sa.update(reservations)
    .where(reservations.c.reservation_id == bindparam("of"))
    .values(status=bindparam("new_status"))
)
SAVE_CONSUMED: Final = Statement(
    sa.update(lines)
    .where(
        lines.c.reservation_id == bindparam("of"),
        lines.c.product_id == bindparam("product"),
        lines.c.warehouse_id == bindparam("in_warehouse"),
    )
    .values(consumed=bindparam("new_consumed"))
)


def _expire(due: "sa.CTE") -> Statement:
    """The expired holds, and the goods of each line that they had."""
    expired = (
        sa.update(reservations)
        .where(reservations.c.reservation_id == due.c.reservation_id)
        .values(status=constant("expired"))
        .returning(reservations.c.reservation_id)
        .cte("expired")
    )
    had = sa.outerjoin(expired, lines, lines.c.reservation_id == expired.c.reservation_id)
    return Statement(
        sa.select(
            expired.c.reservation_id, lines.c.product_id, lines.c.warehouse_id, lines.c.reserved
        ).select_from(had)
    )


_is_due: Final = sa.and_(reservations.c.status == HELD, reservations.c.expires_at <= NOW)
_has_products: Final = reservations.c.reservation_id.in_(
    sa.select(lines.c.reservation_id).where(
        lines.c.product_id == sa.any_(IDS), lines.c.status == HELD, lines.c.expires_at <= NOW
    )
)
# the sweeper passes by what somebody else works on
EXPIRE: Final = _expire(
    sa.select(reservations.c.reservation_id)
    .where(_is_due)
    .order_by(reservations.c.expires_at)
    .limit(LIMIT)
    .with_for_update(skip_locked=True)
    .cte("due")
)
# a buyer waits for it: two buyers of the same goods lock the holds in the same order
EXPIRE_OF: Final = _expire(
    sa.select(reservations.c.reservation_id)
    .where(_is_due, _has_products)
    .order_by(reservations.c.reservation_id)
    .limit(LIMIT)
    .with_for_update()
    .cte("due")
)
