"""The shipping of an order."""

from dataclasses import dataclass

from markethall.orders.totals.domain import LineBreakdown


@dataclass(frozen=True)
class ShippingLine:
    """The shipping method of an order, and the breakdown of its price."""

    code: str
    name: str
    breakdown: LineBreakdown
