"""Statements on stock. What checks also acts, in the same statement."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.inventory.sql.parameters import LIMIT, NOW, overdue, units, uuid
from markethall.inventory.sql.tables import lines, movements, stock
from markethall.shared.db import Statement

LEVELS: Final = Statement(
    sa.select(
        *(column for column in stock.c if column.name != "kept"),
        overdue(
            lines.c.product_id == stock.c.product_id, lines.c.warehouse_id == stock.c.warehouse_id
        )
        .correlate(stock)
        .label("overdue"),
    )
    .where(stock.c.product_id == bindparam("of"))
    .order_by(stock.c.warehouse_id)
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

# locked first, so that what is on hand is read once nobody else can change it
_locked: Final = (
    sa.select(stock)
    .where(stock.c.product_id == uuid("of"), stock.c.warehouse_id == uuid("in_warehouse"))
    .with_for_update(key_share=True)
    .cte("locked")
)
_delta: Final = sa.func.coalesce(units("by"), units("counted") - _locked.c.on_hand)
MOVE: Final = Statement(
    insert(movements)
    .from_select(
        [column.name for column in movements.c if column.name != "number"],
        sa.select(
            uuid("movement"),
            _locked.c.product_id,
            _locked.c.warehouse_id,
            _delta,
            _locked.c.on_hand + _delta,
            bindparam("why", type_=sa.Text),
            bindparam("words", type_=sa.Text),
            uuid("fulfilment"),
            bindparam("who", type_=sa.Text),
            NOW,
        ).where(_locked.c.on_hand + _delta >= _locked.c.reserved),
    )
    .on_conflict_do_nothing(index_elements=["movement_id"])
    .returning(movements)
)
