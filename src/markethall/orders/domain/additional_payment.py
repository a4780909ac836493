"""An additional payment of an order: the amount by which an edit raises the total."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from markethall.orders.contract import EditStatus
from markethall.orders.domain.order_edit import OrderEdit


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
