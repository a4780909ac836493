"""The statuses of orders, and the request for them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, NamedTuple
from uuid import UUID

from pydantic import Field

from markethall.shared.kernel.model import Dto, QueryModel


class OrderStatus(StrEnum):
    """Status of an order.

    Transitions: pending -> processing -> completed; pending -> expired; pending or processing ->
    cancelled; expired -> processing (when the customer paid late).
    """

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class EditStatus(StrEnum):
    """Status of an edit. Transitions: open (waits for its payment) -> applied or dropped."""

    OPEN = "open"
    APPLIED = "applied"
    DROPPED = "dropped"


class OrderPaymentStatus(StrEnum):
    """Payment status of an order, according to the latest event of the context `payments`."""

    NONE = "none"
    AUTHORIZED = "authorized"
    PAID = "paid"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    VOIDED = "voided"
    FAILED = "failed"


class OrderFulfilmentStatus(StrEnum):
    """Fulfilment status of an order."""

    UNFULFILLED = "unfulfilled"
    PARTIAL = "partial"
    FULFILLED = "fulfilled"
    DELIVERED = "delivered"


class FulfilmentStatus(StrEnum):
    """Status of a fulfilment. Transitions: shipped -> delivered, lost or returned_to_sender."""

    SHIPPED = "shipped"
    DELIVERED = "delivered"
    LOST = "lost"
    RETURNED_TO_SENDER = "returned_to_sender"


class OrderStatusView(Dto):
    order_id: UUID
    status: OrderStatus
    payment_status: OrderPaymentStatus
    fulfilment_status: OrderFulfilmentStatus
    updated_at: datetime


class OrderStatusEvent(OrderStatusView):
    """The status of an order after a change. Each change increases `version` by one."""

    version: int
    change: str


class VersionedOrderStatus(NamedTuple):
    """The status of an order, and the version of the order. Each change increases the version."""

    status: OrderStatusView
    version: int


MAX_WAIT_SECONDS: Final = 25


class OrderStatusQuery(QueryModel):
    """The query of a status. `wait` is the number of seconds to wait for a change."""

    wait: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            description="Wait up to this many seconds: with `If-None-Match` until the `ETag`"
            " changes, without it until the order is no longer pending",
        ),
    ] = 0
