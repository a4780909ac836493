"""The use cases behind the HTTP API of orders."""

from collections.abc import Callable
from uuid import UUID

from markethall.orders.configuration.ports import retry_on_conflict
from markethall.orders.contract import (
    CancelOrder,
    OrderCompleted,
    OrderEvent,
    OrderNotFound,
    OrderQuery,
    OrderStatus,
    OrderView,
    PlaceOrder,
    TimelineView,
    VersionedOrderStatus,
)
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.service.checkout import Checkout
from markethall.orders.service.order_events import cancelled_event, lines_cancelled_event
from markethall.orders.service.status_waits import ChangeReportingDatabase
from markethall.orders.service.views import (
    get_visible_order,
    is_staff,
    to_order_view,
    to_timeline_entry_view,
)
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, TimeKeyset
from markethall.shared.kernel.scopes import ORDERS_MANAGE


class OrderService:
    """Implementation of `Orders`."""

    def __init__(
        self,
        checkout: Checkout,
        database: ChangeReportingDatabase,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._checkout = checkout
        self._database = database
        self._cursors = cursors
        self._clock = clock

    async def place(
        self, ctx: CallContext, command: PlaceOrder, attempt: IdempotentCommand
    ) -> OrderView:
        return await self._checkout.place(ctx, command, attempt)

    async def get_order(self, ctx: CallContext, order_id: UUID) -> OrderView:
        async with self._database.read_session() as store:
            order = await get_visible_order(store, ctx, order_id)
        return to_order_view(order, for_staff=is_staff(ctx))

    async def list_orders(self, ctx: CallContext, query: OrderQuery) -> Page[OrderView]:
        owner_id = None if ctx.actor.has_scope(ORDERS_MANAGE) else ctx.user_id
        filters = query.model_dump_json(exclude={"limit", "cursor"})
        listing = f"orders {owner_id} {filters}"
        after = self._cursors.decode(listing, query.cursor, TIME_KEYSET)
        async with self._database.read_session() as store:
            orders = await store.list_orders(query, owner_id, after, query.limit + 1)
        views = [to_order_view(order, for_staff=is_staff(ctx)) for order in orders]
        return self._cursors.build_page(
            listing, views, query.limit, lambda view: TimeKeyset(view.created_at, view.order_id)
        )

    async def get_order_status(self, ctx: CallContext, order_id: UUID) -> VersionedOrderStatus:
        async with self._database.read_session() as store:
            owner_and_status = await store.get_order_status(order_id)
        if owner_and_status is None or not ctx.can_view_order(
            order_id, owner_and_status[0], ORDERS_MANAGE
        ):
            raise OrderNotFound(order_id=str(order_id))
        return owner_and_status[1]

    async def wait_for_order_status(
        self,
        ctx: CallContext,
        order_id: UUID,
        seconds: float,
        is_known: Callable[[int], bool] | None = None,
    ) -> VersionedOrderStatus:
        # register before the read, so that a change between the read and the wait is not missed
        with self._database.waits.register(
            order_id, ctx.actor.order_id or ctx.user_id, seconds
        ) as wait:
            found = await self.get_order_status(ctx, order_id)
            while wait and not _is_news(found, is_known):
                if not await wait.wait_for_change(found.version):
                    break
                found = await self.get_order_status(ctx, order_id)
        return found

    async def get_timeline(self, ctx: CallContext, order_id: UUID) -> TimelineView:
        async with self._database.read_session() as store:
            await get_visible_order(store, ctx, order_id)
            entries = await store.list_timeline_entries(order_id)
        return TimelineView(
            order_id=order_id, items=tuple(to_timeline_entry_view(entry) for entry in entries)
        )

    @retry_on_conflict
    async def cancel(
        self, ctx: CallContext, order_id: UUID, command: CancelOrder, attempt: IdempotentCommand
    ) -> OrderView:
        async with self._database.transaction() as store:
            order = await get_visible_order(store, ctx, order_id)
            for event in self._apply_cancellation(ctx, order, command, attempt.id):
                await store.publish(event, ctx)
            await store.save_order(order)
            view = to_order_view(order, for_staff=is_staff(ctx))
            await store.store_response(attempt, view)
        return view

    def _apply_cancellation(
        self, ctx: CallContext, order: Order, command: CancelOrder, cancellation_id: UUID
    ) -> list[OrderEvent]:
        """Cancel the whole order, or only some units.

        The whole order is cancelled if nothing is shipped and the command covers all units. After
        the first shipment, a customer cannot cancel anything: `order.cancel` then raises
        InvalidTransition. Return the events to publish.
        """
        audit = AuditInfo(ctx.actor.audit_name, self._clock(), command.reason)
        unfulfilled = order.unsettled_quantities()
        quantities = {line.line_id: line.quantity for line in command.lines or ()} or unfulfilled
        may_cancel_lines = order.has_nothing_shipped or ctx.actor.has_scope(ORDERS_MANAGE)
        is_whole_order = order.has_nothing_shipped and quantities == unfulfilled
        if is_whole_order or not may_cancel_lines:
            order.cancel(audit)
            return [cancelled_event(order, command.reason)]
        reserved = order.cancel_lines(quantities, audit)
        event = lines_cancelled_event(order, quantities, reserved, cancellation_id, command.reason)
        if order.status is OrderStatus.COMPLETED:
            return [event, OrderCompleted(order_id=order.order_id)]
        return [event]

    async def count(self) -> int:
        async with self._database.read_session() as store:
            return await store.count()


def _is_news(found: VersionedOrderStatus, is_known: Callable[[int], bool] | None) -> bool:
    if is_known is None:
        return found.status.status is not OrderStatus.PENDING
    return not is_known(found.version)
