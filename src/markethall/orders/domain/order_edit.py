"""The edit of an order: new lines, and what follows from them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from markethall.orders.domain.order_line import OrderLine
from markethall.orders.domain.shipping_line import ShippingLine

if TYPE_CHECKING:
    from markethall.orders.domain.order_state import OrderState


class NewPayment(NamedTuple):
    """The payment that replaces the cancelled one."""

    payment_id: UUID
    version: int


@dataclass(frozen=True)
class OrderEdit:
    """New lines and amounts of an order. Amounts are in minor units of its currency."""

    edit_id: UUID
    lines: tuple[OrderLine, ...]
    shipping_line: ShippingLine | None
    discount: int
    shipping: int
    tax: int
    included_tax: int
    # None if the payment stays
    payment: NewPayment | None = None

    @property
    def total(self) -> int:
        return sum(line.total for line in self.lines) - self.discount + self.shipping + self.tax

    def apply(self, order: "OrderState") -> None:
        """Replace the lines and amounts, and the payment of the order."""
        previous_total = order.total
        order.lines, order.shipping_line = self.lines, self.shipping_line
        order.discount, order.shipping = self.discount, self.shipping
        order.tax, order.included_tax = self.tax, self.included_tax
        if self.payment:
            order.payment_id, order.payment_version = self.payment
            order.provider_payment_status, order.payment_amount = "created", None
        elif order.total != previous_total:
            order.payment_amount = (
                previous_total if order.payment_amount is None else order.payment_amount
            )
