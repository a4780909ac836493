"""Ports of orders: the storage."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.orders.carts import ports as carts
from markethall.orders.contract import EditStatus, OrderFilters, VersionedOrderStatus
from markethall.orders.domain import AdditionalPayment, Fulfilment, Order, TimelineEntry, TimeSpan
from markethall.orders.domain.integrity import OrderedCart, OrderLink, OrderSums
from markethall.orders.domain.promotion_integrity import DiscountedOrderFacts, PromotionCounts
from markethall.orders.domain.return_integrity import ReturnedLine
from markethall.orders.drafts import ports as drafts
from markethall.orders.invoices import ports as invoices
from markethall.orders.invoices.domain import NewInvoice
from markethall.orders.promotions import ports as promotions
from markethall.orders.returns import ports as returns
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.messaging.events import Delivery, Event


class ReadStore(
    promotions.ReadStore,
    carts.ReadStore,
    drafts.ReadStore,
    returns.ReadStore,
    invoices.ReadStore,
    Protocol,
):
    """Reads without locks."""

    async def get_order(self, order_id: UUID) -> Order | None: ...

    async def get_order_status(self, order_id: UUID) -> tuple[UUID, VersionedOrderStatus] | None:
        """Return (user id of the owner, status)."""

    async def get_order_versions(self, order_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        """Return the versions of the orders that exist."""

    async def list_timeline_entries(
        self, order_id: UUID, after_version: int = 0, limit: int | None = None
    ) -> Sequence[TimelineEntry]:
        """Return the entries of later versions, the oldest first; at most `limit` of them."""

    async def get_edit_status(self, order_id: UUID, edit_id: UUID) -> EditStatus | None:
        """Return the status of the edit, or None if the order has no such edit."""

    async def list_overdue_edits(
        self, now: datetime, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        """Return orders whose open edits have expired, sorted by this expiry and the edit id."""

    async def get_fulfilment(self, fulfilment_id: UUID) -> Fulfilment | None: ...

    async def list_fulfilments(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Fulfilment]:
        """Return at most `limit` fulfilments of the order with ids after `after`, sorted by id."""

    async def list_orders(
        self, filters: OrderFilters, owner_id: UUID | None, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        """Return at most `limit` orders of this owner, or of all owners for None."""

    async def list_pending_orders(
        self, created: Sequence[TimeSpan], now: datetime, after: TimeKeyset | None, limit: int
    ) -> Sequence[Order]:
        """Return pending orders that were created within one of the spans, the oldest first.

        The spans must not overlap. Orders with `overdue_check_at` <= `now` are left out, because
        `list_overdue_orders` returns them.
        """

    async def list_overdue_orders(self, now: datetime, limit: int) -> Sequence[Order]:
        """Return pending orders with `overdue_check_at` <= `now`, sorted by `overdue_check_at`."""

    async def count(self) -> int: ...


class Store(
    ReadStore, promotions.Store, carts.Store, drafts.Store, returns.Store, invoices.Store, Protocol
):
    """Reads and writes of one transaction."""

    # the orders that `save_order` has changed in this transaction
    saved_order_ids: set[UUID]

    async def add_order(self, order: Order, event: Event, ctx: CallContext) -> int | None:
        """Insert the order and its timeline, and publish the event, in one statement.

        Return the number of the order, or None when the order exists.
        """

    async def save_order(self, order: Order) -> None:
        """Update the order and append its pending timeline entries.

        An order without pending entries is unchanged, so it is not written.
        Also update the statuses and amounts of its additional payments.

        Give back the uses of promotions if the order has just been cancelled or has expired, and
        those of the promotions that an edit has dropped. Take them again if the order is
        reinstated, and move them to a new owner. Raises ConcurrentUpdate, RedemptionFailed.
        """

    async def save_handled_order(
        self,
        delivery: Delivery,
        order: Order,
        events: Sequence[Event],
        invoice: NewInvoice | None = None,
    ) -> bool:
        """Save a changed order, publish the events, mark the delivery as processed: all or nothing.

        Also add the invoice, if there is one. All of it is one statement. Return False if the
        delivery was processed before. Raises ConcurrentUpdate.
        """

    async def save_edited_order(self, order: Order, edit_id: UUID) -> None:
        """Update the order with its lines and amounts, and insert the edit.

        Raises ConcurrentUpdate.
        """

    async def save_opened_edit(self, order: Order, payment: AdditionalPayment) -> None:
        """Update the order, and insert its open edit. Raises ConcurrentUpdate."""

    async def save_applied_edit(self, order: Order) -> None:
        """Update the order with its lines and amounts, and its edits. Raises ConcurrentUpdate."""

    async def set_guest_owner(self, guest_id: UUID, user_id: UUID) -> None:
        """Store that the user has claimed the guest, and lock the guest until the commit."""

    async def postpone_overdue_checks(self, next_checks: Mapping[UUID, datetime]) -> None:
        """Set `overdue_check_at` of these orders. Their versions do not change."""

    async def add_fulfilment(self, fulfilment: Fulfilment) -> None: ...

    async def save_fulfilment(self, fulfilment: Fulfilment) -> None:
        """Update the fulfilment. Raises ConcurrentUpdate when the stored one is not `shipped`."""

    async def publish(self, event: Event, ctx: CallContext) -> None:
        """Write the event to the outbox. It is published if this transaction commits."""

    async def mark_processed(self, delivery: Delivery) -> bool:
        """Mark the event as processed in the inbox. Return False if it is marked already."""


class LookupLimiter(Protocol):
    """A limit for each e-mail address."""

    async def check(self, identity: str) -> None:
        """Count a lookup with this address. Raises TooManyRequests."""


class OrderIntegrityReads(Protocol):
    """The reads of the integrity checks, in pages. `after` is the last key of the previous page."""

    async def list_ordered_carts(self, after: UUID | None, limit: int) -> Sequence[OrderedCart]:
        """Return carts that are checked out or have an order, sorted by cart id."""

    async def list_returned_lines(self, after: UUID | None, limit: int) -> Sequence[ReturnedLine]:
        """Return lines with units in returns, or with open or closed returns, sorted by line id."""

    async def list_order_sums(self, after: UUID | None, limit: int) -> Sequence[OrderSums]: ...

    async def list_overdue_orders(
        self, before: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[OrderLink]:
        """Return pending orders that expired before this time, sorted by expiry and id."""

    async def list_links_by_payment(
        self, after: UUID | None, until: UUID, limit: int
    ) -> Sequence[OrderLink]:
        """Return orders with `after` < payment id <= `until`, sorted by payment id."""

    async def list_links_by_order(
        self, after: UUID | None, until: UUID, limit: int
    ) -> Sequence[OrderLink]:
        """Return orders with `after` < order id <= `until`, sorted by order id."""

    async def list_promotion_counts(
        self, after: UUID | None, limit: int
    ) -> Sequence[PromotionCounts]:
        """Return promotions, sorted by id."""

    async def list_discounted_orders(
        self, after: UUID | None, limit: int
    ) -> Sequence[DiscountedOrderFacts]:
        """Return orders that have a discount or a use of a promotion, sorted by id."""


async def follow_promotions(store: promotions.Store, order: Order) -> None:
    """Store the uses of promotions that follow from the changes of the order.

    Raises RedemptionFailed.
    """
    match order.use_change:
        case "cancelled" | "expired":
            await store.give_back_promotions(order.order_id)
        case "edited":
            # keep the uses of the promotions whose discounts the order still has
            kept = [discount.promotion_id for discount in order.discounts]
            await store.give_back_promotions(order.order_id, kept)
        case "revived":
            await store.redeem_promotions(order.to_redemption(is_reinstatement=True))
        case "claimed":
            await store.move_promotion_uses(order.order_id, order.user_id)
