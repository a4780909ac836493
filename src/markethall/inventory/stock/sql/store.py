from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.inventory.catalogue.domain.text_keys import sku_key
from markethall.inventory.catalogue.sql.expressions import (
    LIMIT,
    NOW,
    PRODUCT_IDS,
    ZERO,
    bigint_parameter,
    insert_row,
    new_values,
    overdue_quantity,
    sum_or_zero,
    text_parameter,
    texts_parameter,
    uuid_parameter,
)
from markethall.inventory.catalogue.sql.tables import products
from markethall.inventory.stock.contract import Movement
from markethall.inventory.stock.domain import MAIN_WAREHOUSE, Stock, StockChange, Warehouse
from markethall.inventory.stock.sql.tables import movements, stock, warehouses
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.persistence.postgres import Statement, sql_literal

if TYPE_CHECKING:
    from asyncpg.protocol import Record

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
            products.c.sku_key == sa.any_(texts_parameter("skus")),
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
_reason: Final = text_parameter("reason")
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
            text_parameter("note"),
            uuid_parameter("reference"),
            text_parameter("actor"),
            NOW,
        ).where(
            _on_hand_after >= ZERO,
            _on_hand_after + _locked_stock.c.backorder >= _locked_stock.c.reserved,
        ),
    )
    .on_conflict_do_nothing()
    .returning(movements)
)


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

INSERT_WAREHOUSE: Final = Statement(insert_row(warehouses))
SAVE_WAREHOUSE: Final = Statement(
    sa.update(warehouses)
    .where(warehouses.c.warehouse_id == uuid_parameter("warehouse_id"))
    .values(new_values(warehouses.c, "warehouse_id"))
)
DELETE_WAREHOUSE: Final = Statement(
    sa.delete(warehouses).where(warehouses.c.warehouse_id == uuid_parameter("warehouse_id"))
)

_in_warehouse: Final = stock.c.warehouse_id == uuid_parameter("warehouse_id")
HAS_STOCK_ROWS: Final = Statement(sa.select(sa.exists().where(_in_warehouse)))
HAS_STOCK: Final = Statement(
    sa.select(sa.exists().where(_in_warehouse, stock.c.on_hand + stock.c.reserved > ZERO))
)


class SqlStockStore(SqlUnitOfWork):
    async def get_product_stock(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        rows = await self._connection.fetch_all(PRODUCT_STOCK, product_id=product_id, now=now)
        return [Stock(**row) for row in rows]

    async def get_movement(self, movement_id: UUID) -> Movement | None:
        row = await self._connection.fetch_one(GET_MOVEMENT, movement_id=movement_id)
        return _movement(row) if row else None

    async def list_movements(
        self, product_id: UUID, before: int | None, limit: int
    ) -> Sequence[tuple[int, Movement]]:
        rows = await self._connection.fetch_all(
            LIST_MOVEMENTS, product_id=product_id, before=before, limit=limit
        )
        return [(row["number"], _movement(row)) for row in rows]

    async def list_movements_by_reference(self, reference: UUID) -> Sequence[Movement]:
        rows = await self._connection.fetch_all(LIST_MOVEMENTS_BY_REFERENCE, reference=reference)
        return [_movement(row) for row in rows]

    async def get_on_hand_at(self, product_id: UUID, at: datetime) -> Mapping[UUID, int]:
        rows = await self._connection.fetch_all(ON_HAND_AT, product_id=product_id, now=at)
        return {row["warehouse_id"]: row["on_hand"] for row in rows}

    async def get_warehouse_stock(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        rows = await self._connection.fetch_all(
            WAREHOUSE_STOCK,
            product_ids=list(product_ids),
            warehouse_id=warehouse_id,
            now=now,
        )
        return [Stock(**row) for row in rows]

    async def get_skus(
        self, product_ids: Collection[UUID], skus: Collection[str]
    ) -> Mapping[UUID, str]:
        rows = await self._connection.fetch_all(
            SKUS, product_ids=list(product_ids), skus=list(map(sku_key, skus))
        )
        return {row["product_id"]: row["sku"] for row in rows}

    async def apply_changes(self, changes: Sequence[StockChange]) -> Sequence[Movement]:
        rows = await self._connection.fetch_all(APPLY_CHANGES, **_change_parameters(changes))
        return [_movement(row) for row in rows]

    async def ensure_stock_rows(self, product_ids: Collection[UUID], warehouse_id: UUID) -> None:
        await self._connection.execute(
            ENSURE_STOCK_ROWS,
            product_ids=list(product_ids),
            warehouse_id=warehouse_id,
        )

    async def ensure_main_stock_row(self, product_id: UUID) -> None:
        await self.ensure_stock_rows([product_id], MAIN_WAREHOUSE)


class SqlWarehouseStore(SqlUnitOfWork):
    async def get_warehouse(self, warehouse_id: UUID) -> Warehouse | None:
        return await self._get_warehouse(GET_WAREHOUSE, warehouse_id)

    async def get_warehouse_for_update(self, warehouse_id: UUID) -> Warehouse | None:
        return await self._get_warehouse(GET_WAREHOUSE_FOR_UPDATE, warehouse_id)

    async def get_warehouse_for_share(self, warehouse_id: UUID) -> Warehouse | None:
        return await self._get_warehouse(GET_WAREHOUSE_FOR_SHARE, warehouse_id)

    async def list_warehouses(
        self, after: tuple[int, UUID] | None, limit: int
    ) -> Sequence[Warehouse]:
        priority, after_id = after or (None, None)
        rows = await self._connection.fetch_all(
            LIST_WAREHOUSES, priority=priority, after=after_id, limit=limit
        )
        return [Warehouse(**row) for row in rows]

    async def insert_warehouse(self, warehouse: Warehouse) -> bool:
        return await self._has_effect(INSERT_WAREHOUSE, **vars(warehouse))

    async def save_warehouse(self, warehouse: Warehouse) -> None:
        row = {f"new_{name}": value for name, value in vars(warehouse).items()}
        await self._connection.execute(SAVE_WAREHOUSE, warehouse_id=warehouse.warehouse_id, **row)

    async def delete_warehouse(self, warehouse_id: UUID) -> None:
        await self._connection.execute(DELETE_WAREHOUSE, warehouse_id=warehouse_id)

    async def has_stock(self, warehouse_id: UUID) -> bool:
        return await self._fetch_bool(HAS_STOCK, warehouse_id=warehouse_id)

    async def has_stock_rows(self, warehouse_id: UUID) -> bool:
        return await self._fetch_bool(HAS_STOCK_ROWS, warehouse_id=warehouse_id)

    async def _get_warehouse(self, statement: Statement, warehouse_id: UUID) -> Warehouse | None:
        row = await self._connection.fetch_one(statement, warehouse_id=warehouse_id)
        return Warehouse(**row) if row else None


def _change_parameters(changes: Sequence[StockChange]) -> dict[str, Any]:
    first = changes[0]
    return {
        "movement_ids": [change.movement_id for change in changes],
        "product_ids": [change.product_id for change in changes],
        "warehouse_ids": [change.warehouse_id for change in changes],
        "deltas": [change.delta for change in changes],
        "counts": [change.counted for change in changes],
        "reason": first.reason.value,
        "note": first.note,
        "reference": first.reference,
        "actor": first.actor,
        "now": first.created_at,
    }


def _movement(row: "Record") -> Movement:
    return Movement(**{name: row[name] for name in Movement.model_fields})
