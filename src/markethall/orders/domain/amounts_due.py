"""The amounts that are due for an order, in minor units of its currency."""

from markethall.orders.domain.order import Order


def total_due(order: Order) -> int:
    """Return the total without the price of cancelled units."""
    cancelled = sum(line.unit_price * line.cancelled for line in order.lines)
    return max(order.total - cancelled, 0)


def shipped_due(order: Order) -> int:
    """Return the part of the total that is due for the units shipped so far.

    Shipping and tax are due with the first shipment, and a discount reduces it.
    """
    if not order.unfulfilled_quantities():
        return total_due(order)
    if order.has_nothing_shipped:
        return 0
    shipped = sum(line.unit_price * line.fulfilled for line in order.lines)
    extra = order.shipping + order.tax - order.discount
    return min(max(shipped + extra, 0), total_due(order))
