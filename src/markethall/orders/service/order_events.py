"""Build the events of orders from their entities."""

from collections.abc import Mapping
from uuid import UUID

from markethall.orders.contract import (
    FulfilledLine,
    OrderCancelled,
    OrderFulfilled,
    OrderLinesCancelled,
    OrderOverpaid,
    OrderPaid,
)
from markethall.orders.domain import Fulfilment, Order, OrderLine
from markethall.shared.kernel.money import Money


def paid_event(order: Order) -> OrderPaid:
    return OrderPaid(order_id=order.order_id, reservation_id=order.reservation_id)


def cancelled_event(order: Order, reason: str) -> OrderCancelled:
    return OrderCancelled(
        order_id=order.order_id,
        reservation_id=order.reservation_id,
        payment_id=order.payment_id,
        reason=reason,
    )


def lines_cancelled_event(
    order: Order, quantities: Mapping[UUID, int], cancellation_id: UUID, reason: str
) -> OrderLinesCancelled:
    cancelled = [line for line in order.lines if line.line_id in quantities]
    price = sum(_share_of_last_cancelled(line, quantities[line.line_id]) for line in cancelled)
    # without a capture there is nothing to refund: the captures leave out these units
    amount = price if order.is_captured else 0
    return OrderLinesCancelled(
        order_id=order.order_id,
        reservation_id=order.reservation_id,
        payment_id=order.payment_id,
        cancellation_id=cancellation_id,
        lines=tuple(
            FulfilledLine(product_id=line.product_id, quantity=quantities[line.line_id])
            for line in cancelled
        ),
        amount=Money(amount=amount, currency=order.currency),
        reason=reason,
    )


def _share_of_last_cancelled(line: OrderLine, units: int) -> int:
    """Return the amount of the `units` units of the line that were cancelled most recently."""
    return line.share(line.cancelled - units, units).amount


def overpaid_event(order: Order, excess: int) -> OrderOverpaid:
    """Return the event; `excess` is in minor units of the order's currency."""
    return OrderOverpaid(
        order_id=order.order_id,
        payment_id=order.payment_id,
        amount=Money(amount=excess, currency=order.currency),
    )


def fulfilled_event(order: Order, fulfilment: Fulfilment) -> OrderFulfilled:
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
