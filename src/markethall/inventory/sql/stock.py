"""Statements on stock. What checks also acts, in the same statement."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.inventory.sql.parameters import (
    IDS,
    LIMIT,
    NOW,
    ZERO,
    overdue,
    total,
    units,
    uuid,
)
from markethall.inventory.sql.tables import lines, movements, products, stock
from markethall.shared.db import Statement, constant

_levels: Final = sa.select(
    *(column for column in stock.c if column.name not in {"kept", "low_at"}),
    overdue(lines.c.product_id == stock.c.product_id, lines.c.warehouse_id == stock.c.warehouse_id)
    .correlate(stock)
    .label("overdue"),
)
LEVELS: Final = Statement(
    _levels.where(stock.c.product_id == bindparam("of")).order_by(stock.c.warehouse_id)
)
SHELVES: Final = Statement(
    _levels.where(
        stock.c.product_id == sa.any_(IDS), stock.c.warehouse_id == uuid("in_warehouse")
    ).order_by(stock.c.product_id)
)
MOVEMENT: Final = Statement(sa.select(movements).where(movements.c.movement_id == bindparam("of")))
MOVEMENTS: Final = Statement(
    sa.select(movements)
    .where(
        movements.c.product_id == bindparam("of"),
        movements.c.number < sa.func.coalesce(units("before"), sa.literal(2**63 - 1)),
    )
    .order_by(movements.c.number.desc())
    .limit(LIMIT)
)
SOLD: Final = Statement(
    sa.select(sa.exists().where(movements.c.reference == bindparam("reference")))
)

MOVEMENTS_BY: Final = Statement(
    sa.select(movements)
    .where(movements.c.reference == uuid("reference"))
    .order_by(movements.c.number)
)

_then: Final = (
    sa.select(total(movements.c.delta))
    .where(
        movements.c.product_id == stock.c.product_id,
        movements.c.warehouse_id == stock.c.warehouse_id,
        movements.c.created_at <= NOW,
    )
    .correlate(stock)
    .scalar_subquery()
)
ON_HAND_AT: Final = Statement(
    sa.select(stock.c.warehouse_id, _then.label("on_hand"))
    .where(stock.c.product_id == uuid("of"))
    .order_by(stock.c.warehouse_id)
)
SKUS: Final = Statement(
    sa.select(products.c.product_id, products.c.sku).where(
        sa.or_(
            products.c.product_id == sa.any_(IDS),
            sa.func.lower(products.c.sku) == sa.any_(bindparam("skus", type_=ARRAY(sa.Text))),
        )
    )
)
OPEN_SHELVES: Final = Statement(
    insert(stock)
    .from_select(
        ["product_id", "warehouse_id", "on_hand", "reserved"],
        sa.select(products.c.product_id, uuid("in_warehouse"), ZERO, ZERO)
        .where(
            products.c.product_id == sa.any_(IDS),
            ~sa.exists()
            .where(
                stock.c.product_id == products.c.product_id,
                stock.c.warehouse_id == uuid("in_warehouse"),
            )
            .correlate(products),
        )
        .order_by(products.c.product_id),
    )
    .on_conflict_do_nothing()
)

_asked: Final = (
    sa.func.unnest(
        bindparam("movement_ids", type_=ARRAY(sa.Uuid)),
        IDS,
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
    .render_derived(name="asked")
)
# locked first, in order, so that what is on hand is read once nobody else can change it
_locked: Final = (
    sa.select(
        _asked.c.movement_id,
        stock.c.product_id,
        stock.c.warehouse_id,
        stock.c.on_hand,
        stock.c.reserved,
        stock.c.backorder,
        sa.func.coalesce(_asked.c.delta, _asked.c.counted - stock.c.on_hand).label("delta"),
    )
    .select_from(
        sa.join(
            _asked,
            stock,
            sa.and_(
                stock.c.product_id == _asked.c.product_id,
                stock.c.warehouse_id == _asked.c.warehouse_id,
            ),
        )
    )
    .order_by(stock.c.product_id, stock.c.warehouse_id)
    .with_for_update(key_share=True, of=stock)
    .cte("locked")
)
_why: Final = bindparam("why", type_=sa.Text)
_after: Final = _locked.c.on_hand + _locked.c.delta
MOVE: Final = Statement(
    insert(movements)
    .from_select(
        [column.name for column in movements.c if column.name != "number"],
        sa.select(
            _locked.c.movement_id,
            _locked.c.product_id,
            _locked.c.warehouse_id,
            _locked.c.delta,
            _after,
            # a count that finds what was known is no adjustment
            sa.case((_locked.c.delta == ZERO, constant("counted")), else_=_why),
            bindparam("words", type_=sa.Text),
            uuid("reference"),
            bindparam("who", type_=sa.Text),
            NOW,
        ).where(_after >= ZERO, _after + _locked.c.backorder >= _locked.c.reserved),
    )
    .on_conflict_do_nothing()
    .returning(movements)
)
