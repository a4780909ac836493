"""The in-memory tables and the store of orders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.orders.carts.memory import CartTables, MemoryCartStore
from markethall.orders.configuration.memory import sort_page
from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.contract import (
    EditStatus,
    FulfilmentStatus,
    OrderFilters,
    OrderStatus,
    OrderStatusView,
    VersionedOrderStatus,
)
from markethall.orders.domain import (
    AdditionalPayment,
    Fulfilment,
    Order,
    TimelineEntry,
    TimeSpan,
    split_number,
)
from markethall.orders.drafts.domain import DraftOrder
from markethall.orders.drafts.memory import MemoryDraftStore
from markethall.orders.invoices.domain import NewInvoice
from markethall.orders.invoices.memory import InvoiceTables, MemoryInvoiceStore
from markethall.orders.ports import follow_promotions
from markethall.orders.promotions.memory import MemoryPromotionStore, PromotionTables
from markethall.orders.returns.memory import MemoryReturnStore, ReturnTables
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.lookup_key import to_lookup_key
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.messaging.events import Delivery, Event
from markethall.shared.persistence.memory import Table


class Tables(CartTables, PromotionTables, ReturnTables, InvoiceTables):
    def __init__(self) -> None:
        super().__init__()
        self.orders: Table[UUID, Order] = Table()
        self.timeline: Table[UUID, tuple[TimelineEntry, ...]] = Table()
        # the user who has claimed the guest, by guest id
        self.guest_owners: Table[UUID, UUID] = Table()
        self.drafts: Table[UUID, DraftOrder] = Table()
        self.order_edits: Table[UUID, tuple[UUID, EditStatus]] = Table()
        self.fulfilments: Table[UUID, Fulfilment] = Table()


FIRST_NUMBER: Final = 1001


class MemoryOrderStore(
    MemoryDraftStore, MemoryCartStore, MemoryPromotionStore, MemoryReturnStore, MemoryInvoiceStore
):
    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables
        self._drafts = tables.drafts
        self.saved_order_ids: set[UUID] = set()

    async def add_order(self, order: Order, event: Event, ctx: CallContext) -> int | None:
        if order.order_id in self._tables.orders or self._has_order(order.cart_id):
            return None
        number = FIRST_NUMBER + len(self._tables.orders)
        self._write(replace(order, number=number))
        await self.publish(event, ctx)
        return number

    async def save_order(self, order: Order) -> None:
        if not order.pending_timeline_entries:
            return
        stored = self._tables.orders.get(order.order_id)
        if stored is None or stored.version != order.expected_version:
            raise ConcurrentUpdate
        await follow_promotions(self, order)
        self._write(order)
        self.saved_order_ids.add(order.order_id)

    async def save_handled_order(
        self,
        delivery: Delivery,
        order: Order,
        events: Sequence[Event],
        invoice: NewInvoice | None = None,
    ) -> bool:
        if not await self.mark_processed(delivery):
            return False
        await self.save_order(order)
        for event in events:
            await self.publish(event, delivery.call_context())
        if invoice:
            await self.add_invoice(invoice)
        return True

    async def save_edited_order(self, order: Order, edit_id: UUID) -> None:
        await self.save_order(order)
        self._tables.order_edits.put(edit_id, (order.order_id, EditStatus.APPLIED))

    async def save_opened_edit(self, order: Order, payment: AdditionalPayment) -> None:
        await self.save_order(order)

    async def save_applied_edit(self, order: Order) -> None:
        await self.save_order(order)

    async def get_edit_status(self, order_id: UUID, edit_id: UUID) -> EditStatus | None:
        found = self._tables.order_edits.get(edit_id)
        return found[1] if found and found[0] == order_id else None

    async def list_overdue_edits(
        self, now: datetime, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        overdue = {
            (order.open_edit.expires_at, order.open_edit.edit_id): order
            for order in self._tables.orders.rows()
            if order.open_edit and order.open_edit.expires_at <= now
        }
        return [overdue[key] for key in sort_page(overdue, lambda key: key, after, limit)]

    async def add_fulfilment(self, fulfilment: Fulfilment) -> None:
        self._tables.fulfilments.put(fulfilment.fulfilment_id, fulfilment)

    async def save_fulfilment(self, fulfilment: Fulfilment) -> None:
        stored = self._tables.fulfilments.get(fulfilment.fulfilment_id)
        if stored is None or stored.status is not FulfilmentStatus.SHIPPED:
            raise ConcurrentUpdate
        self._tables.fulfilments.put(fulfilment.fulfilment_id, fulfilment)

    async def get_guest_owner_for_update(self, guest_id: UUID) -> UUID | None:
        return self._tables.guest_owners.get(guest_id)

    async def set_guest_owner(self, guest_id: UUID, user_id: UUID) -> None:
        self._tables.guest_owners.put(guest_id, user_id)

    async def get_order(self, order_id: UUID) -> Order | None:
        return self._tables.orders.get(order_id)

    async def get_order_status(self, order_id: UUID) -> tuple[UUID, VersionedOrderStatus] | None:
        order = self._tables.orders.get(order_id)
        if order is None:
            return None
        names = OrderStatusView.model_fields
        status = OrderStatusView(**{name: getattr(order, name) for name in names})
        return order.user_id, VersionedOrderStatus(status, order.version)

    async def get_order_versions(self, order_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        found = [self._tables.orders.get(order_id) for order_id in order_ids]
        return {order.order_id: order.version for order in found if order}

    async def list_timeline_entries(
        self, order_id: UUID, after_version: int = 0, limit: int | None = None
    ) -> Sequence[TimelineEntry]:
        entries = self._tables.timeline.get(order_id) or ()
        return [entry for entry in entries if entry.version > after_version][:limit]

    async def get_fulfilment(self, fulfilment_id: UUID) -> Fulfilment | None:
        return self._tables.fulfilments.get(fulfilment_id)

    async def list_fulfilments(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Fulfilment]:
        found = self._tables.fulfilments.where(lambda row: row.order_id == order_id)
        return sort_page(found, lambda row: row.fulfilment_id, after, limit)

    async def list_orders(
        self, filters: OrderFilters, owner_id: UUID | None, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        newest_first = filters.sort.startswith("-")
        orders = self._tables.orders.where(_build_filter(filters, owner_id))
        orders.sort(key=_created_position, reverse=newest_first)
        if after:
            orders = [
                order
                for order in orders
                if (
                    _created_position(order) < after
                    if newest_first
                    else _created_position(order) > after
                )
            ]
        return orders[:limit]

    async def list_pending_orders(
        self, created: Sequence[TimeSpan], now: datetime, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        orders = self._tables.orders.where(
            lambda order: (
                order.status is OrderStatus.PENDING
                and order.overdue_check_at > now
                and any(span.after < order.created_at <= span.until for span in created)
            )
        )
        return sort_page(orders, _created_position, after, limit)

    async def list_overdue_orders(self, now: datetime, limit: int) -> Sequence[Order]:
        orders = self._tables.orders.where(
            lambda order: order.status is OrderStatus.PENDING and order.overdue_check_at <= now
        )
        orders.sort(key=lambda order: (order.overdue_check_at, order.order_id))
        return orders[:limit]

    async def postpone_overdue_checks(self, next_checks: Mapping[UUID, datetime]) -> None:
        for order_id, at in next_checks.items():
            stored = self._tables.orders.get(order_id)
            if stored:
                self._tables.orders.put(order_id, replace(stored, overdue_check_at=at))

    async def count(self) -> int:
        return len(self._tables.orders)

    def _has_order(self, cart_id: UUID | None) -> bool:
        return cart_id is not None and bool(
            self._tables.orders.where(lambda order: order.cart_id == cart_id)
        )

    def _has_live_order(self, customer_id: UUID, other_than: UUID | None) -> bool:
        return bool(
            self._tables.orders.where(
                lambda order: (
                    order.user_id == customer_id
                    and order.order_id != other_than
                    and order.status not in {OrderStatus.CANCELLED, OrderStatus.EXPIRED}
                )
            )
        )

    def _write(self, order: Order) -> None:
        entries = self._tables.timeline.get(order.order_id) or ()
        self._tables.timeline.put(order.order_id, entries + order.pending_timeline_entries)
        stored = self._tables.orders.get(order.order_id)
        check_at = stored.overdue_check_at if stored else order.overdue_check_at
        for payment in order.additional_payments:
            self._tables.order_edits.put(payment.edit_id, (order.order_id, payment.status))
        self._tables.orders.put(
            order.order_id,
            replace(
                order,
                pending_timeline_entries=(),
                overdue_check_at=check_at,
                additional_payments=tuple(
                    payment
                    for payment in order.additional_payments
                    if payment.status is not EditStatus.DROPPED
                ),
            ),
        )


def _build_filter(query: OrderFilters, owner_id: UUID | None) -> Callable[[Order], bool]:
    filters = query.model_dump(
        include={"status", "payment_status", "fulfilment_status", "user_id"}, exclude_none=True
    )
    number = split_number(query.number) if query.number else None
    email_key = query.email and to_lookup_key(query.email)

    def matches(order: Order) -> bool:
        return (
            owner_id in {None, order.user_id}
            and all(getattr(order, name) == value for name, value in filters.items())
            and number in {None, order.number_key}
            and email_key in {None, order.email_key}
            and (query.created_after is None or order.created_at > query.created_after)
            and (query.created_before is None or order.created_at < query.created_before)
        )

    return matches


def _created_position(order: Order) -> tuple[datetime, UUID]:
    return order.created_at, order.order_id
