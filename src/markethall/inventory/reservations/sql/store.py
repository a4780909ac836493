from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import sqlalchemy as sa

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.sql.expressions import LIMIT, NOW, PRODUCT_IDS
from markethall.inventory.contract import ProductOffer, ReservationState, ReservationStatus
from markethall.inventory.reservations.domain.allocation import FreeStock
from markethall.inventory.reservations.domain.reservations import (
    CustomerLimits,
    CustomerUsage,
    Reservation,
    ReservationLine,
)
from markethall.inventory.reservations.ports import Availability, ExpiredReservations
from markethall.inventory.reservations.sql import statements
from markethall.inventory.reservations.sql.integrity import LIST_RESERVATION_STATES
from markethall.inventory.reservations.sql.tables import HELD, reservation_lines, reservations
from markethall.inventory.stock.domain import StockQuantity, sum_by_stock_row
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.postgres import Statement, sql_literal

if TYPE_CHECKING:
    from asyncpg.protocol import Record

# Statements that expire overdue reservations


def _expire_statement(overdue_reservations: "sa.CTE") -> Statement:
    """Expire the overdue reservations. Return the units that they held before this statement."""
    expired = (
        sa.update(reservations)
        .where(reservations.c.reservation_id == overdue_reservations.c.reservation_id)
        .values(status=sql_literal("expired"))
        .returning(reservations.c.reservation_id)
        .cte("expired")
    )
    expired_lines = sa.outerjoin(
        expired, reservation_lines, reservation_lines.c.reservation_id == expired.c.reservation_id
    )
    return Statement(
        sa.select(
            expired.c.reservation_id,
            reservation_lines.c.product_id,
            reservation_lines.c.warehouse_id,
            reservation_lines.c.reserved,
        ).select_from(expired_lines)
    )


_is_overdue: Final = sa.and_(reservations.c.status == HELD, reservations.c.expires_at <= NOW)
_has_products: Final = reservations.c.reservation_id.in_(
    sa.select(reservation_lines.c.reservation_id).where(
        reservation_lines.c.product_id == sa.any_(PRODUCT_IDS),
        reservation_lines.c.status == HELD,
        reservation_lines.c.expires_at <= NOW,
    )
)
# the periodic job skips locked reservations, because it runs again soon
EXPIRE_OVERDUE: Final = _expire_statement(
    sa.select(reservations.c.reservation_id)
    .where(_is_overdue)
    .order_by(reservations.c.expires_at)
    .limit(LIMIT)
    .with_for_update(skip_locked=True)
    .cte("due")
)
# A request that needs stock waits for locked reservations, because one of them may have this
# stock. The order by id avoids deadlocks.
EXPIRE_OVERDUE_OF_PRODUCTS: Final = _expire_statement(
    sa.select(reservations.c.reservation_id)
    .where(_is_overdue, _has_products)
    .order_by(reservations.c.reservation_id)
    .limit(LIMIT)
    .with_for_update()
    .cte("due")
)


_NO_LIMITS: Final = CustomerLimits(0, 0)
# the fields that have the same type in a row
_PLAIN_LINE_FIELDS: Final = tuple(
    field.name for field in fields(ReservationLine) if field.name not in {"unit_price", "tags"}
)


