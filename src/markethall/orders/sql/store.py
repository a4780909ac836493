"""The Postgres store of orders. It runs the statements and maps rows to entities."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.orders.carts.sql import SqlCartStore
from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.configuration.sql import metadata
from markethall.orders.contract import (
    EditStatus,
    OrderFilters,
    OrderStatusView,
    VersionedOrderStatus,
)
from markethall.orders.domain import AdditionalPayment, Fulfilment, Order, TimelineEntry, TimeSpan
from markethall.orders.drafts.sql import SqlDraftStore
from markethall.orders.invoices.domain import NewInvoice
from markethall.orders.invoices.sql import SqlInvoiceStore, invoice_values
from markethall.orders.ports import follow_promotions
from markethall.orders.promotions.sql import SqlPromotionStore
from markethall.orders.returns.sql import SqlReturnStore
from markethall.orders.sql import edit_statements as edits
from markethall.orders.sql import statements as sql
from markethall.orders.sql.rows import (
    arrays,
    edit_row,
    filter_values,
    keyset_values,
    line_arrays,
    order_row,
    timeline_arrays,
    to_fulfilment,
    to_order,
    to_timeline_entry,
    update_values,
)
from markethall.orders.sql.tables import fulfilments, orders
from markethall.shared.composition.sql import ContextStatements
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.messaging.events import Delivery, Event
from markethall.shared.messaging.sql.combined_writes import delivery_values, event_values
from markethall.shared.persistence.postgres import Connection

STATEMENTS = ContextStatements(metadata)


class SqlOrderStore(
    SqlDraftStore, SqlCartStore, SqlPromotionStore, SqlReturnStore, SqlInvoiceStore
):
    def __init__(self, connection: Connection, statements: ContextStatements, clock: Clock) -> None:
        super().__init__(connection, statements, clock)
        self.saved_order_ids: set[UUID] = set()

    async def add_order(self, order: Order, event: Event, ctx: CallContext) -> int | None:
        number: int | None = await self._connection.fetch_value(
            sql.INSERT_ORDER,
            **order_row(order, orders.c.keys()),
            **line_arrays(order.lines),
            **timeline_arrays(order.pending_timeline_entries),
            **event_values(self._wrap_events([event], ctx)),
        )
        if number is not None:
            self._note_published([event])
        return number

    async def save_order(self, order: Order) -> None:
        if not order.pending_timeline_entries:
            return
        if not await self._connection.execute(sql.UPDATE_ORDER, **update_values(order)):
            raise ConcurrentUpdate
        await follow_promotions(self, order)
        await self._save_additional_payments(order)
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
            **update_values(order),
            **event_values(self._wrap_events(events, delivery.call_context())),
            **delivery_values(delivery, self._clock()),
        )
        if row is None or not row["was_waiting"]:
            return False
        if not row["is_saved"]:
            raise ConcurrentUpdate
        await follow_promotions(self, order)
        await self._save_additional_payments(order)
        self.saved_order_ids.add(order.order_id)
        self._note_published(events)
        return True

    async def save_edited_order(self, order: Order, edit_id: UUID) -> None:
        await self.save_applied_edit(order)
        await self._connection.execute(edits.INSERT_EDIT, **edit_row(order, edit_id))

    async def save_opened_edit(self, order: Order, payment: AdditionalPayment) -> None:
        others = replace(order, additional_payments=order.applied_payments)
        await self.save_order(others)
        values = edit_row(order, payment.edit_id, payment)
        await self._connection.execute(edits.INSERT_EDIT, **values)

    async def save_applied_edit(self, order: Order) -> None:
        await self.save_order(order)
        order_id = order.order_id
        amounts = order_row(order, edits.AMOUNT_COLUMNS)
        await self._connection.execute(edits.UPDATE_AMOUNTS, order_id=order_id, **amounts)
        await self._connection.execute(edits.DELETE_LINES, order_id=order_id)
        await self._connection.execute(
            edits.INSERT_LINES, order_id=order_id, **line_arrays(order.lines)
        )

    async def _save_additional_payments(self, order: Order) -> None:
        for payment in order.additional_payments:
            await self._connection.execute(
                edits.UPDATE_EDIT,
                the_edit_id=payment.edit_id,
                status=payment.status.value,
                refunded=payment.refunded,
                expires_at=payment.expires_at,
            )

    async def get_edit_status(self, order_id: UUID, edit_id: UUID) -> EditStatus | None:
        status = await self._connection.fetch_value(
            edits.GET_EDIT_STATUS, order_id=order_id, edit_id=edit_id
        )
        return EditStatus(status) if status else None

    async def list_overdue_edits(
        self, now: datetime, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        statement = edits.list_overdue_edits(after_keyset=after is not None)
        rows = await self._connection.fetch_all(
            statement, now=now, limit=limit, **keyset_values(after)
        )
        return [to_order(row) for row in rows]

    async def add_fulfilment(self, fulfilment: Fulfilment) -> None:
        await self._connection.execute(
            sql.INSERT_FULFILMENT,
            **{column.name: getattr(fulfilment, column.name) for column in fulfilments.c},
            **arrays("line", ("line_id", "quantity"), fulfilment.lines),
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
        return to_order(row) if row else None

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
            sql.LIST_TIMELINE_ENTRIES, order_id=order_id, after_version=after_version, limit=limit
        )
        return [to_timeline_entry(row) for row in rows]

    async def get_fulfilment(self, fulfilment_id: UUID) -> Fulfilment | None:
        row = await self._connection.fetch_one(sql.GET_FULFILMENT, fulfilment_id=fulfilment_id)
        return to_fulfilment(row) if row else None

    async def list_fulfilments(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Fulfilment]:
        rows = await self._connection.fetch_all(
            sql.LIST_FULFILMENTS, order_id=order_id, after=after, limit=limit
        )
        return [to_fulfilment(row) for row in rows]

    async def list_orders(
        self, filters: OrderFilters, owner_id: UUID | None, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        values = filter_values(filters, owner_id)
        statement = sql.list_orders(frozenset(values), filters.sort, after_keyset=after is not None)
        rows = await self._connection.fetch_all(
            statement, **values, **keyset_values(after), limit=limit
        )
        return [to_order(row) for row in rows]

    async def list_pending_orders(
        self, created: Sequence[TimeSpan], now: datetime, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        rows = await self._connection.fetch_all(
            sql.list_pending_orders(after_keyset=after is not None),
            span_after=[span.after for span in created],
            span_until=[span.until for span in created],
            now=now,
            limit=limit,
            **keyset_values(after),
        )
        return [to_order(row) for row in rows]

    async def list_overdue_orders(self, now: datetime, limit: int) -> Sequence[Order]:
        rows = await self._connection.fetch_all(sql.LIST_OVERDUE_ORDERS, now=now, limit=limit)
        return [to_order(row) for row in rows]

    async def postpone_overdue_checks(self, next_checks: Mapping[UUID, datetime]) -> None:
        await self._connection.execute(
            sql.POSTPONE_OVERDUE_CHECKS,
            check_order_id=list(next_checks),
            check_overdue_check_at=list(next_checks.values()),
        )

    async def count(self) -> int:
        number: int = await self._connection.fetch_value(sql.COUNT_ORDERS)
        return number
