"""SQL statements of stock.

APPLY_CHANGES checks the stock and inserts the movements; a trigger then updates the stock rows.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.inventory.catalogue.sql.availability import overdue_quantity
from markethall.inventory.catalogue.sql.parameters import (
    LIMIT,
    NOW,
    PRODUCT_IDS,
    ZERO,
    bigint_parameter,
    sum_or_zero,
    uuid_parameter,
)
from markethall.inventory.catalogue.sql.tables import products
from markethall.inventory.stock.sql.tables import movements, stock
from markethall.shared.persistence.postgres import Statement, sql_literal

_stock_with_overdue: Final = sa.select(
    *(
        column
        for column in stock.c
        if column.name not in {"reserved_by_lines", "low_stock_threshold"}
    ),
    overdue_quantity(stock.c.product_id, stock.c.warehouse_id).correlate(stock).label("overdue"),
)
PRODUCT_STOCK: Final = Statement(
    _stock_with_overdue.where(stock.c.product_id == bindparam("product_id")).order_by(
        stock.c.warehouse_id
    )
)
WAREHOUSE_STOCK: Final = Statement(
    _stock_with_overdue.where(
        stock.c.product_id == sa.any_(PRODUCT_IDS),
        stock.c.warehouse_id == uuid_parameter("warehouse_id"),
    ).order_by(stock.c.product_id)
)
GET_MOVEMENT: Final = Statement(
    sa.select(movements).where(movements.c.movement_id == bindparam("movement_id"))
)
LIST_MOVEMENTS: Final = Statement(
    sa.select(movements)
    .where(
        movements.c.product_id == bindparam("product_id"),
        movements.c.number < sa.func.coalesce(bigint_parameter("before"), sa.literal(2**63 - 1)),
    )
    .order_by(movements.c.number.desc())
    .limit(LIMIT)
)
LIST_MOVEMENTS_BY_REFERENCE: Final = Statement(
    sa.select(movements)
    .where(movements.c.reference == uuid_parameter("reference"))
    .order_by(movements.c.number)
)

_on_hand_at: Final = (
    sa.select(sum_or_zero(movements.c.delta))
    .where(
        movements.c.product_id == stock.c.product_id,
        movements.c.warehouse_id == stock.c.warehouse_id,
        movements.c.created_at <= NOW,
    )
    .correlate(stock)
    .scalar_subquery()
)
ON_HAND_AT: Final = Statement(
    sa.select(stock.c.warehouse_id, _on_hand_at.label("on_hand"))
    .where(stock.c.product_id == uuid_parameter("product_id"))
    .order_by(stock.c.warehouse_id)
)
SKUS: Final = Statement(
    sa.select(products.c.product_id, products.c.sku).where(
        sa.or_(
            products.c.product_id == sa.any_(PRODUCT_IDS),
            products.c.sku_key == sa.any_(bindparam("skus", type_=ARRAY(sa.Text))),
        )
    )
)
ENSURE_STOCK_ROWS: Final = Statement(
    insert(stock)
    .from_select(
        ["product_id", "warehouse_id", "on_hand", "reserved"],
        sa.select(products.c.product_id, uuid_parameter("warehouse_id"), ZERO, ZERO)
        .where(
            products.c.product_id == sa.any_(PRODUCT_IDS),
            ~sa.exists()
            .where(
                stock.c.product_id == products.c.product_id,
                stock.c.warehouse_id == uuid_parameter("warehouse_id"),
            )
            .correlate(products),
        )
        .order_by(products.c.product_id),
    )
    .on_conflict_do_nothing()
)

_changes: Final = (
    sa.func.unnest(
        bindparam("movement_ids", type_=ARRAY(sa.Uuid)),
        PRODUCT_IDS,
        bindparam("warehouse_ids", type_=ARRAY(sa.Uuid)),
        bindparam("deltas", type_=ARRAY(sa.BigInteger)),
        bindparam("counts", type_=ARRAY(sa.BigInteger)),
    )
    .table_valued(
        sa.column("movement_id", sa.Uuid),
        sa.column("product_id", sa.Uuid),
        sa.column("warehouse_id", sa.Uuid),
        sa.column("delta", sa.BigInteger),
        sa.column("counted", sa.BigInteger),
    )
    .render_derived(name="changes")
)
# This CTE locks the stock rows in the order of their keys, so that transactions cannot deadlock.
# The rest of the statement uses the values that were read under the lock.
_locked_stock: Final = (
    sa.select(
        _changes.c.movement_id,
        stock.c.product_id,
        stock.c.warehouse_id,
        stock.c.on_hand,
        stock.c.reserved,
        stock.c.backorder,
        sa.func.coalesce(_changes.c.delta, _changes.c.counted - stock.c.on_hand).label("delta"),
    )
    .select_from(
        sa.join(
            _changes,
            stock,
            sa.and_(
                stock.c.product_id == _changes.c.product_id,
                stock.c.warehouse_id == _changes.c.warehouse_id,
            ),
        )
    )
    .order_by(stock.c.product_id, stock.c.warehouse_id)
    .with_for_update(key_share=True, of=stock)
    .cte("locked")
)
_reason: Final = bindparam("reason", type_=sa.Text)
_on_hand_after: Final = _locked_stock.c.on_hand + _locked_stock.c.delta
APPLY_CHANGES: Final = Statement(
    insert(movements)
    .from_select(
        [column.name for column in movements.c if column.name != "number"],
        sa.select(
            _locked_stock.c.movement_id,
            _locked_stock.c.product_id,
            _locked_stock.c.warehouse_id,
            _locked_stock.c.delta,
            _on_hand_after,
            # A count that equals the units on hand has the delta 0, whatever its reason. The table
            # allows the delta 0 only with the reason `counted`.
            sa.case((_locked_stock.c.delta == ZERO, sql_literal("counted")), else_=_reason),
            bindparam("note", type_=sa.Text),
            uuid_parameter("reference"),
            bindparam("actor", type_=sa.Text),
            NOW,
        ).where(
            _on_hand_after >= ZERO,
            _on_hand_after + _locked_stock.c.backorder >= _locked_stock.c.reserved,
        ),
    )
    .on_conflict_do_nothing()
    .returning(movements)
)
