"""The Postgres store of orders. It runs the statements and maps rows to entities."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from markethall.orders.carts.sql import SqlCartStore
from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.configuration.sql import metadata
from markethall.orders.contract import (
    Address,
    FulfilmentStatus,
    OrderFilters,
    OrderFulfilmentStatus,
    OrderPaymentStatus,
    OrderStatus,
    OrderStatusView,
    VersionedOrderStatus,
)
from markethall.orders.domain import (
    Fulfilment,
    FulfilmentLine,
    Order,
    OrderLine,
    TimelineEntry,
    TimeSpan,
    split_number,
)
from markethall.orders.domain.promotion_uses import (
    UseChange,
    build_redemption,
    find_use_change,
)
from markethall.orders.drafts.sql import SqlDraftStore
from markethall.orders.invoices.domain import NewInvoice
from markethall.orders.invoices.sql import SqlInvoiceStore, invoice_values
from markethall.orders.promotions.sql import SqlPromotionStore
from markethall.orders.returns.sql import SqlReturnStore
from markethall.orders.sql import edit_statements as edits
from markethall.orders.sql import statements as sql
from markethall.orders.sql.breakdowns import (
    line_fields,
    line_to_json,
    shipping_from_json,
    shipping_to_json,
)
from markethall.orders.sql.tables import orders
from markethall.shared.composition.sql import ContextStatements
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.lookup_key import to_lookup_key
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.messaging.events import Delivery, Event
from markethall.shared.messaging.sql.combined_writes import delivery_values, event_values
from markethall.shared.persistence.postgres import Connection

if TYPE_CHECKING:
    from asyncpg.protocol import Record

STATEMENTS = ContextStatements(metadata)

# columns that have the same name and type in the entity
_PLAIN_COLUMNS = tuple(
    column.name
    for column in orders.c
    if column.name
    not in {
        "status",
        "payment_status",
        "fulfilment_status",
        "email_key",
        "shipping_address",
        "billing_address",
        "subtotal",
        "total",
        "shipping_line",
        "tags",
        "metadata",
    }
)


class SqlOrderStore(
    SqlDraftStore, SqlCartStore, SqlPromotionStore, SqlReturnStore, SqlInvoiceStore
):
    def __init__(self, connection: Connection, statements: ContextStatements, clock: Clock) -> None:
        super().__init__(connection, statements, clock)
        self.saved_order_ids: set[UUID] = set()

    async def add_order(self, order: Order, event: Event, ctx: CallContext) -> int | None:
        number: int | None = await self._connection.fetch_value(
            sql.INSERT_ORDER,
            **_order_row(order, orders.c.keys()),
            **_line_arrays(order.lines),
            **_timeline_arrays(order.pending_timeline_entries),
            **event_values(self._wrap_events([event], ctx)),
        )
        if number is not None:
            self._note_published([event])
        return number

    async def save_order(self, order: Order) -> None:
        if not order.pending_timeline_entries:
            return
        if not await self._connection.execute(sql.UPDATE_ORDER, **_update_values(order)):
            raise ConcurrentUpdate
        await self._follow_promotions(order)
        self.saved_order_ids.add(order.order_id)

    async def save_handled_order(
        self,
        delivery: Delivery,
        order: Order,
        events: Sequence[Event],
        invoice: NewInvoice | None = None,
    ) -> bool:
        row = await self._connection.fetch_one(
            sql.SAVE_PAID_ORDER if invoice else sql.SAVE_HANDLED_ORDER,
            **(invoice_values(invoice) if invoice else {}),
            **_update_values(order),
            **event_values(self._wrap_events(events, delivery.call_context())),
            **delivery_values(delivery, self._clock()),
        )
        if row is None or not row["was_waiting"]:
            return False
        if not row["is_saved"]:
            raise ConcurrentUpdate
        await self._follow_promotions(order)
        self.saved_order_ids.add(order.order_id)
        self._note_published(events)
        return True

    async def save_edited_order(self, order: Order, edit_id: UUID) -> None:
        await self.save_order(order)
        order_id = order.order_id
        amounts = _order_row(order, edits.AMOUNT_COLUMNS)
        await self._connection.execute(edits.UPDATE_AMOUNTS, order_id=order_id, **amounts)
        await self._connection.execute(edits.DELETE_LINES, order_id=order_id)
        await self._connection.execute(
            edits.INSERT_LINES, order_id=order_id, **_line_arrays(order.lines)
        )
        await self._connection.execute(
            edits.INSERT_EDIT,
            edit_id=edit_id,
            order_id=order_id,
            version=order.version,
            total=order.total,
            created_at=order.updated_at,
        )

    async def has_edit(self, edit_id: UUID) -> bool:
        return bool(await self._connection.fetch_value(edits.HAS_EDIT, edit_id=edit_id))

    async def _follow_promotions(self, order: Order) -> None:
        match find_use_change(order):
            case UseChange.GIVE_BACK:
                await self.give_back_promotions(order.order_id)
            case UseChange.REDEEM_AGAIN:
                await self.redeem_promotions(build_redemption(order, is_reinstatement=True))
            case UseChange.MOVE:
                await self.move_promotion_uses(order.order_id, order.user_id)

    async def add_fulfilment(self, fulfilment: Fulfilment) -> None:
        await self._connection.execute(
            sql.INSERT_FULFILMENT,
            fulfilment_id=fulfilment.fulfilment_id,
            order_id=fulfilment.order_id,
            status=fulfilment.status,
            carrier=fulfilment.carrier,
            tracking_number=fulfilment.tracking_number,
            shipped_at=fulfilment.shipped_at,
            delivered_at=fulfilment.delivered_at,
            failed_at=fulfilment.failed_at,
            restocked=fulfilment.restocked,
            **_arrays("line", ("line_id", "quantity"), fulfilment.lines),
        )

    async def save_fulfilment(self, fulfilment: Fulfilment) -> None:
        saved = await self._connection.execute(
            sql.UPDATE_FULFILMENT,
            fulfilment_id=fulfilment.fulfilment_id,
            status=fulfilment.status,
            delivered_at=fulfilment.delivered_at,
            failed_at=fulfilment.failed_at,
            restocked=fulfilment.restocked,
        )
        if not saved:
            raise ConcurrentUpdate

    async def get_guest_owner_for_update(self, guest_id: UUID) -> UUID | None:
        user_id: UUID | None = await self._connection.fetch_value(
            sql.GET_GUEST_OWNER_FOR_UPDATE, guest_id=guest_id
        )
        return user_id

    async def set_guest_owner(self, guest_id: UUID, user_id: UUID) -> None:
        await self._connection.execute(sql.SET_GUEST_OWNER, guest_id=guest_id, user_id=user_id)

    async def get_order(self, order_id: UUID) -> Order | None:
        row = await self._connection.fetch_one(sql.GET_ORDER, order_id=order_id)
        return _to_order(row) if row else None

    async def get_order_status(self, order_id: UUID) -> tuple[UUID, VersionedOrderStatus] | None:
        row = await self._connection.fetch_one(sql.GET_ORDER_STATUS, order_id=order_id)
        if row is None:
            return None
        status = OrderStatusView(**dict(row))
        return row["user_id"], VersionedOrderStatus(status, row["version"])

    async def get_order_versions(self, order_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        rows = await self._connection.fetch_all(sql.GET_ORDER_VERSIONS, order_ids=order_ids)
        return {row["order_id"]: row["version"] for row in rows}

    async def list_timeline_entries(
        self, order_id: UUID, after_version: int = 0, limit: int | None = None
    ) -> Sequence[TimelineEntry]:
        rows = await self._connection.fetch_all(
            sql.LIST_TIMELINE_ENTRIES,
            order_id=order_id,
            after_version=after_version,
            limit=limit,
        )
        return [_to_timeline_entry(row) for row in rows]

    async def get_fulfilment(self, fulfilment_id: UUID) -> Fulfilment | None:
        row = await self._connection.fetch_one(sql.GET_FULFILMENT, fulfilment_id=fulfilment_id)
        return _to_fulfilment(row) if row else None

    async def list_fulfilments(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Fulfilment]:
        rows = await self._connection.fetch_all(
            sql.LIST_FULFILMENTS, order_id=order_id, after=after, limit=limit
        )
        return [_to_fulfilment(row) for row in rows]

    async def list_orders(
        self, filters: OrderFilters, owner_id: UUID | None, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        values = _filter_values(filters, owner_id)
        statement = sql.list_orders(frozenset(values), filters.sort, after_keyset=after is not None)
        keyset = _keyset_values(after) if after else {}
        rows = await self._connection.fetch_all(statement, **values, **keyset, limit=limit)
        return [_to_order(row) for row in rows]

    async def list_pending_orders(
        self, created: Sequence[TimeSpan], now: datetime, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        rows = await self._connection.fetch_all(
            sql.list_pending_orders(after_keyset=after is not None),
            span_after=[span.after for span in created],
            span_until=[span.until for span in created],
            now=now,
            limit=limit,
            **(_keyset_values(after) if after else {}),
        )
        return [_to_order(row) for row in rows]

    async def list_overdue_orders(self, now: datetime, limit: int) -> Sequence[Order]:
        rows = await self._connection.fetch_all(sql.LIST_OVERDUE_ORDERS, now=now, limit=limit)
        return [_to_order(row) for row in rows]

    async def postpone_overdue_checks(self, next_checks: Mapping[UUID, datetime]) -> None:
        await self._connection.execute(
            sql.POSTPONE_OVERDUE_CHECKS,
            check_order_id=list(next_checks),
            check_overdue_check_at=list(next_checks.values()),
        )

    async def count(self) -> int:
        number: int = await self._connection.fetch_value(sql.COUNT_ORDERS)
        return number


def _order_row(order: Order, names: Iterable[str]) -> dict[str, Any]:
    row = {name: getattr(order, name) for name in names}
    return row | {name: encode(row[name]) for name, encode in _ENCODERS.items() if name in row}


def _update_values(order: Order) -> dict[str, Any]:
    return {
        "order_id": order.order_id,
        "expected_version": order.expected_version,
        **_order_row(order, sql.UPDATABLE_COLUMNS),
        **_arrays("line", ("line_id", *sql.LINE_COUNTS), order.lines),
        **_timeline_arrays(order.pending_timeline_entries),
    }


def _to_order(row: "Record") -> Order:
    return Order(
        **{name: row[name] for name in _PLAIN_COLUMNS},
        status=OrderStatus(row["status"]),
        payment_status=OrderPaymentStatus(row["payment_status"]),
        fulfilment_status=OrderFulfilmentStatus(row["fulfilment_status"]),
        shipping_line=shipping_from_json(row["shipping_line"]),
        shipping_address=_address_from_json(row["shipping_address"]),
        billing_address=row["billing_address"] and _address_from_json(row["billing_address"]),
        tags=tuple(row["tags"]),
        metadata=json.loads(row["metadata"]),
        lines=tuple(_to_line(line) for line in json.loads(row["lines"])),
    )


def _to_line(line: Mapping[str, Any]) -> OrderLine:
    return OrderLine(
        line_id=UUID(line["line_id"]),
        product_id=UUID(line["product_id"]),
        sku=line["sku"],
        name=line["name"],
        unit_price=line["unit_price"],
        quantity=line["quantity"],
        fulfilled=line["fulfilled"],
        delivered=line["delivered"],
        failed=line["failed"],
        cancelled=line["cancelled"],
        in_return=line["in_return"],
        returned=line["returned"],
        **line_fields(line["breakdown"]),
    )


def _to_timeline_entry(row: "Record") -> TimelineEntry:
    return TimelineEntry(
        version=row["version"],
        change=row["change"],
        actor=row["actor"],
        at=row["at"],
        reason=row["reason"],
        status=OrderStatus(row["status"]),
        payment_status=OrderPaymentStatus(row["payment_status"]),
        fulfilment_status=OrderFulfilmentStatus(row["fulfilment_status"]),
    )


def _to_fulfilment(row: "Record") -> Fulfilment:
    return Fulfilment(
        fulfilment_id=row["fulfilment_id"],
        order_id=row["order_id"],
        status=FulfilmentStatus(row["status"]),
        carrier=row["carrier"],
        tracking_number=row["tracking_number"],
        shipped_at=row["shipped_at"],
        delivered_at=row["delivered_at"],
        failed_at=row["failed_at"],
        restocked=row["restocked"],
        lines=tuple(
            FulfilmentLine(UUID(line["line_id"]), UUID(line["product_id"]), line["quantity"])
            for line in json.loads(row["lines"])
        ),
    )


def _address_to_json(address: str | Address) -> str:
    return address.model_dump_json() if isinstance(address, Address) else json.dumps(address)


def _address_from_json(text: str) -> str | Address:
    value = json.loads(text)
    return value if isinstance(value, str) else Address.model_validate(value)


# the columns that are stored as JSON
_ENCODERS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "shipping_line": shipping_to_json,
    "shipping_address": _address_to_json,
    "billing_address": lambda address: address and _address_to_json(address),
    "metadata": lambda metadata: json.dumps(dict(metadata)),
}


def _timeline_arrays(entries: Sequence[TimelineEntry]) -> dict[str, list[Any]]:
    return _arrays("entry", sql.TIMELINE_COLUMNS, entries)


def _line_arrays(lines: Sequence[OrderLine]) -> dict[str, list[Any]]:
    names = tuple(name for name in sql.LINE_COLUMNS if name not in {"position", "breakdown"})
    return _arrays("line", names, lines) | {
        "line_position": list(range(1, len(lines) + 1)),
        "line_breakdown": [line_to_json(line) for line in lines],
    }


def _arrays(alias: str, names: Iterable[str], items: Sequence[Any]) -> dict[str, list[Any]]:
    """Return one array per column, named `<alias>_<column>`."""
    return {f"{alias}_{name}": [getattr(thing, name) for thing in items] for name in names}


def _filter_values(query: OrderFilters, owner_id: UUID | None) -> dict[str, Any]:
    filters = query.model_dump(exclude={"limit", "cursor", "sort"}, exclude_none=True)
    if query.email:
        filters["email"] = to_lookup_key(query.email)
    if query.number:
        filters["number_prefix"], filters["number"] = split_number(query.number)
    return filters if owner_id is None else filters | {"owner_id": owner_id}


def _keyset_values(keyset: TimeKeyset) -> dict[str, Any]:
    return {"after_timestamp": keyset.timestamp, "after_order_id": keyset.row_id}
