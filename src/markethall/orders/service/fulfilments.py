"""The use cases of fulfilments: ship units, and record what happens to a shipment."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.inventory.contract import (
    MAX_RESERVATION_DURATION,
    Inventory,
    RequestedLine,
    Reserve,
)
from markethall.orders.configuration.ports import ConcurrentUpdate, retry_on_conflict
from markethall.orders.contract import (
    FulfilmentLost,
    FulfilmentNotFound,
    FulfilmentView,
    FulfilOrder,
    OrderCompleted,
    OrderStatus,
    ReturnShipment,
)
from markethall.orders.domain import AuditInfo, Fulfilment, Order, build_fulfilment_lines
from markethall.orders.ports import Store
from markethall.orders.service.order_events import (
    ShippedUnits,
    fulfilled_event,
    fulfilment_returned_event,
)
from markethall.orders.service.status_waits import ChangeReportingDatabase
from markethall.orders.service.views import check_staff, get_visible_order, to_fulfilment_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.kernel.pagination import Cursors, Page, PageQuery
from markethall.shared.kernel.scopes import ORDERS_MANAGE
from markethall.shared.messaging.events import Event

_FULFILMENT_ID: Final = TypeAdapter(UUID)
# changes the fulfilment and its order, and returns the event to publish, if there is one
Change = Callable[[Fulfilment, Order], Event | None]


class FulfilmentService:
    """Implementation of `Fulfilments`."""

    def __init__(
        self,
        inventory: Inventory,
        database: ChangeReportingDatabase,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._inventory = inventory
        self._database = database
        self._cursors = cursors
        self._clock = clock

    @retry_on_conflict
    async def fulfil(
        self, ctx: CallContext, order_id: UUID, command: FulfilOrder, attempt: IdempotentCommand
    ) -> FulfilmentView:
        check_staff(ctx)
        async with self._database.read_session() as store:
            order = await get_visible_order(store, ctx, order_id)
            shipped = await store.get_fulfilment(attempt.id)
        if shipped is not None:
            return await self._store(ctx, order, shipped, None, attempt)
        fulfilment, shipment = self._ship(ctx, order, command, attempt.id)
        await self._secure_stock(ctx, order, fulfilment, shipment)
        try:
            return await self._store(ctx, order, fulfilment, shipment, attempt)
        except ConcurrentUpdate:
            await self._release(ctx, attempt.id, shipment)
            raise

    async def _store(
        self,
        ctx: CallContext,
        order: Order,
        fulfilment: Fulfilment,
        shipment: ShippedUnits | None,
        attempt: IdempotentCommand,
    ) -> FulfilmentView:
        """Store the fulfilment and the response. If `shipment` is None, store only the response."""
        async with self._database.transaction() as store:
            # a concurrent attempt with the same id may have stored the fulfilment meanwhile
            stored = await store.get_fulfilment(attempt.id)
            if shipment and stored is None:
                await store.save_order(order)
                await store.add_fulfilment(fulfilment)
                await store.publish(fulfilled_event(order, fulfilment, shipment), ctx)
            view = to_fulfilment_view(stored or fulfilment)
            await store.store_response(attempt, view)
        return view

    def _ship(
        self, ctx: CallContext, order: Order, command: FulfilOrder, fulfilment_id: UUID
    ) -> tuple[Fulfilment, ShippedUnits]:
        quantities = (
            {line.line_id: line.quantity for line in command.lines}
            if command.lines
            else order.unfulfilled_quantities()
        )
        fulfilment = Fulfilment(
            fulfilment_id=fulfilment_id,
            order_id=order.order_id,
            lines=build_fulfilment_lines(order.lines, quantities),
            carrier=command.carrier,
            tracking_number=command.tracking_number,
            shipped_at=self._clock(),
        )
        # the id depends on the version, because each version of the order may need another number
        # of units
        reshipment_id = derive_uuid7(fulfilment_id, f"reshipment {order.version}")
        reserved = order.fulfil(quantities, self._audit(ctx, fulfilment.label))
        return fulfilment, ShippedUnits(quantities, reserved, reshipment_id)

    async def _secure_stock(
        self, ctx: CallContext, order: Order, fulfilment: Fulfilment, shipment: ShippedUnits
    ) -> None:
        """Commit the order's reservation, and reserve the units that are shipped again.

        Raises OutOfStock, ReservationClosed, ProductNotFound.
        """
        if shipment.reserved:
            # the handler of OrderPaid commits the reservation; if it has not run yet, the stock
            # could still be given to another order while these goods are shipped
            await self._inventory.commit(ctx, order.reservation_id)
        again = shipment.reshipped
        if not again:
            return
        # The handler of OrderFulfilled commits this reservation. If the process ends before the
        # fulfilment is stored, the reservation expires.
        command = Reserve(
            reservation_id=shipment.reshipment_id,
            order_id=order.order_id,
            customer_id=order.user_id,
            lines=tuple(
                RequestedLine(product_id=line.product_id, quantity=again[line.line_id])
                for line in fulfilment.lines
                if line.line_id in again
            ),
            expires_at=self._clock() + MAX_RESERVATION_DURATION,
        )
        await self._inventory.reserve(ctx, command)

    async def _release(self, ctx: CallContext, fulfilment_id: UUID, shipment: ShippedUnits) -> None:
        """Release the reshipped units, because the order was changed after it was read.

        They stay reserved if a concurrent attempt with the same id has stored the fulfilment.
        """
        if not shipment.reshipped:
            return
        async with self._database.read_session() as store:
            stored = await store.get_fulfilment(fulfilment_id)
        if stored is None:
            await self._inventory.release(ctx, shipment.reshipment_id)

    async def list_fulfilments(
        self, ctx: CallContext, order_id: UUID, query: PageQuery
    ) -> Page[FulfilmentView]:
        listing = f"fulfilments {order_id}"
        after = self._cursors.decode(listing, query.cursor, _FULFILMENT_ID)
        async with self._database.read_session() as store:
            await get_visible_order(store, ctx, order_id)
            found = await store.list_fulfilments(order_id, after, query.limit + 1)
        views = [to_fulfilment_view(fulfilment) for fulfilment in found]
        return self._cursors.build_page(
            listing, views, query.limit, lambda view: view.fulfilment_id
        )

    async def get_fulfilment(self, ctx: CallContext, fulfilment_id: UUID) -> FulfilmentView:
        async with self._database.read_session() as store:
            fulfilment = await store.get_fulfilment(fulfilment_id)
            owner_and_status = (
                await store.get_order_status(fulfilment.order_id) if fulfilment else None
            )
        if (
            fulfilment is None
            or owner_and_status is None
            or not ctx.can_view_order(fulfilment.order_id, owner_and_status[0], ORDERS_MANAGE)
        ):
            raise FulfilmentNotFound(fulfilment_id=str(fulfilment_id))
        return to_fulfilment_view(fulfilment)

    async def deliver(
        self, ctx: CallContext, fulfilment_id: UUID, attempt: IdempotentCommand
    ) -> FulfilmentView:
        def deliver(fulfilment: Fulfilment, order: Order) -> Event | None:
            audit = self._audit(ctx, fulfilment.label)
            fulfilment.deliver(audit.at)
            order.deliver(fulfilment.quantities, audit)
            is_completed = order.status is OrderStatus.COMPLETED
            return OrderCompleted(order_id=order.order_id) if is_completed else None

        return await self._change(ctx, fulfilment_id, deliver, attempt)

    async def mark_lost(
        self, ctx: CallContext, fulfilment_id: UUID, attempt: IdempotentCommand
    ) -> FulfilmentView:
        def mark_lost(fulfilment: Fulfilment, order: Order) -> Event:
            audit = self._audit(ctx, fulfilment.label)
            fulfilment.mark_lost(audit.at)
            order.fail_shipment(fulfilment.quantities, "shipment_lost", audit)
            return FulfilmentLost(order_id=order.order_id, fulfilment_id=fulfilment_id)

        return await self._change(ctx, fulfilment_id, mark_lost, attempt)

    async def mark_returned(
        self,
        ctx: CallContext,
        fulfilment_id: UUID,
        command: ReturnShipment,
        attempt: IdempotentCommand,
    ) -> FulfilmentView:
        def mark_returned(fulfilment: Fulfilment, order: Order) -> Event:
            audit = self._audit(ctx, command.reason or fulfilment.label)
            fulfilment.mark_returned(restock=command.restock, now=audit.at)
            order.fail_shipment(fulfilment.quantities, "shipment_returned", audit)
            return fulfilment_returned_event(fulfilment)

        return await self._change(ctx, fulfilment_id, mark_returned, attempt)

    @retry_on_conflict
    async def _change(
        self, ctx: CallContext, fulfilment_id: UUID, change: Change, attempt: IdempotentCommand
    ) -> FulfilmentView:
        check_staff(ctx)
        async with self._database.transaction() as store:
            fulfilment, order = await _get_with_order(store, ctx, fulfilment_id)
            event = change(fulfilment, order)
            await store.save_fulfilment(fulfilment)
            await store.save_order(order)
            if event:
                await store.publish(event, ctx)
            view = to_fulfilment_view(fulfilment)
            await store.store_response(attempt, view)
        return view

    def _audit(self, ctx: CallContext, reason: str) -> AuditInfo:
        return AuditInfo(ctx.actor.audit_name, self._clock(), reason)


async def _get_with_order(
    store: Store, ctx: CallContext, fulfilment_id: UUID
) -> tuple[Fulfilment, Order]:
    """Raises FulfilmentNotFound."""
    fulfilment = await store.get_fulfilment(fulfilment_id)
    if fulfilment is None:
        raise FulfilmentNotFound(fulfilment_id=str(fulfilment_id))
    return fulfilment, await get_visible_order(store, ctx, fulfilment.order_id)
