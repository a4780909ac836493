"""Stock and reservations in SQL: what the rest of the context sees of the statements."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg

from markethall.inventory.contract import (
    Movement,
    ProductStatus,
    ReservationStatus,
)
from markethall.inventory.domain import (
    Change,
    Free,
    Goods,
    Hold,
    Holding,
    Limits,
    Line,
    Stock,
    summed,
)
from markethall.inventory.ports import Expired, Supply
from markethall.inventory.sql import reservations, stock
from markethall.shared import sql as shared
from markethall.shared.money import Money

if TYPE_CHECKING:
    from asyncpg.protocol import Record

_NO_LIMITS: Final = Limits(0, 0)


class SqlStock(shared.SqlStore):
    """One transaction, or reads without one: stock and reservations."""

    # Stock

    async def levels(self, product_id: UUID, now: datetime) -> Sequence[Stock]:
        rows = await self._session.all(stock.LEVELS, of=product_id, now=now)
        return [Stock(**row) for row in rows]

    async def movement(self, movement_id: UUID) -> Movement | None:
        row = await self._session.one(stock.MOVEMENT, of=movement_id)
        return _movement(row) if row else None

    async def movements(
        self, product_id: UUID, before: int | None, limit: int
    ) -> Sequence[tuple[int, Movement]]:
        rows = await self._session.all(stock.MOVEMENTS, of=product_id, before=before, limit=limit)
        return [(row["number"], _movement(row)) for row in rows]

    async def movements_by(self, reference: UUID) -> Sequence[Movement]:
        rows = await self._session.all(stock.MOVEMENTS_BY, reference=reference)
        return [_movement(row) for row in rows]

    async def on_hand_at(self, product_id: UUID, at: datetime) -> Mapping[UUID, int]:
        rows = await self._session.all(stock.ON_HAND_AT, of=product_id, now=at)
        return {row["warehouse_id"]: row["on_hand"] for row in rows}

    async def shelves(
        self, product_ids: Collection[UUID], warehouse_id: UUID, now: datetime
    ) -> Sequence[Stock]:
        rows = await self._session.all(
            stock.SHELVES, product_ids=list(product_ids), in_warehouse=warehouse_id, now=now
        )
        return [Stock(**row) for row in rows]

    async def skus(
        self, product_ids: Collection[UUID], skus: Collection[str]
    ) -> Mapping[UUID, str]:
        lower = [sku.lower() for sku in skus]
        rows = await self._session.all(stock.SKUS, product_ids=list(product_ids), skus=lower)
        return {row["product_id"]: row["sku"] for row in rows}

    async def move(self, changes: Sequence[Change]) -> Sequence[Movement]:
        rows = await self._session.all(stock.MOVE, **_asked(changes))
        return [_movement(row) for row in rows]

    async def open_shelves(self, product_ids: Collection[UUID], warehouse_id: UUID) -> None:
        await self._session.run(
            stock.OPEN_SHELVES, product_ids=list(product_ids), in_warehouse=warehouse_id
        )

    async def sold(self, reference: UUID) -> bool:
        return bool(await self._session.value(stock.SOLD, reference=reference))

    # Reservations

    async def open(self, hold: Hold) -> bool:
        return bool(await self._session.run(reservations.OPEN, **_header(hold)))

    async def reserve_at_once(self, hold: Hold, goods: Goods, limits: Limits | None) -> Line | None:
        most = limits or _NO_LIMITS
        try:
            row = await self._session.one(
                reservations.RESERVE_AT_ONCE,
                **_header(hold),
                **_units(goods),
                **vars(most),
                unlimited=limits is None,
                now=hold.held_since,
            )
        except asyncpg.RaiseError:
            return None
        return _line(row) if row else None

    async def holding(self, hold: Hold, product_ids: Collection[UUID], now: datetime) -> Holding:
        rows = await self._session.all(
            reservations.HOLDING,
            customer=hold.customer_id,
            but=hold.reservation_id,
            product_ids=list(product_ids),
            now=now,
        )
        units: Counter[UUID] = Counter()
        for row in rows:
            units[row["product_id"]] += row["reserved"] or 0
        return Holding(len({row["reservation_id"] for row in rows}), units)

    async def take(self, hold: Hold, goods: Goods, *, ahead: bool) -> Line | None:
        row = await self._session.one(
            reservations.TAKE,
            reservation_id=hold.reservation_id,
            expires_at=hold.expires_at,
            now=hold.held_since,
            ahead=ahead,
            **_units(goods),
        )
        return _line(row) if row else None

    async def take_again(self, goods: Goods, *, ahead: bool) -> bool:
        return bool(await self._session.run(reservations.TAKE_AGAIN, ahead=ahead, **_units(goods)))

    async def extend_held(
        self, reservation_id: UUID, until: datetime, now: datetime
    ) -> Hold | None:
        return _hold(
            await self._session.all(
                reservations.EXTEND_HELD, of=reservation_id, until=until, now=now
            )
        )

    async def commit_held(self, reservation_id: UUID) -> Hold | None:
        return _hold(await self._session.all(reservations.COMMIT_HELD, of=reservation_id))

    async def find_hold(self, reservation_id: UUID) -> Hold | None:
        return _hold(await self._session.all(reservations.FIND_HOLD, of=reservation_id))

    async def hold(self, reservation_id: UUID) -> Hold | None:
        # two statements: the second one sees what the last owner of the lock has left
        if not await self._session.value(reservations.LOCK_HOLD, of=reservation_id):
            return None
        return await self.find_hold(reservation_id)

    async def holds_of(self, order_id: UUID, after: UUID | None, limit: int) -> Sequence[Hold]:
        rows = await self._session.all(reservations.HOLDS_OF, of=order_id, after=after, limit=limit)
        groups = groupby(rows, key=lambda row: row["reservation_id"])
        return [hold for _, group in groups if (hold := _hold(list(group)))]

    async def save_hold(self, hold: Hold) -> None:
        await self._session.run(
            reservations.SAVE_HOLD, of=hold.reservation_id, new_status=hold.status.value
        )

    async def save_lines(self, hold: Hold) -> None:
        await self.save_hold(hold)
        rows = [
            {
                "of": hold.reservation_id,
                "product": line.product_id,
                "in_warehouse": line.warehouse_id,
                "new_quantity": line.quantity,
                "new_consumed": line.consumed,
                "new_released": line.released,
            }
            for line in hold.lines
        ]
        await self._session.many(reservations.SAVE_LINE, rows)

    async def move_lines(self, hold: Hold) -> None:
        # in this order: a line that is kept by nobody leaves no shelf to be counted again
        await self._session.run(reservations.REMOVE_LINES, of=hold.reservation_id)
        await self.save_hold(hold)
        await self._session.many(reservations.ADD_LINE, (_row(hold, line) for line in hold.lines))

    async def note_release(self, release_id: UUID, reservation_id: UUID) -> bool:
        noted = await self._session.run(
            reservations.NOTE_RELEASE, release_id=release_id, reservation_id=reservation_id
        )
        return bool(noted)

    async def give_back(self, goods: Sequence[Goods], *, leaving: bool = False) -> None:  # noqa: ARG002 - the database looks when the transaction ends
        await self._session.many(reservations.GIVE_BACK, map(_units, goods))

    async def expire(
        self, now: datetime, limit: int, product_ids: Collection[UUID] | None
    ) -> Expired:
        if product_ids is None:
            rows = await self._session.all(reservations.EXPIRE, now=now, limit=limit)
        else:
            ids = list(product_ids)
            rows = await self._session.all(
                reservations.EXPIRE_OF, now=now, limit=limit, product_ids=ids
            )
        goods = [
            Goods(row["product_id"], row["warehouse_id"], row["reserved"])
            for row in rows
            if row["product_id"]
        ]
        return Expired(len({row["reservation_id"] for row in rows}), summed(goods))

    async def supply(self, product_ids: Collection[UUID], now: datetime) -> Mapping[UUID, Supply]:
        rows = await self._session.all(reservations.SUPPLY, product_ids=list(product_ids), now=now)
        groups = groupby(rows, key=lambda row: row["product_id"])
        return {product_id: _supply(list(group)) for product_id, group in groups}


def _asked(changes: Sequence[Change]) -> dict[str, Any]:
    first = changes[0]
    return {
        "movement_ids": [change.movement_id for change in changes],
        "product_ids": [change.product_id for change in changes],
        "warehouse_ids": [change.warehouse_id for change in changes],
        "deltas": [change.delta for change in changes],
        "counts": [change.counted for change in changes],
        "why": first.reason.value,
        "words": first.note,
        "reference": first.reference,
        "who": first.actor,
        "now": first.created_at,
    }


def _movement(row: "Record") -> Movement:
    return Movement(**{name: row[name] for name in Movement.model_fields})


def _header(hold: Hold) -> dict[str, Any]:
    row = {name: value for name, value in vars(hold).items() if name != "lines"}
    return row | {"customer": hold.customer_id}


def _units(goods: Goods) -> dict[str, Any]:
    return {"of": goods.product_id, "in_warehouse": goods.warehouse_id, "units": goods.quantity}


def _line(row: "Record") -> Line:
    return Line(
        product_id=row["product_id"],
        warehouse_id=row["warehouse_id"],
        sku=row["sku"],
        name=row["name"],
        unit_price=Money(amount=row["unit_amount"], currency=row["unit_currency"]),
        quantity=row["quantity"],
        consumed=row["consumed"],
        released=row["released"],
    )


def _row(hold: Hold, line: Line) -> dict[str, Any]:
    return {
        "reservation_id": hold.reservation_id,
        "status": hold.status.value,
        "expires_at": hold.expires_at,
        "unit_amount": line.unit_price.amount,
        "unit_currency": line.unit_price.currency,
        **{name: value for name, value in vars(line).items() if name != "unit_price"},
    }


def _supply(rows: "Sequence[Record]") -> Supply:
    """From the rows of one product, one per warehouse."""

    def shelves(name: str) -> tuple[Free, ...]:
        return tuple(Free(row["warehouse_id"], row["priority"], row[name]) for row in rows)

    for_sale = rows[0]["status"] == ProductStatus.ACTIVE
    return Supply(for_sale, shelves("free"), shelves("overdue"), shelves("backorder"))


def _hold(rows: "Sequence[Record]") -> Hold | None:
    """From the rows of one reservation, one per line."""
    if not rows:
        return None
    first = rows[0]
    return Hold(
        reservation_id=first["reservation_id"],
        order_id=first["order_id"],
        customer_id=first["customer_id"],
        status=ReservationStatus(first["status"]),
        held_since=first["held_since"],
        expires_at=first["expires_at"],
        lines=tuple(_line(row) for row in rows if row["product_id"]),
    )
