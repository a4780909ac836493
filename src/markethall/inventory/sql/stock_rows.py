"""Stock and reservations in SQL: what the rest of the context sees of the statements."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import UUID

from markethall.inventory.contract import (
    Movement,
    ProductStatus,
    ReservationStatus,
)
from markethall.inventory.domain import (
    Change,
    Goods,
    Hold,
    Line,
    Stock,
    summed,
)
from markethall.inventory.ports import Expired, Standing
from markethall.inventory.sql import products, reservations, stock
from markethall.shared import sql as shared
from markethall.shared.money import Money

if TYPE_CHECKING:
    from asyncpg.protocol import Record


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

    async def move(self, change: Change) -> Movement | None:
        row = await self._session.one(stock.MOVE, **_move(change))
        return _movement(row) if row else None

    async def sell(self, changes: Sequence[Change]) -> None:
        await self._session.many(stock.MOVE, map(_move, changes))

    async def sold(self, reference: UUID) -> bool:
        return bool(await self._session.value(stock.SOLD, reference=reference))

    # Reservations

    async def open(self, hold: Hold) -> bool:
        row = {name: value for name, value in vars(hold).items() if name != "lines"}
        return bool(await self._session.run(reservations.OPEN, **row))

    async def take(self, hold: Hold, goods: Goods) -> Line | None:
        row = await self._session.one(
            reservations.TAKE,
            reservation=hold.reservation_id,
            expires=hold.expires_at,
            **_units(goods),
        )
        return _line(row) if row else None

    async def take_again(self, goods: Goods) -> bool:
        return bool(await self._session.run(reservations.TAKE_AGAIN, **_units(goods)))

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

    async def save_consumed(self, hold: Hold) -> None:
        await self.save_hold(hold)
        rows = [
            {
                "of": hold.reservation_id,
                "product": line.product_id,
                "in_warehouse": line.warehouse_id,
                "new_consumed": line.consumed,
            }
            for line in hold.lines
        ]
        await self._session.many(reservations.SAVE_CONSUMED, rows)

    async def give_back(self, goods: Sequence[Goods]) -> None:
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

    async def standing(
        self, product_ids: Collection[UUID], now: datetime
    ) -> Mapping[UUID, Standing]:
        rows = await self._session.all(products.STANDING, product_ids=list(product_ids), now=now)
        return {
            row["product_id"]: Standing(row["status"] == ProductStatus.ACTIVE, row["available"])
            for row in rows
        }


def _move(change: Change) -> dict[str, Any]:
    return {
        "movement": change.movement_id,
        "of": change.product_id,
        "in_warehouse": change.warehouse_id,
        "by": change.delta,
        "counted": change.counted,
        "why": change.reason.value,
        "words": change.note,
        "fulfilment": change.reference,
        "who": change.actor,
        "now": change.created_at,
    }


def _movement(row: "Record") -> Movement:
    return Movement(**{name: row[name] for name in Movement.model_fields})


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
    )


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
        expires_at=first["expires_at"],
        lines=tuple(_line(row) for row in rows if row["product_id"]),
    )
