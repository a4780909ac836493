"""A line of an order."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class OrderLine:
    """A line of an order. Prices are in minor units of the order's currency."""

    line_id: UUID
    product_id: UUID
    sku: str
    name: str
    unit_price: int
    quantity: int
    fulfilled: int = 0
    delivered: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        return self.unit_price * self.quantity

    @property
    def unfulfilled(self) -> int:
        return self.quantity - self.fulfilled - self.cancelled
