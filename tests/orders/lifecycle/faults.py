"""Variants of the app with a planted fault each. The random tests must find each fault."""

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from markethall.inventory.contract import RequestedLine, Restock
from markethall.orders.container import OrdersContainer
from markethall.orders.contract import (
    OrderCancelled,
    OrderLinesCancelled,
    OrderStatus,
    ReturnReceived,
)
from markethall.orders.domain import Order
from markethall.orders.memory import MemoryOrderStore, Tables
from markethall.orders.service.event_handlers import OrderEventHandlers
from markethall.orders.service.order_events import ORDER_COUNTERS
from markethall.shared.composition.memory import build_memory_persistence
from markethall.shared.composition.providers import singleton
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Delivery
from tests.containers import orders_of
from tests.orders.conftest import OrdersApp, build_orders_app
from tests.orders.lifecycle.real_contexts import build_contexts_app
from tests.orders.test_with_real_contexts import ContextsApp


class RestocksTwice(OrderEventHandlers):
    """Adds the returned units to the stock a second time, under another id."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        restock = self.on_return_received

        async def restock_twice(delivery: Delivery, event: ReturnReceived) -> None:
            await restock(delivery, event.model_copy(update={"receipt_id": new_id()}))
            await restock(delivery, event)

        self.on_return_received = restock_twice


class ReturnsStockTwice(OrderEventHandlers):
    """Releases the stock of a cancelled order, and also adds it to the stock on hand."""

    async def on_order_cancelled(self, delivery: Delivery, event: OrderCancelled) -> None:
        order = await self._orders.get(event.order_id)
        assert order is not None
        lines = tuple(
            RequestedLine(product_id=line.product_id, quantity=line.quantity)
            for line in order.lines
        )
        restock = Restock(restock_id=event.order_id, lines=lines)
        await self._inventory.restock(delivery.call_context(), restock)
        await super().on_order_cancelled(delivery, event)


class RoundsRefundDown(OrderEventHandlers):
    """Refunds the same amount for each unit of a line, so that the remainder is never refunded."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        settle = self.on_order_lines_cancelled

        async def settle_rounded(delivery: Delivery, event: OrderLinesCancelled) -> None:
            order = await self._orders.get(event.order_id)
            assert order is not None
            per_unit = {line.product_id: line.charged // line.quantity for line in order.lines}
            amount = sum(per_unit[line.product_id] * line.quantity for line in event.lines)
            if event.amount.amount and event.lines:
                refund = Money(amount=amount, currency=event.amount.currency)
                event = event.model_copy(update={"amount": refund})
            await settle(delivery, event)

        self.on_order_lines_cancelled = settle_rounded


class KeepsStock(OrderEventHandlers):
    """Returns the money of a cancelled order, but not its stock."""

    async def on_order_cancelled(self, delivery: Delivery, event: OrderCancelled) -> None:
        await self._returns.end(delivery.call_context(), event.payment_id, event.reason)
        await self._orders.mark_processed(delivery)


class KeepsUses(MemoryOrderStore):
    """Does not give the uses of promotions back when an order expires."""

    _is_expiring = False

    async def save_order(self, order: Order) -> None:
        self._is_expiring = order.status is OrderStatus.EXPIRED
        await super().save_order(order)

    async def give_back_promotions(self, order_id: UUID, kept: Sequence[UUID] = ()) -> None:
        if not self._is_expiring:
            await super().give_back_promotions(order_id, kept)


def with_handlers(handlers: type[OrderEventHandlers]) -> Callable[[], OrdersApp]:
    """Return a function that builds the app with these event handlers."""

    def build() -> OrdersApp:
        app = build_orders_app("memory", None)
        override_handlers(app.container, handlers)
        return app

    return build


def override_handlers(wired: OrdersContainer, handlers: type[OrderEventHandlers]) -> None:
    wired.event_handlers.override(
        singleton(
            handlers,
            wired.clients,
            wired.handled_orders,
            wired.reservation_policy,
            wired.delegated_events,
            wired.clock,
        )
    )


def build_with_kept_stock() -> ContextsApp:
    app = build_contexts_app()
    override_handlers(orders_of(app.container), KeepsStock)
    return app


def build_with_kept_uses() -> OrdersApp:
    app = build_orders_app("memory", None)
    clock = app.container.clock()
    persistence = build_memory_persistence(Tables(), KeepsUses, clock, ORDER_COUNTERS)
    app.container.memory_persistence.override(persistence)
    return app


FAULTS: Final = {
    "restock twice": with_handlers(RestocksTwice),
    "stock returned twice at cancel": with_handlers(ReturnsStockTwice),
    "refund rounded down per unit": with_handlers(RoundsRefundDown),
    "uses kept at expiry": build_with_kept_uses,
}
