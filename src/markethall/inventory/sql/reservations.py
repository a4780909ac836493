"""Statements on reservations. What checks also acts, in the same statement."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.inventory.contract import EXTENDED_AT_MOST
from markethall.inventory.sql.parameters import (
    IDS,
    LIMIT,
    NOW,
    ZERO,
    overdue,
    there_of,
    units,
    uuid,
)
from markethall.inventory.sql.products import amount_now
from markethall.inventory.sql.tables import (
    ACTIVE,
    HELD,
    lines,
    part_releases,
    products,
    reservations,
    stock,
    warehouses,
)
from markethall.shared.db import Statement, constant

_new: Final = [bindparam(column.name, type_=column.type) for column in reservations.c]
_lock: Final = (
    sa.select(
        sa.func.pg_advisory_xact_lock(
            sa.func.hashtextextended(
                constant("markethall.inventory.customer.") + sa.cast(uuid("customer"), sa.Text), 0
            )
        )
    )
    .where(uuid("customer").is_not(None))
    .cte("locked_customer")
)
# its customer is locked first: nobody counts what they hold while another hold of theirs is made
OPEN: Final = Statement(
    insert(reservations)
    .from_select(
        [column.name for column in reservations.c],
        sa.select(*_new).select_from(sa.select(sa.func.count()).select_from(_lock).subquery()),
    )
    # no target: where two do the same at once, the other unique key may be the first to clash
    .on_conflict_do_nothing()
)
# after OPEN, and not in it: a statement sees nothing of what was committed while it waited
HOLDING: Final = Statement(
    sa.select(reservations.c.reservation_id, lines.c.product_id, lines.c.reserved)
    .select_from(
        sa.outerjoin(
            reservations,
            lines,
            sa.and_(
                lines.c.reservation_id == reservations.c.reservation_id,
                lines.c.product_id == sa.any_(IDS),
            ),
        )
    )
    .where(
        reservations.c.customer_id == uuid("customer"),
        reservations.c.status == HELD,
        reservations.c.expires_at > NOW,
        reservations.c.reservation_id != bindparam("but"),
    )
)
_on_hand: Final = there_of(stock) >= units("units")
_ahead: Final = sa.case((bindparam("ahead", type_=sa.Boolean), stock.c.backorder), else_=ZERO)
_enough: Final = there_of(stock) + _ahead >= units("units")
_there: Final = sa.and_(
    stock.c.product_id == uuid("of"), stock.c.warehouse_id == uuid("in_warehouse")
)
# what a line keeps of its product, as it is now
_sold_as: Final = (
    products.c.sku,
    products.c.name,
    amount_now(products).label("price_amount"),
    products.c.price_currency,
)
_taking: Final = (
    sa.update(stock)
    .where(stock.c.product_id == products.c.product_id, _there, products.c.status == ACTIVE)
    .values(reserved=stock.c.reserved + units("units"))
    .returning(stock.c.product_id, stock.c.warehouse_id, *_sold_as)
)
_written: Final = [column for column in lines.c if column.computed is None]


def _line_of(taken: "sa.CTE") -> Any:
    """The line for what was taken."""
    return (
        insert(lines)
        .from_select(
            [column.name for column in _written],
            sa.select(
                uuid("reservation_id"),
                taken.c.product_id,
                taken.c.warehouse_id,
                HELD,
                bindparam("expires_at", type_=sa.TIMESTAMP(timezone=True)),
                units("units"),
                ZERO,
                ZERO,
                taken.c.sku,
                taken.c.name,
                taken.c.price_amount,
                taken.c.price_currency,
            ),
        )
        .returning(lines)
    )


TAKE: Final = Statement(_line_of(_taking.where(_enough).cte("taken")))

# A whole reservation of one product, in one statement that is a transaction of its own: the shelf
# is not locked while we wait for a word or say the next one. It begins only what can be done as far
# as it sees, and undoes itself when somebody was faster. It takes what is on hand: what is there
# elsewhere goes before what is not there yet. The shelf comes last, and in a function: whoever
# waited for it looks again at it alone, and not at the whole statement. That it runs low is told by
# the database, in the same statement (take_tells_low).
_may_hold: Final = sa.func.inventory.may_hold(
    uuid("customer"),
    uuid("of"),
    units("units"),
    bindparam("open_holds", type_=sa.Integer),
    units("held_units"),
    NOW,
    type_=sa.Boolean,
)
_opened: Final = (
    insert(reservations)
    .from_select(
        [column.name for column in reservations.c],
        sa.select(*_new).where(
            sa.exists().where(_there, _on_hand),
            sa.or_(bindparam("unlimited", type_=sa.Boolean), _may_hold),
        ),
    )
    .on_conflict_do_nothing()
    .returning(reservations.c.reservation_id)
    .cte("opened")
)
_sold: Final = (
    sa.select(products.c.product_id, uuid("in_warehouse").label("warehouse_id"), *_sold_as)
    .where(
        products.c.product_id == uuid("of"),
        products.c.status == ACTIVE,
        sa.exists().select_from(_opened),
    )
    .cte("sold")
)
_line: Final = _line_of(_sold).cte("line")
_take: Final = sa.func.inventory.take(uuid("of"), uuid("in_warehouse"), _line.c.reserved)
RESERVE_AT_ONCE: Final = Statement(
    sa.select(_line, _take.label("taken")).select_from(sa.outerjoin(_opened, _line, sa.true()))
)

TAKE_AGAIN: Final = Statement(
    sa.update(stock).where(_there, _enough).values(reserved=stock.c.reserved + units("units"))
)
GIVE_BACK: Final = Statement(
    sa.update(stock).where(_there).values(reserved=stock.c.reserved - units("units"))
)

_until: Final = bindparam("until", type_=sa.TIMESTAMP(timezone=True))
_longest: Final = sa.func.least(_until, reservations.c.held_since + EXTENDED_AT_MOST)
_extended: Final = (
    sa.update(reservations)
    .where(
        reservations.c.reservation_id == bindparam("of"),
        reservations.c.status == HELD,
        reservations.c.expires_at > NOW,
    )
    .values(expires_at=sa.func.greatest(reservations.c.expires_at, _longest))
    .returning(reservations)
    .cte("extended")
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
            "released",
        )
    ]
    joined = sa.outerjoin(header, lines, lines.c.reservation_id == header.c.reservation_id)
    return (
        sa.select(*header.c, *of_line)
        .select_from(joined)
        .order_by(header.c.reservation_id, lines.c.product_id, lines.c.warehouse_id)
    )


COMMIT_HELD: Final = Statement(_with_lines(_committed))
EXTEND_HELD: Final = Statement(_with_lines(_extended))
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
SAVE_LINE: Final = Statement(
    sa.update(lines)
    .where(
        lines.c.reservation_id == bindparam("of"),
        lines.c.product_id == bindparam("product"),
        lines.c.warehouse_id == bindparam("in_warehouse"),
    )
    .values(
        quantity=bindparam("new_quantity"),
        consumed=bindparam("new_consumed"),
        released=bindparam("new_released"),
    )
)
REMOVE_LINES: Final = Statement(sa.delete(lines).where(lines.c.reservation_id == bindparam("of")))
ADD_LINE: Final = Statement(
    sa.insert(lines).values({column.name: bindparam(column.name) for column in _written})
)
NOTE_RELEASE: Final = Statement(
    insert(part_releases)
    .values({column.name: bindparam(column.name) for column in part_releases.c})
    .on_conflict_do_nothing()
)

# Where goods are, when they are not where one looked first

SUPPLY: Final = Statement(
    sa.select(
        products.c.product_id,
        products.c.status,
        stock.c.warehouse_id,
        warehouses.c.priority,
        there_of(stock).label("free"),
        stock.c.backorder,
        overdue(
            lines.c.product_id == stock.c.product_id, lines.c.warehouse_id == stock.c.warehouse_id
        )
        .correlate(stock)
        .label("overdue"),
    )
    .select_from(
        sa.join(products, stock, stock.c.product_id == products.c.product_id).join(
            warehouses, warehouses.c.warehouse_id == stock.c.warehouse_id
        )
    )
    .where(products.c.product_id == sa.any_(IDS))
    .order_by(products.c.product_id, stock.c.warehouse_id)
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
