"""The in-memory store of orders."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.orders.carts.memory import CartTables, MemoryCartStore
from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.contract import (
    FulfilmentStatus,
    OrderFilters,
    OrderStatus,
    OrderStatusView,
    VersionedOrderStatus,
)
from markethall.orders.domain import (
    Fulfilment,
    Order,
    OrderLine,
    TimelineEntry,
    TimeSpan,
    split_number,
)
from markethall.orders.domain.integrity import OrderedCart, OrderLink, OrderSums
from markethall.orders.domain.promotion_integrity import DiscountedOrderFacts, PromotionCounts
from markethall.orders.domain.promotion_uses import (
    UseChange,
    build_redemption,
    find_use_change,
)
from markethall.orders.domain.return_integrity import ReturnedLine, build_returned_line
from markethall.orders.drafts.domain import DraftOrder
from markethall.orders.drafts.memory import MemoryDraftStore
from markethall.orders.invoices.domain import NewInvoice
from markethall.orders.invoices.memory import InvoiceTables, MemoryInvoiceStore
from markethall.orders.promotions.domain import Promotion
from markethall.orders.promotions.memory import (
    MemoryPromotionStore,
    PromotionTables,
    PromotionUse,
    count_uses,
)
from markethall.orders.returns.memory import MemoryReturnStore, ReturnTables
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.lookup_key import to_lookup_key
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.messaging.events import Delivery, Event
from markethall.shared.persistence.memory import Table

FIRST_NUMBER = 1001


class Tables(CartTables, PromotionTables, ReturnTables, InvoiceTables):
    def __init__(self) -> None:
        super().__init__()
        self.orders: Table[UUID, Order] = Table()
        self.timeline: Table[UUID, tuple[TimelineEntry, ...]] = Table()
        # the user who has claimed a guest
        self.guest_owners: Table[UUID, UUID] = Table()
        self.drafts: Table[UUID, DraftOrder] = Table()
        self.order_edits: Table[UUID, UUID] = Table()
        self.fulfilments: Table[UUID, Fulfilment] = Table()


class MemoryOrderStore(
    MemoryDraftStore,
    MemoryCartStore,
    MemoryPromotionStore,
    MemoryReturnStore,
    MemoryInvoiceStore,
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
        await self._follow_promotions(order)
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
        self._tables.order_edits.put(edit_id, order.order_id)

    async def has_edit(self, edit_id: UUID) -> bool:
        return edit_id in self._tables.order_edits

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
        return order.user_id, VersionedOrderStatus(_to_status_view(order), order.version)

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
                and (after is None or _created_position(order) > after)
            )
        )
        orders.sort(key=_created_position)
        return orders[:limit]

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

    async def _follow_promotions(self, order: Order) -> None:
        match find_use_change(order):
            case UseChange.GIVE_BACK:
                await self.give_back_promotions(order.order_id)
            case UseChange.REDEEM_AGAIN:
                await self.redeem_promotions(build_redemption(order, is_reinstatement=True))
            case UseChange.MOVE:
                await self.move_promotion_uses(order.order_id, order.user_id)

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
        self._tables.orders.put(
            order.order_id,
            replace(order, pending_timeline_entries=(), overdue_check_at=check_at),
        )


def _to_status_view(order: Order) -> OrderStatusView:
    return OrderStatusView(
        order_id=order.order_id,
        status=order.status,
        payment_status=order.payment_status,
        fulfilment_status=order.fulfilment_status,
        updated_at=order.updated_at,
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
            and number in {None, (order.number_prefix, order.number)}
            and email_key in {None, order.email_key}
            and (query.created_after is None or order.created_at > query.created_after)
            and (query.created_before is None or order.created_at < query.created_before)
        )

    return matches


def _created_position(order: Order) -> tuple[datetime, UUID]:
    return order.created_at, order.order_id


class MemoryOrderIntegrityReads:
    def __init__(self, tables: Tables) -> None:
        self._orders = list(tables.orders.rows())
        self._carts = {cart.cart_id: cart for cart in tables.carts.rows()}
        self._promotions = list(tables.promotions.rows())
        self._uses = list(tables.promotion_uses.rows())
        self._returns = list(tables.returns.rows())

    async def list_returned_lines(self, after: UUID | None, limit: int) -> Sequence[ReturnedLine]:
        found = (
            build_returned_line(line, order.order_id, self._returns)
            for order, line in self._lines()
        )
        later = (line for line in found if after is None or line.line_id > after)
        used = (
            line
            for line in later
            if line.in_return or line.returned or line.open_units or line.received_units
        )
        return sorted(used, key=lambda line: line.line_id)[:limit]

    def _lines(self) -> Iterator[tuple[Order, OrderLine]]:
        return ((order, line) for order in self._orders for line in order.lines)

    async def list_ordered_carts(self, after: UUID | None, limit: int) -> Sequence[OrderedCart]:
        checked_out = (cart.cart_id for cart in self._carts.values() if cart.order_id)
        ids = {order.cart_id for order in self._orders if order.cart_id} | set(checked_out)
        found = sorted(cart_id for cart_id in ids if after is None or cart_id > after)
        return [self._ordered_cart(cart_id) for cart_id in found[:limit]]

    def _ordered_cart(self, cart_id: UUID) -> OrderedCart:
        order_ids = [order.order_id for order in self._orders if order.cart_id == cart_id]
        cart = self._carts.get(cart_id)
        return OrderedCart(
            cart_id=cart_id,
            order_id=min(order_ids, default=None),
            order_count=len(order_ids),
            cart_status=cart.status if cart else None,
            cart_order_id=cart.order_id if cart else None,
        )

    async def list_order_sums(self, after: UUID | None, limit: int) -> Sequence[OrderSums]:
        orders = sorted(self._orders, key=lambda order: order.order_id)
        return [_order_sums(order) for order in orders if after is None or order.order_id > after][
            :limit
        ]

    async def list_overdue_orders(
        self, before: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[OrderLink]:
        overdue = [
            _order_link(order)
            for order in self._orders
            if order.status is OrderStatus.PENDING
            and order.expires_at < before
            and (after is None or (order.expires_at, order.order_id) > after)
        ]
        return sorted(overdue, key=lambda order: (order.expires_at, order.order_id))[:limit]

    async def list_links_by_payment(
        self, after: UUID | None, until: UUID, limit: int
    ) -> Sequence[OrderLink]:
        return self._list_links(lambda order: order.payment_id, after, until)[:limit]

    async def list_links_by_order(
        self, after: UUID | None, until: UUID, limit: int
    ) -> Sequence[OrderLink]:
        return self._list_links(lambda order: order.order_id, after, until)[:limit]

    async def list_promotion_counts(
        self, after: UUID | None, limit: int
    ) -> Sequence[PromotionCounts]:
        promotions = sorted(self._promotions, key=lambda one: one.promotion_id)
        return [
            _promotion_counts(promotion, self._uses)
            for promotion in promotions
            if after is None or promotion.promotion_id > after
        ][:limit]

    async def list_discounted_orders(
        self, after: UUID | None, limit: int
    ) -> Sequence[DiscountedOrderFacts]:
        promotion_ids = frozenset(promotion.promotion_id for promotion in self._promotions)
        facts = (
            DiscountedOrderFacts(
                order.order_id,
                order.status,
                promotion_ids & {discount.promotion_id for discount in order.discounts},
                frozenset(use.promotion_id for use in self._uses if use.order_id == order.order_id),
            )
            for order in sorted(self._orders, key=lambda order: order.order_id)
            if after is None or order.order_id > after
        )
        return [one for one in facts if one.discounted or one.used][:limit]

    def _list_links(
        self, key_of: Callable[[OrderLink], UUID], after: UUID | None, until: UUID
    ) -> Sequence[OrderLink]:
        links = sorted(map(_order_link, self._orders), key=key_of)
        return [
            link
            for link in links
            if (after is None or key_of(link) > after) and key_of(link) <= until
        ]


def _promotion_counts(promotion: Promotion, uses: Sequence[PromotionUse]) -> PromotionCounts:
    used, most_by_one_customer = count_uses(promotion, uses)
    return PromotionCounts(
        promotion_id=promotion.promotion_id,
        usage_limit=promotion.fields.usage_limit,
        per_customer_limit=promotion.fields.per_customer_limit,
        used=promotion.used,
        uses=used,
        most_by_one_customer=most_by_one_customer,
        # in memory the uses themselves are counted
        wrong_customers=0,
    )


def _order_link(order: Order) -> OrderLink:
    return OrderLink(**{name: getattr(order, name) for name in OrderLink.__dataclass_fields__})


def _order_sums(order: Order) -> OrderSums:
    return OrderSums(
        order_id=order.order_id,
        subtotal=order.subtotal,
        discount=order.discount,
        shipping=order.shipping,
        tax=order.tax,
        total=order.total,
        line_total=sum(line.total for line in order.lines),
        unit_total=sum(line.unit_price * line.quantity for line in order.lines),
        line_discount=sum(line.discount for line in order.lines),
        line_tax=sum(line.tax for line in order.lines),
    )
