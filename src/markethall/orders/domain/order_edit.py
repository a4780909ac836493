"""The edit of an order: new lines, what follows from them, and an additional payment."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from markethall.orders.contract import EditStatus
from markethall.orders.domain.order_line import OrderLine, ShippingLine

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


@dataclass(frozen=True)
class AdditionalPayment:
    """The payment of an edit. Amounts are in minor units of the currency of the order.

    The edit is open until the payment is captured, or has ended without a capture. `edit` has the
    new lines. `reservation_id` has the additional units, or is None if no quantity rises.
    """

    edit_id: UUID
    payment_id: UUID
    amount: int
    expires_at: datetime
    reservation_id: UUID | None
    # None after the edit has taken effect
    edit: OrderEdit | None
    status: EditStatus = EditStatus.OPEN
    refunded: int = 0
