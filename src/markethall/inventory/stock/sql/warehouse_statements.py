from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.inventory.catalogue.sql.parameters import LIMIT, ZERO, uuid_parameter
from markethall.inventory.stock.sql.tables import stock, warehouses
from markethall.shared.persistence.postgres import Statement

_by_id: Final = sa.select(warehouses).where(
    warehouses.c.warehouse_id == uuid_parameter("warehouse_id")
)
GET_WAREHOUSE: Final = Statement(_by_id)
# A transaction that adds stock rows holds the share lock. A transaction that closes or deletes the
# warehouse takes the exclusive lock, so it waits until the stock rows are committed.
GET_WAREHOUSE_FOR_UPDATE: Final = Statement(_by_id.with_for_update())
GET_WAREHOUSE_FOR_SHARE: Final = Statement(_by_id.with_for_update(read=True))

_sort_key: Final = sa.tuple_(warehouses.c.priority, warehouses.c.warehouse_id)
_cursor: Final = sa.tuple_(bindparam("priority", type_=sa.Integer), uuid_parameter("after"))
LIST_WAREHOUSES: Final = Statement(
    sa.select(warehouses)
    .where(sa.or_(uuid_parameter("after").is_(None), _sort_key > _cursor))
    .order_by(warehouses.c.priority, warehouses.c.warehouse_id)
    .limit(LIMIT)
)

INSERT_WAREHOUSE: Final = Statement(
    insert(warehouses)
    .values({column.name: bindparam(column.name) for column in warehouses.c})
    .on_conflict_do_nothing()
)
SAVE_WAREHOUSE: Final = Statement(
    sa.update(warehouses)
    .where(warehouses.c.warehouse_id == uuid_parameter("warehouse_id"))
    .values(
        {
            name: bindparam(f"new_{name}", type_=warehouses.c[name].type)
            for name in ("name", "priority", "active", "version")
        }
    )
)
DELETE_WAREHOUSE: Final = Statement(
    sa.delete(warehouses).where(warehouses.c.warehouse_id == uuid_parameter("warehouse_id"))
)

_in_warehouse: Final = stock.c.warehouse_id == uuid_parameter("warehouse_id")
HAS_STOCK_ROWS: Final = Statement(sa.select(sa.exists().where(_in_warehouse)))
HAS_STOCK: Final = Statement(
    sa.select(sa.exists().where(_in_warehouse, stock.c.on_hand + stock.c.reserved > ZERO))
)
