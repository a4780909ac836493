"""The SQL statements of carts. Each is compiled once, because compiling is slow."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam, func
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.orders.carts.sql.tables import OPEN, cart_lines, carts
from markethall.orders.configuration.sql import (
    insert_children,
    lines_as_json,
    lock_name,
    readable_columns,
    unnested_rows,
)
from markethall.shared.persistence.postgres import Statement, sql_literal

LINE_COLUMNS: Final = tuple(column.name for column in cart_lines.c if column.name != "cart_id")
_SEEN_COLUMNS: Final = ("sku", "name", "seen_amount", "seen_currency", "seen_available")
# the owner is not saved: the handler of a claim may have changed it after the cart was read
_SAVED_COLUMNS: Final = tuple(
    column.name
    for column in carts.c
    if column.name not in {"cart_id", "user_id", "is_guest", "created_at"}
)
_CART_ID: Final = bindparam("cart_id", type_=sa.Uuid)


def _upsert_lines(cart: "sa.CTE") -> Any:
    """Insert or update the lines of the bind arrays, if `cart` has a row."""
    upsert = insert_children(cart_lines, LINE_COLUMNS, "line", cart)
    return upsert.on_conflict_do_update(
        index_elements=[cart_lines.c.cart_id, cart_lines.c.product_id],
        set_={name: upsert.excluded[name] for name in LINE_COLUMNS if name != "product_id"},
    )


def _insert_cart() -> Statement:
    added = (
        insert(carts)
        .values({column.name: bindparam(column.name, type_=column.type) for column in carts.c})
        .on_conflict_do_nothing()
        .returning(carts.c.cart_id)
        .cte("added")
    )
    lines = _upsert_lines(added).cte("lines")
    return Statement(sa.select(added.c.cart_id).add_cte(lines))


def _save_cart() -> Statement:
    """Update the cart and its lines. Return no row if the version differs or it is closed."""
    saved = (
        sa.update(carts)
        .where(
            carts.c.cart_id == _CART_ID,
            carts.c.version == bindparam("expected_version", type_=sa.Integer),
            carts.c.status == OPEN,
        )
        .values({name: bindparam(name, type_=carts.c[name].type) for name in _SAVED_COLUMNS})
        .returning(carts.c.cart_id)
        .cte("saved")
    )
    removed = (
        sa.delete(cart_lines)
        .where(
            cart_lines.c.cart_id == saved.c.cart_id,
            cart_lines.c.product_id != sa.all_(bindparam("line_product_id", type_=ARRAY(sa.Uuid))),
        )
        .cte("removed")
    )
    lines = _upsert_lines(saved).cte("lines")
    return Statement(sa.select(saved.c.cart_id).add_cte(removed, lines))


def _record_look() -> Statement:
    seen = unnested_rows(cart_lines, ("product_id", *_SEEN_COLUMNS), "line")
    return Statement(
        sa.update(cart_lines)
        .where(
            cart_lines.c.cart_id == _CART_ID,
            cart_lines.c.product_id == seen.c.product_id,
            sa.tuple_(*(cart_lines.c[name] for name in _SEEN_COLUMNS)).is_distinct_from(
                sa.tuple_(*(seen.c[name] for name in _SEEN_COLUMNS))
            ),
        )
        .values({name: seen.c[name] for name in _SEEN_COLUMNS})
    )


def _select_carts() -> "sa.Select[Any]":
    """Select carts, each with its lines as one JSON array."""
    columns = (cart_lines.c[name] for name in LINE_COLUMNS)
    is_of_cart = cart_lines.c.cart_id == carts.c.cart_id
    lines = lines_as_json(columns, cart_lines.c.position, is_of_cart)
    return sa.select(*readable_columns(carts), lines)


def _list_carts() -> Statement:
    status = bindparam("status", type_=sa.Text)
    after = bindparam("after", type_=sa.Uuid)
    return Statement(
        _select_carts()
        .where(
            carts.c.user_id == bindparam("user_id", type_=sa.Uuid),
            sa.or_(status.is_(None), carts.c.status == status),
            sa.or_(after.is_(None), carts.c.cart_id < after),
        )
        .order_by(carts.c.cart_id.desc())
        .limit(bindparam("limit", type_=sa.Integer))
    )


def _claim_carts() -> Statement:
    # the rows are locked by id, as in a merge, so that the two cannot deadlock
    locked = (
        sa.select(carts.c.cart_id)
        .where(carts.c.user_id == bindparam("guest_id", type_=sa.Uuid))
        .order_by(carts.c.cart_id)
        .with_for_update()
        .cte("locked")
    )
    return Statement(
        sa.update(carts)
        .where(carts.c.cart_id == locked.c.cart_id)
        .values(user_id=bindparam("claimed_by", type_=sa.Uuid), is_guest=sa.false())
    )


def _delete_expired() -> Statement:
    guests_before = bindparam("guests_before", type_=sa.TIMESTAMP(timezone=True))
    customers_before = bindparam("customers_before", type_=sa.TIMESTAMP(timezone=True))
    expired = (
        sa.select(carts.c.cart_id)
        .where(
            # redundant, but lets Postgres use the index on updated_at
            carts.c.updated_at < func.greatest(guests_before, customers_before),
            carts.c.updated_at < sa.case((carts.c.is_guest, guests_before), else_=customers_before),
        )
        .limit(bindparam("limit", type_=sa.Integer))
        .with_for_update(skip_locked=True)
        .cte("expired")
    )
    return Statement(sa.delete(carts).where(carts.c.cart_id == expired.c.cart_id))


GET_CART: Final = Statement(_select_carts().where(carts.c.cart_id == _CART_ID))
LIST_CARTS: Final = _list_carts()
INSERT_CART: Final = _insert_cart()
SAVE_CART: Final = _save_cart()
RECORD_LOOK: Final = _record_look()
CHECK_OUT_CART: Final = Statement(
    sa.update(carts)
    .where(
        carts.c.cart_id == _CART_ID,
        carts.c.version == bindparam("expected_version", type_=sa.Integer),
        carts.c.status == OPEN,
    )
    .values(
        status=sql_literal("checked_out"),
        order_id=bindparam("new_order_id", type_=sa.Uuid),
        updated_at=bindparam("now", type_=sa.TIMESTAMP(timezone=True)),
        version=carts.c.version + sa.literal_column("1", sa.Integer),
    )
)
CLAIM_CARTS: Final = _claim_carts()
DELETE_EXPIRED_CARTS: Final = _delete_expired()
COUNT_OPEN_CARTS: Final = Statement(
    sa.select(func.count())
    .select_from(carts)
    .where(carts.c.user_id == bindparam("user_id", type_=sa.Uuid), carts.c.status == OPEN)
)
LOCK_CART_OWNER: Final = lock_name(
    "markethall.orders.cart_owner.", sa.cast(bindparam("user_id", type_=sa.Uuid), sa.Text)
)
