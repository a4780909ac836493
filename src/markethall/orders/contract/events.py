"""The events of orders."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Event


class OrderEvent(Event):
    type: ClassVar[str] = "orders.order_event"
    order_id: UUID

    @property
    def key(self) -> UUID:
        return self.order_id


class OrderPlaced(OrderEvent):
    type: ClassVar[str] = "orders.order_placed"
    user_id: UUID
    total: Money


class OrderPaid(OrderEvent):
    """The payment is captured, or authorized if the shop captures on fulfilment."""

    type: ClassVar[str] = "orders.order_paid"
    reservation_id: UUID


class OrderCancelled(OrderEvent):
    type: ClassVar[str] = "orders.order_cancelled"
    reservation_id: UUID
    payment_id: UUID
    # the payments of the open edit and of the applied edits
    additional_payment_ids: tuple[UUID, ...] = ()
    # the additional units of the open edit
    edit_reservation_id: UUID | None = None
    reason: str


class OrderExpired(OrderEvent):
    type: ClassVar[str] = "orders.order_expired"
    reservation_id: UUID


class FulfilledLine(Dto):
    product_id: UUID
    quantity: int


class OrderLinesCancelled(OrderEvent):
    """Units of a paid order were cancelled. `amount` is the amount that was charged for them.

    `amount` is zero if the payment is not captured: the captures then leave out these units.
    """

    type: ClassVar[str] = "orders.order_lines_cancelled"
    reservation_id: UUID
    payment_id: UUID
    cancellation_id: UUID
    lines: tuple[FulfilledLine, ...]
    amount: Money
    reason: str
    additional_payment_ids: tuple[UUID, ...] = ()


class OrderEdited(OrderEvent):
    """The lines of an order were changed.

    `reservation_id` is the reservation of the order. If quantities rise, `merged_reservation_id`
    has the additional units. `released_lines` are units that the order no longer has. `refund` is
    the amount by which a paid order has become cheaper.
    """

    type: ClassVar[str] = "orders.order_edited"
    edit_id: UUID
    reservation_id: UUID
    merged_reservation_id: UUID | None
    released_lines: tuple[FulfilledLine, ...]
    payment_id: UUID
    refund: Money
    additional_payment_ids: tuple[UUID, ...] = ()


class OrderEditOpened(OrderEvent):
    """An edit of a paid order waits for an additional payment until `expires_at`."""

    type: ClassVar[str] = "orders.order_edit_opened"
    edit_id: UUID
    payment_id: UUID
    reservation_id: UUID | None
    amount: Money
    expires_at: datetime


class OrderEditDropped(OrderEvent):
    """An edit has ended without effect. Its payment and its reservation are no longer needed."""

    type: ClassVar[str] = "orders.order_edit_dropped"
    edit_id: UUID
    payment_id: UUID
    reservation_id: UUID | None
    reason: str


class OrderOverpaid(OrderEvent):
    """More was captured than is due, because units were cancelled before the capture."""

    type: ClassVar[str] = "orders.order_overpaid"
    payment_id: UUID
    amount: Money


class OrderFulfilled(OrderEvent):
    """One fulfilment of an order was shipped.

    `lines` are units of the order's reservation. `reshipped` are units of earlier shipments that
    were lost or returned, from the reservation `reshipment_id`.
    """

    type: ClassVar[str] = "orders.order_fulfilled"
    reservation_id: UUID
    fulfilment_id: UUID
    lines: tuple[FulfilledLine, ...]
    reshipped: tuple[FulfilledLine, ...] = ()
    reshipment_id: UUID | None = None


class SaleDeferred(OrderFulfilled):
    """The units of a fulfilment were shipped, but are not on hand, so their sale is not recorded.

    The key is not the order id, so that other events of the order do not wait for the units.
    """

    type: ClassVar[str] = "orders.sale_deferred"

    @property
    def key(self) -> UUID:
        return self.fulfilment_id


class FulfilmentLost(OrderEvent):
    """The shipment of a fulfilment is lost."""

    type: ClassVar[str] = "orders.fulfilment_lost"
    fulfilment_id: UUID


class FulfilmentReturned(OrderEvent):
    """The shipment of a fulfilment has come back. `restocked` are its units that are sold again."""

    type: ClassVar[str] = "orders.fulfilment_returned"
    fulfilment_id: UUID
    restocked: tuple[FulfilledLine, ...]


class OrderCompleted(OrderEvent):
    type: ClassVar[str] = "orders.order_completed"


class ReturnStatusChanged(OrderEvent):
    """A return was requested, approved, rejected or cancelled."""

    type: ClassVar[str] = "orders.return_status_changed"
    return_id: UUID
    status: str


class ReturnReceived(OrderEvent):
    """Units of a return have arrived. `restocked` are those that are sold again."""

    type: ClassVar[str] = "orders.return_received"
    return_id: UUID
    receipt_id: UUID
    restocked: tuple[FulfilledLine, ...]


class ReturnClosed(OrderEvent):
    """A return is closed, and `refund` is due for it."""

    type: ClassVar[str] = "orders.return_closed"
    return_id: UUID
    payment_id: UUID
    refund: Money
    additional_payment_ids: tuple[UUID, ...] = ()


class OrderLookupRequested(Event):
    """A client has asked for a link to the order with this number and this e-mail address.

    Such an order may not exist.
    """

    type: ClassVar[str] = "orders.order_lookup_requested"
    lookup_id: UUID
    number: str
    email: str

    @property
    def key(self) -> UUID:
        return self.lookup_id


class OrderLinkRequested(Event):
    """A link to the order is to be sent to `email`, the address that the buyer gave for the order.

    The event contains no token, because events are stored. `Users.issue_order_token` creates the
    token of the link. The key of the event is not the order id, so that a slow mail does not delay
    other events of the order.
    """

    type: ClassVar[str] = "orders.order_link_requested"
    lookup_id: UUID
    order_id: UUID
    owner_id: UUID
    number: str
    email: str

    @property
    def key(self) -> UUID:
        return self.lookup_id
