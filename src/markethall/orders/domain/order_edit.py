"""The edit of an order: new lines, and what follows from them."""

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from markethall.orders.domain.order_line import OrderLine
from markethall.orders.domain.order_state import OrderState
from markethall.orders.domain.shipping_line import ShippingLine


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
    # None if the reservation of the order has all units
    reservation_id: UUID | None = None
    # None if the payment stays
    payment: NewPayment | None = None

    def apply(self, order: OrderState) -> None:
        """Replace the lines and amounts, the reservation and the payment of the order."""
        previous_total = order.total
        order.lines, order.shipping_line = self.lines, self.shipping_line
        order.discount, order.shipping = self.discount, self.shipping
        order.tax, order.included_tax = self.tax, self.included_tax
        order.reservation_id = self.reservation_id or order.reservation_id
        if self.payment:
            order.payment_id, order.payment_version = self.payment
            order.provider_payment_status, order.payment_amount = "created", None
        elif order.total != previous_total:
            order.payment_amount = order.payment_amount or previous_total
