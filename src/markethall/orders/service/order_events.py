"""Build the events of orders from their entities."""

from markethall.orders.contract import FulfilledLine, OrderCancelled, OrderFulfilled, OrderPaid
from markethall.orders.domain import Fulfilment, Order


def paid_event(order: Order) -> OrderPaid:
    return OrderPaid(order_id=order.order_id, reservation_id=order.reservation_id)


def cancelled_event(order: Order, reason: str) -> OrderCancelled:
    return OrderCancelled(
        order_id=order.order_id,
        reservation_id=order.reservation_id,
        payment_id=order.payment_id,
        reason=reason,
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
