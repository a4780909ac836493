"""What customers and staff ask of orders."""

from datetime import datetime
from typing import Any
from uuid import UUID

from markethall.inventory.contract import Inventory
from markethall.orders.contract import (
    CancelOrder,
    FulfilledLine,
    FulfilmentNotFound,
    FulfilmentView,
    FulfilOrder,
    OrderCancelled,
    OrderCompleted,
    OrderFulfilled,
    OrderNotFound,
    OrdersQuery,
    OrderState,
    OrderStatus,
    OrderView,
    PlaceOrder,
    Timeline,
)
from markethall.orders.domain import By, Fulfilment, Order, shipped_lines
from markethall.orders.ports import Database, Place, Store
from markethall.orders.service.checkout import Checkout
from markethall.orders.service.saving import until_saved
from markethall.orders.service.views import entry_view, fulfilment_view, order_view
from markethall.shared.auth import ORDERS_MANAGE
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.errors import Forbidden
from markethall.shared.idempotency import Attempt
from markethall.shared.pages import CursorInvalid, Cursors, Page


class OrderService:
    """Orders, in this process."""

    def __init__(
        self,
        checkout: Checkout,
        inventory: Inventory,
        database: Database,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._checkout = checkout
        self._inventory = inventory
        self._database = database
        self._cursors = cursors
        self._clock = clock

    async def place(self, call: Call, command: PlaceOrder, attempt: Attempt) -> OrderView:
        return await self._checkout.place(call, command, attempt)

    async def order(self, call: Call, order_id: UUID) -> OrderView:
        return order_view(await self._order(call, order_id))

    async def orders(self, call: Call, query: OrdersQuery) -> Page[OrderView]:
        owner_id = None if call.actor.may(ORDERS_MANAGE) else call.user_id
        filters = query.model_dump_json(exclude={"limit", "cursor"})
        listing = f"orders {owner_id} {filters}"
        after = _place(self._cursors.decode(listing, query.cursor))
        async with self._database.reading() as store:
            found = await store.orders(query, owner_id, after)
        views = [order_view(order) for order in found]
        return self._cursors.page(listing, views, query.limit, _position)

    async def status(self, call: Call, order_id: UUID) -> OrderState:
        async with self._database.reading() as store:
            found = await store.state(order_id)
        if found is None or not call.sees(found[0], ORDERS_MANAGE):
            raise OrderNotFound(order_id=str(order_id))
        return found[1]

    async def timeline(self, call: Call, order_id: UUID) -> Timeline:
        async with self._database.reading() as store:
            await _seen(store, call, order_id)
            entries = await store.entries(order_id)
        return Timeline(order_id=order_id, items=tuple(entry_view(entry) for entry in entries))

    async def cancel(
        self, call: Call, order_id: UUID, command: CancelOrder, attempt: Attempt
    ) -> OrderView:
        return await until_saved(lambda: self._cancel(call, order_id, command.reason, attempt))

    async def _cancel(self, call: Call, order_id: UUID, reason: str, attempt: Attempt) -> OrderView:
        async with self._database.transaction() as store:
            order = await _seen(store, call, order_id)
            order.cancel(self._by(call, reason))
            await store.save(order)
            await store.publish(cancelled(order, reason), call)
            view = order_view(order)
            await store.finish(attempt, view)
        return view

    async def fulfil(
        self, call: Call, order_id: UUID, command: FulfilOrder, attempt: Attempt
    ) -> FulfilmentView:
        _check_staff(call)
        return await until_saved(lambda: self._fulfil(call, order_id, command, attempt))

    async def _fulfil(
        self, call: Call, order_id: UUID, command: FulfilOrder, attempt: Attempt
    ) -> FulfilmentView:
        order = await self._order(call, order_id)
        if order.status is OrderStatus.PROCESSING:
            # goods may leave only when they are ours to give, whatever the event is waiting for
            await self._inventory.commit(call, order.reservation_id)
        async with self._database.transaction() as store:
            fulfilment = await store.fulfilment(attempt.id)
            if fulfilment is None:
                fulfilment = self._ship(order, command, call, attempt.id)
                await store.save(order)
                await store.add_fulfilment(fulfilment)
                await store.publish(_fulfilled(order, fulfilment), call)
            view = fulfilment_view(fulfilment)
            await store.finish(attempt, view)
        return view

    def _ship(
        self, order: Order, command: FulfilOrder, call: Call, fulfilment_id: UUID
    ) -> Fulfilment:
        by = self._by(call, f"{command.carrier} {command.tracking_number}")
        shipped = (
            {line.line_id: line.quantity for line in command.lines}
            if command.lines
            else order.unfulfilled()
        )
        order.fulfil(shipped, by)
        return Fulfilment(
            fulfilment_id=fulfilment_id,
            order_id=order.order_id,
            lines=shipped_lines(order.lines, shipped),
            carrier=command.carrier,
            tracking_number=command.tracking_number,
            shipped_at=by.at,
        )

    async def fulfilment(self, call: Call, fulfilment_id: UUID) -> FulfilmentView:
        async with self._database.reading() as store:
            found = await store.fulfilment(fulfilment_id)
            state = await store.state(found.order_id) if found else None
        if found is None or state is None or not call.sees(state[0], ORDERS_MANAGE):
            raise FulfilmentNotFound(fulfilment_id=str(fulfilment_id))
        return fulfilment_view(found)

    async def deliver(self, call: Call, fulfilment_id: UUID, attempt: Attempt) -> FulfilmentView:
        _check_staff(call)
        return await until_saved(lambda: self._deliver(call, fulfilment_id, attempt))

    async def _deliver(self, call: Call, fulfilment_id: UUID, attempt: Attempt) -> FulfilmentView:
        async with self._database.transaction() as store:
            fulfilment = await store.fulfilment(fulfilment_id)
            if fulfilment is None:
                raise FulfilmentNotFound(fulfilment_id=str(fulfilment_id))
            order = await _seen(store, call, fulfilment.order_id)
            by = self._by(call, f"{fulfilment.carrier} {fulfilment.tracking_number}")
            fulfilment.deliver(by.at)
            order.deliver(fulfilment.quantities, by)
            await store.save_fulfilment(fulfilment)
            await store.save(order)
            if order.status is OrderStatus.COMPLETED:
                await store.publish(OrderCompleted(order_id=order.order_id), call)
            view = fulfilment_view(fulfilment)
            await store.finish(attempt, view)
        return view

    async def count(self) -> int:
        async with self._database.reading() as store:
            return await store.count()

    async def _order(self, call: Call, order_id: UUID) -> Order:
        async with self._database.reading() as store:
            return await _seen(store, call, order_id)

    def _by(self, call: Call, reason: str = "") -> By:
        return By(call.actor.known_as, self._clock(), reason)


async def _seen(store: Store, call: Call, order_id: UUID) -> Order:
    """Absent and not yours are the same: OrderNotFound."""
    order = await store.order(order_id)
    if order is None or not call.sees(order.user_id, ORDERS_MANAGE):
        raise OrderNotFound(order_id=str(order_id))
    return order


def cancelled(order: Order, reason: str) -> OrderCancelled:
    return OrderCancelled(
        order_id=order.order_id,
        reservation_id=order.reservation_id,
        payment_id=order.payment_id,
        reason=reason,
    )


def _fulfilled(order: Order, fulfilment: Fulfilment) -> OrderFulfilled:
    lines = (
        FulfilledLine(product_id=line.product_id, quantity=line.quantity)
        for line in fulfilment.lines
    )
    return OrderFulfilled(
        order_id=order.order_id,
        reservation_id=order.reservation_id,
        fulfilment_id=fulfilment.fulfilment_id,
        lines=tuple(lines),
    )


def _check_staff(call: Call) -> None:
    if not call.actor.may(ORDERS_MANAGE):
        raise Forbidden(scope=ORDERS_MANAGE)


def _position(order: OrderView) -> tuple[str, str]:
    return order.created_at.isoformat(), str(order.order_id)


def _place(position: list[Any] | None) -> Place | None:
    """Raises CursorInvalid: signed by us, but by another version of us."""
    if position is None:
        return None
    try:
        at, order_id = position
        return Place(datetime.fromisoformat(at), UUID(order_id))
    except (ValueError, TypeError):
        raise CursorInvalid from None
