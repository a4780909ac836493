"""The reads of the integrity checks of inventory in Postgres."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam

from markethall.inventory.catalogue.sql.expressions import LIMIT, sum_or_zero, uuid_parameter
from markethall.inventory.reservations.domain.integrity import (
    OnHandSum,
    OverdueReservation,
    ReservedSum,
)
from markethall.inventory.reservations.sql.tables import HELD, reservation_lines, reservations
from markethall.inventory.stock.sql.tables import movements, stock
from markethall.shared.persistence.postgres import Connection, Statement

_NO_ID: Final = UUID(int=0)
_EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
_key = (stock.c.product_id, stock.c.warehouse_id)


def _of_stock_row(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(
        table.c.product_id == stock.c.product_id, table.c.warehouse_id == stock.c.warehouse_id
    )


def _page(statement: "sa.Select[Any]") -> Statement:
    """Limit a statement to one page of stock rows, after the previous page's last stock row."""
    after = sa.tuple_(uuid_parameter("after_product_id"), uuid_parameter("after_warehouse_id"))
    return Statement(statement.where(sa.tuple_(*_key) > after).order_by(*_key).limit(LIMIT))


_LIST_ON_HAND_SUMS: Final = _page(
    sa.select(
        *_key,
        stock.c.on_hand,
        sa.select(sum_or_zero(movements.c.delta))
        .where(_of_stock_row(movements))
        .scalar_subquery()
        .label("moved"),
    )
)
_LIST_RESERVED_SUMS: Final = _page(
    sa.select(
        *_key,
        stock.c.on_hand,
        stock.c.backorder,
        stock.c.reserved,
        sa.select(sum_or_zero(reservation_lines.c.reserved))
        # the condition `reserved > 0` lets Postgres use the index of the live lines
        .where(_of_stock_row(reservation_lines), reservation_lines.c.reserved > 0)
        .scalar_subquery()
        .label("reserved_by_lines"),
    )
)
_LIST_OVERDUE: Final = Statement(
    sa.select(reservations.c.reservation_id, reservations.c.order_id, reservations.c.expires_at)
    .where(
        reservations.c.status == HELD,
        reservations.c.expires_at < bindparam("before"),
        sa.tuple_(reservations.c.expires_at, reservations.c.reservation_id)
        > sa.tuple_(
            bindparam("after_time", type_=sa.TIMESTAMP(timezone=True)), uuid_parameter("after_id")
        ),
    )
    .order_by(reservations.c.expires_at, reservations.c.reservation_id)
    .limit(LIMIT)
)

LIST_RESERVATION_STATES: Final = Statement(
    sa.select(reservations.c.reservation_id, reservations.c.order_id, reservations.c.status)
    .where(
        sa.tuple_(reservations.c.order_id, reservations.c.reservation_id)
        > sa.tuple_(uuid_parameter("after_order_id"), uuid_parameter("after_reservation_id"))
    )
    .order_by(reservations.c.order_id, reservations.c.reservation_id)
    .limit(LIMIT)
)


class SqlIntegrityReads:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list_on_hand_sums(
        self, after: tuple[UUID, UUID] | None, limit: int
    ) -> Sequence[OnHandSum]:
        rows = await self._fetch_stock(_LIST_ON_HAND_SUMS, after, limit)
        return [OnHandSum(**dict(row)) for row in rows]

    async def list_reserved_sums(
        self, after: tuple[UUID, UUID] | None, limit: int
    ) -> Sequence[ReservedSum]:
        rows = await self._fetch_stock(_LIST_RESERVED_SUMS, after, limit)
        return [ReservedSum(**dict(row)) for row in rows]

    async def list_overdue_reservations(
        self, before: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[OverdueReservation]:
        after_time, after_id = after or (_EARLIEST, _NO_ID)
        rows = await self._connection.fetch_all(
            _LIST_OVERDUE, before=before, after_time=after_time, after_id=after_id, limit=limit
        )
        return [OverdueReservation(**dict(row)) for row in rows]

    async def _fetch_stock(
        self, statement: Statement, after: tuple[UUID, UUID] | None, limit: int
    ) -> Sequence[Any]:
        product_id, warehouse_id = after or (_NO_ID, _NO_ID)
        return await self._connection.fetch_all(
            statement, after_product_id=product_id, after_warehouse_id=warehouse_id, limit=limit
        )