class SqlReservationStore(SqlUnitOfWork):
    async def get_untracked_products(self, product_ids: Collection[UUID]) -> Collection[UUID]:
        rows = await self._connection.fetch_all(
            statements.GET_UNTRACKED_PRODUCTS, product_ids=list(product_ids)
        )
        return {row["product_id"] for row in rows}

    async def insert_reservation(self, reservation: Reservation) -> bool:
        return await self._has_effect(statements.INSERT_RESERVATION, **vars(reservation))

    async def reserve_single_statement(
        self, reservation: Reservation, stock_quantity: StockQuantity, limits: CustomerLimits | None
    ) -> ReservationLine | None:
        try:
            row = await self._connection.fetch_one(
                statements.RESERVE_SINGLE_STATEMENT,
                **vars(reservation),
                **vars(stock_quantity),
                **vars(limits or _NO_LIMITS),
                unlimited=limits is None,
                now=reservation.reserved_at,
            )
        except asyncpg.RaiseError:
            return None
        return _reservation_line(row) if row else None

    async def get_customer_usage(
        self, reservation: Reservation, product_ids: Collection[UUID], now: datetime
    ) -> CustomerUsage:
        rows = await self._connection.fetch_all(
            statements.CUSTOMER_USAGE,
            customer_id=reservation.customer_id,
            reservation_id=reservation.reservation_id,
            product_ids=list(product_ids),
            now=now,
        )
        reserved_units: Counter[UUID] = Counter()
        for row in rows:
            reserved_units[row["product_id"]] += row["reserved"] or 0
        return CustomerUsage(len({row["reservation_id"] for row in rows}), reserved_units)

    async def reserve_line(
        self, reservation: Reservation, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> ReservationLine | None:
        row = await self._connection.fetch_one(
            statements.RESERVE_LINE,
            **vars(reservation),
            **vars(stock_quantity),
            now=reservation.reserved_at,
            include_backorder=include_backorder,
        )
        return _reservation_line(row) if row else None

    async def reserve_again(
        self, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> bool:
        return await self._has_effect(
            statements.RESERVE_AGAIN, include_backorder=include_backorder, **vars(stock_quantity)
        )

    async def list_reservation_states(
        self, after: tuple[UUID, UUID], limit: int
    ) -> Sequence[ReservationState]:
        rows = await self._connection.fetch_all(
            LIST_RESERVATION_STATES,
            after_order_id=after[0],
            after_reservation_id=after[1],
            limit=limit,
        )
        return [ReservationState(**dict(row)) for row in rows]

    async def extend_if_held(
        self, reservation_id: UUID, expires_at: datetime, now: datetime
    ) -> Reservation | None:
        return await self._fetch_reservation(
            statements.EXTEND_IF_HELD,
            reservation_id=reservation_id,
            new_expires_at=expires_at,
            now=now,
        )

    async def commit_if_held(self, reservation_id: UUID) -> Reservation | None:
        return await self._fetch_reservation(
            statements.COMMIT_IF_HELD, reservation_id=reservation_id
        )

    async def get_reservation(self, reservation_id: UUID) -> Reservation | None:
        return await self._fetch_reservation(
            statements.GET_RESERVATION, reservation_id=reservation_id
        )

    async def _fetch_reservation(self, statement: Statement, **values: Any) -> Reservation | None:
        rows = await self._connection.fetch_all(statement, **values)
        return _reservation(rows) if rows else None

    async def get_reservation_for_update(self, reservation_id: UUID) -> Reservation | None:
        # two statements, because only the second one sees changes that were committed while the
        # first one waited for the lock
        if not await self._connection.fetch_value(
            statements.LOCK_RESERVATION, reservation_id=reservation_id
        ):
            return None
        return await self.get_reservation(reservation_id)

    async def list_order_reservations(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Reservation]:
        rows = await self._connection.fetch_all(
            statements.LIST_ORDER_RESERVATIONS, order_id=order_id, after=after, limit=limit
        )
        groups = groupby(rows, key=lambda row: row["reservation_id"])
        return [_reservation(list(group)) for _, group in groups]

    async def save_reservation(self, reservation: Reservation) -> None:
        await self._connection.execute(
            statements.SAVE_RESERVATION,
            reservation_id=reservation.reservation_id,
            new_status=reservation.status.value,
        )

    async def save_reservation_lines(self, reservation: Reservation) -> None:
        await self.save_reservation(reservation)
        rows = [
            {
                "reservation_id": reservation.reservation_id,
                "product_id": line.product_id,
                "warehouse_id": line.warehouse_id,
                "new_quantity": line.quantity,
                "new_consumed": line.consumed,
                "new_released": line.released,
            }
            for line in reservation.lines
        ]
        await self._connection.execute_many(statements.SAVE_LINE, rows)

    async def replace_lines(self, reservation: Reservation) -> None:
        # Delete the lines before the status is updated. The update would cascade to them, and a
        # trigger would count their units a second time.
        await self._connection.execute(
            statements.DELETE_LINES, reservation_id=reservation.reservation_id
        )
        await self.save_reservation(reservation)
        await self._connection.execute_many(
            statements.INSERT_LINE,
            (_line_parameters(reservation, line) for line in reservation.lines),
        )

    async def record_partial_release(self, release_id: UUID, reservation_id: UUID) -> bool:
        return await self._has_effect(
            statements.RECORD_PARTIAL_RELEASE, release_id=release_id, reservation_id=reservation_id
        )

    async def release_stock(
        self, quantities: Sequence[StockQuantity], *, is_consumed: bool = False
    ) -> None:
        await self._connection.execute_many(statements.RELEASE_STOCK, map(vars, quantities))

    async def expire_reservations(
        self, now: datetime, limit: int, product_ids: Collection[UUID] | None
    ) -> ExpiredReservations:
        statement = EXPIRE_OVERDUE
        if product_ids is not None:
            statement = EXPIRE_OVERDUE_OF_PRODUCTS
        rows = await self._connection.fetch_all(
            statement, now=now, limit=limit, product_ids=list(product_ids or ())
        )
        quantities = [
            StockQuantity(row["product_id"], row["warehouse_id"], row["reserved"])
            for row in rows
            if row["product_id"]
        ]
        return ExpiredReservations(
            len({row["reservation_id"] for row in rows}), sum_by_stock_row(quantities)
        )

    async def get_availability(
        self, product_ids: Collection[UUID], now: datetime
    ) -> Mapping[UUID, Availability]:
        rows = await self._connection.fetch_all(
            statements.AVAILABILITY, product_ids=list(product_ids), now=now
        )
        groups = groupby(rows, key=lambda row: row["product_id"])
        return {product_id: _availability(list(group)) for product_id, group in groups}

    async def list_offers(
        self, product_ids: Collection[UUID], currency: str | None, now: datetime
    ) -> Sequence[ProductOffer]:
        rows = await self._connection.fetch_all(
            statements.LIST_OFFERS, product_ids=list(product_ids), currency=currency, now=now
        )
        return [_to_offer(row) for row in rows]


def _reservation_line(row: "Record") -> ReservationLine:
    return ReservationLine(
        **{name: row[name] for name in _PLAIN_LINE_FIELDS},
        unit_price=Money(amount=row["unit_amount"], currency=row["unit_currency"]),
        tags=tuple(row["tags"]),
    )


def _line_parameters(reservation: Reservation, line: ReservationLine) -> dict[str, Any]:
    return {
        "reservation_id": reservation.reservation_id,
        "status": reservation.status.value,
        "expires_at": reservation.expires_at,
        "unit_amount": line.unit_price.amount,
        "unit_currency": line.unit_price.currency,
        **{name: value for name, value in vars(line).items() if name != "unit_price"},
    }


def _to_offer(row: "Record") -> ProductOffer:
    price = Money(amount=row["price_amount"], currency=row["price_currency"])
    return ProductOffer(**dict(row) | {"unit_price": price})


def _availability(rows: "Sequence[Record]") -> Availability:
    """Build the availability of one product from its rows, one per warehouse."""

    def free_stock(name: str) -> tuple[FreeStock, ...]:
        return tuple(FreeStock(row["warehouse_id"], row["priority"], row[name]) for row in rows)

    is_active = rows[0]["status"] == ProductStatus.ACTIVE
    return Availability(
        is_active, free_stock("free"), free_stock("overdue"), free_stock("backorder")
    )


def _reservation(rows: "Sequence[Record]") -> Reservation:
    """Build one reservation from its rows, one per line."""
    names = ("reservation_id", "order_id", "customer_id", "reserved_at", "expires_at")
    return Reservation(
        **{name: rows[0][name] for name in names},
        status=ReservationStatus(rows[0]["status"]),
        lines=tuple(_reservation_line(row) for row in rows if row["product_id"]),
    )
