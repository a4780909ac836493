"""The contract of returns: requests, views, errors and the Protocol."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Protocol
from uuid import UUID

from pydantic import Field

from markethall.orders.contract import MAX_LINES, LineQuantities, Quantity
from markethall.orders.shop.contract import non_blank
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Bool, Dto, Id, RequestModel, VisibleText
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import Page, PageQuery


class ReturnStatus(StrEnum):
    """Status of a return.

    Transitions: requested -> approved or rejected; approved -> received -> closed; requested or
    approved -> cancelled.
    """

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    RECEIVED = "received"
    CLOSED = "closed"
    CANCELLED = "cancelled"


class ItemCondition(StrEnum):
    """The condition of returned units."""

    NEW = "new"
    OPENED = "opened"
    USED = "used"
    DAMAGED = "damaged"
    DEFECTIVE = "defective"


class Disposition(StrEnum):
    """Whether returned units are sold again or thrown away."""

    RESTOCK = "restock"
    SCRAP = "scrap"


# Commands


class RequestReturn(RequestModel):
    """Delivered units that the customer sends back."""

    lines: LineQuantities
    reason: Annotated[VisibleText, non_blank(500, examples=["does not fit"])]


class RejectReturn(RequestModel):
    reason: Annotated[VisibleText, non_blank(500, examples=["the return period is over"])]


class ReceivedLineRequest(RequestModel):
    """Units of one line that have arrived. A line may be named several times."""

    line_id: Id
    quantity: Quantity
    condition: ItemCondition
    disposition: Disposition


class ReceiveReturn(RequestModel):
    """Units that have arrived. The rest of the return may arrive later."""

    lines: Annotated[
        tuple[ReceivedLineRequest, ...], Field(min_length=1, max_length=MAX_LINES, fail_fast=True)
    ]


class CloseReturn(RequestModel):
    """The end of a return. With `refund_shipping`, the shipping of the order is refunded too."""

    refund_shipping: Annotated[Bool, Field(examples=[True])] = False


# Views


class ReturnLineView(Dto):
    """Units of one line. `refund` = `price` - `discount` + `tax`, for the received units.

    The amounts are zero until the return is closed. `included_tax` is contained in `refund`.
    """

    line_id: UUID
    product_id: UUID
    quantity: int
    restocked: int
    scrapped: int
    price: Money
    discount: Money
    tax: Money
    included_tax: Money
    refund: Money


class ReceivedLineView(Dto):
    line_id: UUID
    quantity: int
    condition: ItemCondition
    disposition: Disposition


class ReceiptView(Dto):
    """Units that have arrived together."""

    receipt_id: UUID
    received_at: datetime
    actor: str
    lines: tuple[ReceivedLineView, ...]


class ReturnRefundView(Dto):
    """The refund of a closed return: `amount` includes `shipping`.

    `refunded` is the amount of the refund that was made. It is less than `amount` if too little was
    left to refund, because the payment had been refunded before. It is null until the refund is
    made, soon after the return is closed.
    """

    amount: Money
    shipping: Money
    refunded: Money | None


class ReturnView(Dto):
    """A return. `refund` is null until the return is closed."""

    return_id: UUID
    order_id: UUID
    status: ReturnStatus
    reason: str
    lines: tuple[ReturnLineView, ...]
    receipts: tuple[ReceiptView, ...]
    refund: ReturnRefundView | None
    created_at: datetime
    updated_at: datetime
    version: int


# Errors


class ReturnNotFound(DomainError):
    """The return does not exist or the caller may not see it. Details: return_id."""

    code = "orders.return_not_found"
    status = 404
    title = "There is no such return"


class TooMuchToReturn(DomainError):
    """A return has more units of a line than are delivered and in no other return.

    Details: lines (each with line_id, requested, returnable).
    """

    code = "orders.too_much_to_return"
    status = 409
    title = "The quantity exceeds the returnable quantity"


class TooMuchReceived(DomainError):
    """More units of a line have arrived than the return still expects.

    Details: lines (each with line_id, received, expected).
    """

    code = "orders.too_much_received"
    status = 409
    title = "The quantity exceeds the quantity of the return"


class ShippingRefunded(DomainError):
    """Another return has refunded the shipping of the order. Details: order_id."""

    code = "orders.shipping_refunded"
    status = 409
    title = "The shipping of the order is refunded already"


class Returns(Protocol):
    """The public API of returns. Customers see the returns of their own orders, staff see all.

    A return never changes the status of its order. Each change is on the timeline of the order.
    """

    async def request(
        self, ctx: CallContext, order_id: UUID, command: RequestReturn, attempt: IdempotentCommand
    ) -> ReturnView:
        """Request a return. The attempt's id is the return id.

        The units are in no other return until this one is rejected, cancelled or closed. Raises
        OrderNotFound, TooMuchToReturn.
        """

    async def list_returns(
        self, ctx: CallContext, order_id: UUID, query: PageQuery
    ) -> Page[ReturnView]:
        """Return the returns of an order, the oldest first. Raises OrderNotFound, CursorInvalid."""

    async def get_return(self, ctx: CallContext, return_id: UUID) -> ReturnView:
        """Raises ReturnNotFound."""

    async def approve(
        self, ctx: CallContext, return_id: UUID, attempt: IdempotentCommand
    ) -> ReturnView:
        """Staff only. Raises Forbidden, ReturnNotFound, InvalidTransition."""

    async def reject(
        self, ctx: CallContext, return_id: UUID, command: RejectReturn, attempt: IdempotentCommand
    ) -> ReturnView:
        """Staff only. Raises Forbidden, ReturnNotFound, InvalidTransition."""

    async def cancel(
        self, ctx: CallContext, return_id: UUID, attempt: IdempotentCommand
    ) -> ReturnView:
        """Cancel a return before its units arrive. Raises ReturnNotFound, InvalidTransition."""

    async def receive(
        self, ctx: CallContext, return_id: UUID, command: ReceiveReturn, attempt: IdempotentCommand
    ) -> ReturnView:
        """Record units that have arrived. The attempt's id is the receipt id. Staff only.

        An event handler restocks units with the disposition `restock`. Raises Forbidden,
        ReturnNotFound, InvalidTransition, TooMuchReceived.
        """

    async def close(
        self, ctx: CallContext, return_id: UUID, command: CloseReturn, attempt: IdempotentCommand
    ) -> ReturnView:
        """Close a return and refund the received units. Staff only.

        The refund contains the share of the units in the discounts and taxes of their line. The
        shares of all returns of a line sum to the whole. Units that have not arrived can be in
        another return. An event handler makes the refund, at most the amount that is not refunded
        yet. Raises Forbidden, ReturnNotFound, InvalidTransition, ShippingRefunded.
        """
