"""SQL statements of reservations. One conditional UPDATE checks the stock and reserves it."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.inventory.catalogue.sql.expressions import (
    LIMIT,
    NOW,
    PRODUCT_IDS,
    ZERO,
    available_quantity,
    bigint_parameter,
    insert_row,
    overdue_quantity,
    text_parameter,
    unreserved_quantity,
    uuid_parameter,
)
from markethall.inventory.catalogue.sql.statements import price_in
from markethall.inventory.catalogue.sql.tables import ACTIVE, products
from markethall.inventory.contract import MAX_EXTENDED_DURATION
from markethall.inventory.reservations.sql.tables import (
    HELD,
    partial_releases,
    reservation_lines,
    reservations,
)
from markethall.inventory.stock.sql.tables import stock, warehouses
from markethall.shared.persistence.postgres import Statement, sql_literal

_reservation_values: Final = [
    bindparam(column.name, type_=column.type) for column in reservations.c
]
_customer_lock: Final = (
    sa.select(
        sa.func.pg_advisory_xact_lock(
            sa.func.hashtextextended(
                sql_literal("markethall.inventory.customer.")
                + sa.cast(uuid_parameter("customer_id"), sa.Text),
                0,
            )
        )
    )
    .where(uuid_parameter("customer_id").is_not(None))
    .cte("locked_customer")
)
# The insert first takes an advisory lock on the customer. So CUSTOMER_USAGE, which runs next in the
# transaction, sees all other reservations of the customer.
INSERT_RESERVATION: Final = Statement(
    insert(reservations)
    .from_select(
        [column.name for column in reservations.c],
        sa.select(*_reservation_values).select_from(
            sa.select(sa.func.count()).select_from(_customer_lock).subquery()
        ),
    )
    # no conflict target, because either of the two unique keys may conflict
    .on_conflict_do_nothing()
)
# This is a separate statement, because the snapshot of INSERT_RESERVATION lacks the rows that were
# committed while it waited for the lock.
CUSTOMER_USAGE: Final = Statement(
    sa.select(
        reservations.c.reservation_id, reservation_lines.c.product_id, reservation_lines.c.reserved
    )
    .select_from(
        sa.outerjoin(
            reservations,
            reservation_lines,
            sa.and_(
                reservation_lines.c.reservation_id == reservations.c.reservation_id,
                reservation_lines.c.product_id == sa.any_(PRODUCT_IDS),
            ),
        )
    )
    .where(
        reservations.c.customer_id == uuid_parameter("customer_id"),
        reservations.c.status == HELD,
        reservations.c.expires_at > NOW,
        reservations.c.reservation_id != bindparam("reservation_id"),
    )
)
_is_on_hand: Final = unreserved_quantity(stock) >= bigint_parameter("quantity")
_allowed_backorder: Final = sa.case(
    (bindparam("include_backorder", type_=sa.Boolean), stock.c.backorder), else_=ZERO
)
_is_allocatable: Final = unreserved_quantity(stock) + _allowed_backorder >= bigint_parameter(
    "quantity"
)
_is_stock_row: Final = sa.and_(
    stock.c.product_id == uuid_parameter("product_id"),
    stock.c.warehouse_id == uuid_parameter("warehouse_id"),
)
# the columns that a line copies from the product
_PRODUCT_SNAPSHOT: Final = (
    products.c.sku,
    products.c.name,
    *price_in(products, text_parameter("currency")),
    products.c.tax_class,
    products.c.weight_grams,
    products.c.category,
    products.c.tags,
)
_availability: Final = available_quantity(products)
LIST_OFFERS: Final = Statement(
    sa.select(products.c.product_id, *_PRODUCT_SNAPSHOT, _availability.c.available)
    .select_from(products.join(_availability, sa.true()))
    .where(products.c.product_id == sa.any_(PRODUCT_IDS), products.c.status == ACTIVE)
    .order_by(products.c.product_id)
)
_reserve_stock: Final = (
    sa.update(stock)
    .where(stock.c.product_id == products.c.product_id, _is_stock_row, products.c.status == ACTIVE)
    .values(reserved=stock.c.reserved + bigint_parameter("quantity"))
    .returning(stock.c.product_id, stock.c.warehouse_id, *_PRODUCT_SNAPSHOT)
)
_stored_columns: Final = [column for column in reservation_lines.c if column.computed is None]


def _insert_line(source: "sa.CTE") -> Any:
    """Insert a line for the product and warehouse in each row of `source`."""
    return (
        insert(reservation_lines)
        .from_select(
            [column.name for column in _stored_columns],
            sa.select(
                uuid_parameter("reservation_id"),
                source.c.product_id,
                source.c.warehouse_id,
                HELD,
                bindparam("expires_at", type_=sa.TIMESTAMP(timezone=True)),
                bigint_parameter("quantity"),
                ZERO,
                ZERO,
                *(source.c[column.name] for column in _PRODUCT_SNAPSHOT),
            ),
        )
        .returning(reservation_lines)
    )


RESERVE_LINE: Final = Statement(_insert_line(_reserve_stock.where(_is_allocatable).cte("taken")))

# The following parts form one statement that reserves one product. It is a transaction of its own,
# so the lock on the stock row is not held during a network round trip. The statement inserts the
# reservation and its line only if its snapshot shows enough units on hand (without backorder). The
# function inventory.reserve_stock then updates the stock row. If a concurrent statement has taken
# the units, the function raises an exception, which undoes the inserts. The UPDATE is in a function
# to keep a wait for the row lock cheap: after the wait, Postgres checks only the condition of this
# UPDATE again, not the whole statement. The trigger stock_low_event publishes StockLow.
_customer_within_limits: Final = sa.func.inventory.customer_within_limits(
    uuid_parameter("customer_id"),
    uuid_parameter("product_id"),
    bigint_parameter("quantity"),
    bindparam("max_unpaid_orders", type_=sa.Integer),
    bigint_parameter("max_reserved_units"),
    NOW,
    type_=sa.Boolean,
)
_new_reservation: Final = (
    insert(reservations)
    .from_select(
        [column.name for column in reservations.c],
        sa.select(*_reservation_values).where(
            sa.exists().where(_is_stock_row, _is_on_hand),
            sa.or_(bindparam("unlimited", type_=sa.Boolean), _customer_within_limits),
        ),
    )
    .on_conflict_do_nothing()
    .returning(reservations.c.reservation_id)
    .cte("opened")
)
_active_product: Final = (
    sa.select(
        products.c.product_id,
        uuid_parameter("warehouse_id").label("warehouse_id"),
        *_PRODUCT_SNAPSHOT,
    )
    .where(
        products.c.product_id == uuid_parameter("product_id"),
        products.c.status == ACTIVE,
        sa.exists().select_from(_new_reservation),
    )
    .cte("sold")
)
_new_line: Final = _insert_line(_active_product).cte("line")
_reserve_stock_call: Final = sa.func.inventory.reserve_stock(
    uuid_parameter("product_id"), uuid_parameter("warehouse_id"), _new_line.c.reserved
)
RESERVE_SINGLE_STATEMENT: Final = Statement(
    sa.select(_new_line, _reserve_stock_call.label("taken")).select_from(
        sa.outerjoin(_new_reservation, _new_line, sa.true())
    )
)

RESERVE_AGAIN: Final = Statement(
    sa.update(stock)
    .where(_is_stock_row, _is_allocatable)
    .values(reserved=stock.c.reserved + bigint_parameter("quantity"))
)
RELEASE_STOCK: Final = Statement(
    sa.update(stock)
    .where(_is_stock_row)
    .values(reserved=stock.c.reserved - bigint_parameter("quantity"))
)

_expires_at: Final = bindparam("new_expires_at", type_=sa.TIMESTAMP(timezone=True))
_latest_allowed: Final = sa.func.least(
    _expires_at, reservations.c.reserved_at + MAX_EXTENDED_DURATION
)
_extended: Final = (
    sa.update(reservations)
    .where(
        reservations.c.reservation_id == bindparam("reservation_id"),
        reservations.c.status == HELD,
        reservations.c.expires_at > NOW,
    )
    .values(expires_at=sa.func.greatest(reservations.c.expires_at, _latest_allowed))
    .returning(reservations)
    .cte("extended")
)
_committed: Final = (
    sa.update(reservations)
    .where(
        reservations.c.reservation_id == bindparam("reservation_id"), reservations.c.status == HELD
    )
    .values(status=sql_literal("committed"))
    .returning(reservations)
    .cte("committed")
)


def _with_lines(header: Any) -> "sa.Select[Any]":
    """Select one row per line of the reservations in `header`.

    A reservation without lines has one row, whose line columns are null. Status and expiry come
    from `header`, not from their copies in the lines: if `header` is an UPDATE, a foreign key
    updates the copies, but the same statement still reads the old ones.
    """
    line_columns = [
        column
        for column in reservation_lines.c
        if column.name not in {"reservation_id", "status", "expires_at", "reserved"}
    ]
    joined = sa.outerjoin(
        header, reservation_lines, reservation_lines.c.reservation_id == header.c.reservation_id
    )
    return (
        sa.select(*header.c, *line_columns)
        .select_from(joined)
        .order_by(
            header.c.reservation_id,
            reservation_lines.c.product_id,
            reservation_lines.c.warehouse_id,
        )
    )


COMMIT_IF_HELD: Final = Statement(_with_lines(_committed))
EXTEND_IF_HELD: Final = Statement(_with_lines(_extended))
GET_RESERVATION: Final = Statement(
    _with_lines(reservations).where(reservations.c.reservation_id == bindparam("reservation_id"))
)
LOCK_RESERVATION: Final = Statement(
    sa.select(reservations.c.reservation_id)
    .where(reservations.c.reservation_id == bindparam("reservation_id"))
    .with_for_update()
)
_of_order: Final = (
    sa.select(reservations)
    .where(
        reservations.c.order_id == bindparam("order_id"),
        sa.or_(
            uuid_parameter("after").is_(None),
            reservations.c.reservation_id > uuid_parameter("after"),
        ),
    )
    .order_by(reservations.c.reservation_id)
    .limit(LIMIT)
    .cte("of_order")
)
LIST_ORDER_RESERVATIONS: Final = Statement(_with_lines(_of_order))
SAVE_RESERVATION: Final = Statement(
    sa.update(reservations)
    .where(reservations.c.reservation_id == bindparam("reservation_id"))
    .values(status=bindparam("new_status"))
)
SAVE_LINE: Final = Statement(
    sa.update(reservation_lines)
    .where(
        reservation_lines.c.reservation_id == bindparam("reservation_id"),
        reservation_lines.c.product_id == bindparam("product_id"),
        reservation_lines.c.warehouse_id == bindparam("warehouse_id"),
    )
    .values(
        quantity=bindparam("new_quantity"),
        consumed=bindparam("new_consumed"),
        released=bindparam("new_released"),
    )
)
DELETE_LINES: Final = Statement(
    sa.delete(reservation_lines).where(
        reservation_lines.c.reservation_id == bindparam("reservation_id")
    )
)
INSERT_LINE: Final = Statement(
    sa.insert(reservation_lines).values(
        {column.name: bindparam(column.name) for column in _stored_columns}
    )
)
RECORD_PARTIAL_RELEASE: Final = Statement(insert_row(partial_releases))
GET_UNTRACKED_PRODUCTS: Final = Statement(
    sa.select(products.c.product_id).where(
        products.c.product_id == sa.any_(PRODUCT_IDS), ~products.c.track_inventory
    )
)

AVAILABILITY: Final = Statement(
    sa.select(
        products.c.product_id,
        products.c.status,
        stock.c.warehouse_id,
        warehouses.c.priority,
        unreserved_quantity(stock).label("free"),
        stock.c.backorder,
        overdue_quantity(stock.c.product_id, stock.c.warehouse_id)
        .correlate(stock)
        .label("overdue"),
    )
    .select_from(
        sa.join(products, stock, stock.c.product_id == products.c.product_id).join(
            warehouses, warehouses.c.warehouse_id == stock.c.warehouse_id
        )
    )
    .where(products.c.product_id == sa.any_(PRODUCT_IDS))
    .order_by(products.c.product_id, stock.c.warehouse_id)
)
