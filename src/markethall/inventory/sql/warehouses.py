"""Statements on warehouses."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.inventory.sql.parameters import LIMIT, ZERO, uuid
from markethall.inventory.sql.tables import stock, warehouses
from markethall.shared.db import Statement

_one: Final = sa.select(warehouses).where(warehouses.c.warehouse_id == uuid("of"))
FIND_DEPOT: Final = Statement(_one)
# whoever brings goods in holds a share of it: none do while it is closed or deleted
DEPOT: Final = Statement(_one.with_for_update())
OPEN_DEPOT: Final = Statement(_one.with_for_update(read=True))

_place: Final = sa.tuple_(warehouses.c.priority, warehouses.c.warehouse_id)
_after: Final = sa.tuple_(bindparam("priority", type_=sa.Integer), uuid("after"))
DEPOTS: Final = Statement(
    sa.select(warehouses)
    .where(sa.or_(uuid("after").is_(None), _place > _after))
    .order_by(warehouses.c.priority, warehouses.c.warehouse_id)
    .limit(LIMIT)
)

ADD_DEPOT: Final = Statement(
    insert(warehouses)
    .values({column.name: bindparam(column.name) for column in warehouses.c})
    .on_conflict_do_nothing()
)
SAVE_DEPOT: Final = Statement(
    sa.update(warehouses)
    .where(warehouses.c.warehouse_id == uuid("of"))
    .values(
        {
            name: bindparam(f"new_{name}", type_=warehouses.c[name].type)
            for name in ("name", "priority", "active", "version")
        }
    )
)
REMOVE_DEPOT: Final = Statement(
    sa.delete(warehouses).where(warehouses.c.warehouse_id == uuid("of"))
)

_here: Final = stock.c.warehouse_id == uuid("of")
HAS_SHELVES: Final = Statement(sa.select(sa.exists().where(_here)))
HAS_GOODS: Final = Statement(
    sa.select(sa.exists().where(_here, stock.c.on_hand + stock.c.reserved > ZERO))
)
