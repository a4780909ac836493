"""The amounts that are due for an order, in minor units of its currency."""

from markethall.orders.domain.order import Order


def total_due(order: Order) -> int:
    """Return the total without the cancelled units and their share of discounts and taxes."""
    cancelled = sum(line.share(0, line.cancelled).amount for line in order.lines)
    return max(order.total - cancelled, 0)


def shipped_due(order: Order) -> int:
    """Return the part of the total that is due for the units shipped so far.

    Shipping is due with the first shipment.
    """
    if not order.unfulfilled_quantities():
        return total_due(order)
    if order.has_nothing_shipped:
        return 0
    shipped = sum(
        line.share(line.quantity - line.fulfilled, line.fulfilled).amount for line in order.lines
    )
    return min(max(shipped + order.shipping_charged, 0), total_due(order))
