"""Rows <-> entities, and the statements behind each word of the port."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from markethall.orders.contract import (
    Address,
    FulfilmentState,
    FulfilmentStatus,
    OrdersQuery,
    OrderState,
    OrderStatus,
    PaymentState,
)
from markethall.orders.domain import Entry, Fulfilment, Line, Order, ShippedLine
from markethall.orders.ports import Changed, Place
from markethall.orders.sql import statements as sql
from markethall.orders.sql.tables import metadata, orders
from markethall.shared.sql import ContextStatements, SqlStore

if TYPE_CHECKING:
    from asyncpg.protocol import Record

STATEMENTS = ContextStatements(metadata)

_FIRST = Place(datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))
# what stands in a row under the name that it has in the entity
_PLAIN = tuple(
    column.name
    for column in orders.c
    if column.name
    not in {
        "status",
        "payment_status",
        "fulfilment_status",
        "shipping_address",
        "billing_address",
        "subtotal",
        "total",
    }
)


class SqlOrders(SqlStore):
    async def add(self, order: Order) -> int | None:
        number: int | None = await self._session.value(
            sql.ADD, **_row(order), **_line_arrays(order.lines), **_news(order.news)
        )
        return number

    async def save(self, order: Order) -> None:
        if not order.news:
            return
        written = await self._session.run(
            sql.SAVE,
            of=order.order_id,
            was=order.saved_version,
            **{f"new_{name}": getattr(order, name) for name in sql.CHANGING},
            **_arrays("line", ("line_id", "fulfilled", "delivered"), order.lines),
            **_news(order.news),
        )
        if not written:
            raise Changed

    async def add_fulfilment(self, fulfilment: Fulfilment) -> None:
        await self._session.run(
            sql.ADD_FULFILMENT,
            fulfilment_id=fulfilment.fulfilment_id,
            order_id=fulfilment.order_id,
            status=fulfilment.status,
            carrier=fulfilment.carrier,
            tracking_number=fulfilment.tracking_number,
            shipped_at=fulfilment.shipped_at,
            delivered_at=fulfilment.delivered_at,
            **_arrays("line", ("line_id", "quantity"), fulfilment.lines),
        )

    async def save_fulfilment(self, fulfilment: Fulfilment) -> None:
        saved = await self._session.run(
            sql.SAVE_FULFILMENT,
            of=fulfilment.fulfilment_id,
            new_status=fulfilment.status,
            now=fulfilment.delivered_at,
        )
        if not saved:
            raise Changed

    async def order(self, order_id: UUID) -> Order | None:
        row = await self._session.one(sql.ORDER, of=order_id)
        return _order(row) if row else None

    async def state(self, order_id: UUID) -> tuple[UUID, OrderState] | None:
        row = await self._session.one(sql.STATE, of=order_id)
        return (row["user_id"], OrderState(**dict(row))) if row else None

    async def entries(self, order_id: UUID) -> Sequence[Entry]:
        rows = await self._session.all(sql.ENTRIES, of=order_id)
        return [_entry(row) for row in rows]

    async def fulfilment(self, fulfilment_id: UUID) -> Fulfilment | None:
        row = await self._session.one(sql.FULFILMENT, of=fulfilment_id)
        return _fulfilment(row) if row else None

    async def orders(
        self, query: OrdersQuery, owner_id: UUID | None, after: Place | None
    ) -> Sequence[Order]:
        values = _filters(query, owner_id)
        statement = sql.listing(frozenset(values), query.sort, continued=after is not None)
        place = _place(after) if after else {}
        rows = await self._session.all(statement, **values, **place, limit=query.limit + 1)
        return [_order(row) for row in rows]

    async def overdue(self, now: datetime, after: Place | None, limit: int) -> Sequence[Order]:
        place = _place(after or _FIRST)
        rows = await self._session.all(sql.OVERDUE, now=now, **place, limit=limit)
        return [_order(row) for row in rows]

    async def count(self) -> int:
        number: int = await self._session.value(sql.COUNT)
        return number


def _row(order: Order) -> dict[str, Any]:
    row = {column.name: getattr(order, column.name) for column in orders.c}
    return row | {
        "shipping_address": _json(order.shipping_address),
        "billing_address": order.billing_address and _json(order.billing_address),
    }


def _order(row: "Record") -> Order:
    return Order(
        **{name: row[name] for name in _PLAIN},
        status=OrderStatus(row["status"]),
        payment_status=PaymentState(row["payment_status"]),
        fulfilment_status=FulfilmentState(row["fulfilment_status"]),
        shipping_address=_address(row["shipping_address"]),
        billing_address=row["billing_address"] and _address(row["billing_address"]),
        lines=tuple(_line(line) for line in json.loads(row["lines"])),
    )


def _line(line: Mapping[str, Any]) -> Line:
    return Line(
        line_id=UUID(line["line_id"]),
        product_id=UUID(line["product_id"]),
        sku=line["sku"],
        name=line["name"],
        unit_price=line["unit_price"],
        quantity=line["quantity"],
        fulfilled=line["fulfilled"],
        delivered=line["delivered"],
    )


def _entry(row: "Record") -> Entry:
    return Entry(
        version=row["version"],
        change=row["change"],
        actor=row["actor"],
        at=row["at"],
        reason=row["reason"],
        status=OrderStatus(row["status"]),
        payment_status=PaymentState(row["payment_status"]),
        fulfilment_status=FulfilmentState(row["fulfilment_status"]),
    )


def _fulfilment(row: "Record") -> Fulfilment:
    return Fulfilment(
        fulfilment_id=row["fulfilment_id"],
        order_id=row["order_id"],
        status=FulfilmentStatus(row["status"]),
        carrier=row["carrier"],
        tracking_number=row["tracking_number"],
        shipped_at=row["shipped_at"],
        delivered_at=row["delivered_at"],
        lines=tuple(
            ShippedLine(UUID(line["line_id"]), UUID(line["product_id"]), line["quantity"])
            for line in json.loads(row["lines"])
        ),
    )


def _json(address: str | Address) -> str:
    return address.model_dump_json() if isinstance(address, Address) else json.dumps(address)


def _address(text: str) -> str | Address:
    value = json.loads(text)
    return value if isinstance(value, str) else Address.model_validate(value)


def _news(news: Sequence[Entry]) -> dict[str, list[Any]]:
    return _arrays("news", sql.NEWS_COLUMNS, news)


def _line_arrays(lines: Sequence[Line]) -> dict[str, list[Any]]:
    names = tuple(name for name in sql.LINE_COLUMNS if name != "position")
    return _arrays("line", names, lines) | {"line_position": list(range(1, len(lines) + 1))}


def _arrays(alias: str, names: Iterable[str], things: Sequence[Any]) -> dict[str, list[Any]]:
    """One array per column, as the statements want them."""
    return {f"{alias}_{name}": [getattr(thing, name) for thing in things] for name in names}


def _filters(query: OrdersQuery, owner_id: UUID | None) -> dict[str, Any]:
    given = query.model_dump(exclude={"limit", "cursor", "sort"}, exclude_none=True)
    if query.number:
        given["number"] = int(query.number.removeprefix("MH-"))
    return given if owner_id is None else given | {"owner_id": owner_id}


def _place(place: Place) -> dict[str, Any]:
    return {"after_at": place.at, "after_id": place.order_id}
