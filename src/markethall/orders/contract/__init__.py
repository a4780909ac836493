"""What the rest of the hall may know about orders. Nobody calls them; news travels by event."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

from pydantic import AwareDatetime, Field
from pydantic import field_validator as checked

from markethall.orders.contract.addresses import Address as Address
from markethall.orders.contract.addresses import AnyAddress as AnyAddress
from markethall.orders.contract.addresses import said
from markethall.orders.contract.events import FulfilledLine as FulfilledLine
from markethall.orders.contract.events import OrderCancelled as OrderCancelled
from markethall.orders.contract.events import OrderCompleted as OrderCompleted
from markethall.orders.contract.events import OrderEvent as OrderEvent
from markethall.orders.contract.events import OrderExpired as OrderExpired
from markethall.orders.contract.events import OrderFulfilled as OrderFulfilled
from markethall.orders.contract.events import OrderPaid as OrderPaid
from markethall.orders.contract.events import OrderPlaced as OrderPlaced
from markethall.shared.call import Call
from markethall.shared.errors import Refusal
from markethall.shared.idempotency import Attempt
from markethall.shared.model import Body, Dto, Id, Int, Text
from markethall.shared.money import Currency, Money
from markethall.shared.pages import Page, PageQuery

# States


class OrderStatus(StrEnum):
    """pending -> processing -> completed; pending -> expired; either of the first -> cancelled."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class PaymentState(StrEnum):
    """Where the money is, as far as the order has been told."""

    NONE = "none"
    AUTHORIZED = "authorized"
    PAID = "paid"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    VOIDED = "voided"
    FAILED = "failed"


class FulfilmentState(StrEnum):
    """How much of the order has left the house, and has arrived."""

    UNFULFILLED = "unfulfilled"
    PARTIAL = "partial"
    FULFILLED = "fulfilled"
    DELIVERED = "delivered"


class FulfilmentStatus(StrEnum):
    SHIPPED = "shipped"
    DELIVERED = "delivered"


# Commands

MAX_QUANTITY: Final = 999
MAX_LINES: Final = 100
Quantity = Annotated[Int, Field(ge=1, le=MAX_QUANTITY, examples=[2])]


class WantedLine(Body):
    product_id: Id
    quantity: Quantity


class ExpectedTotal(Money, extra="forbid"):
    """What the client has shown to the customer."""


class PlaceOrder(Body):
    """Lines of the same product are summed. Without a currency it is that of the products."""

    lines: Annotated[tuple[WantedLine, ...], Field(min_length=1, max_length=MAX_LINES)]
    shipping_address: AnyAddress
    billing_address: AnyAddress | None = None
    currency: Currency | None = None
    expected_total: ExpectedTotal | None = None
    note: Annotated[Text, Field(max_length=1000)] | None = None

    @checked("lines")
    @classmethod
    def _not_too_many(cls, lines: tuple[WantedLine, ...]) -> tuple[WantedLine, ...]:
        sums: dict[UUID, int] = {}
        for line in lines:
            sums[line.product_id] = sums.get(line.product_id, 0) + line.quantity
        if max(sums.values()) > MAX_QUANTITY:
            raise ValueError(f"must not want more than {MAX_QUANTITY} of one product")
        return lines


class CancelOrder(Body):
    reason: Annotated[Text, said(500, examples=["changed my mind"])]


class LineToFulfil(Body):
    line_id: Id
    quantity: Quantity


class FulfilOrder(Body):
    """Without lines: everything that is not fulfilled yet."""

    lines: Annotated[tuple[LineToFulfil, ...], Field(min_length=1, max_length=MAX_LINES)] | None = (
        None
    )
    carrier: Annotated[Text, said(100, examples=["DHL"])]
    tracking_number: Annotated[Text, said(200, examples=["00340434161094042557"])]

    @checked("lines")
    @classmethod
    def _each_once(cls, lines: tuple[LineToFulfil, ...] | None) -> tuple[LineToFulfil, ...] | None:
        if lines and len({line.line_id for line in lines}) < len(lines):
            raise ValueError("must name each line once")
        return lines


_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(3000, 1, 1, tzinfo=UTC)
Moment = Annotated[AwareDatetime, Field(ge=_EARLIEST, le=_LATEST)]


class OrdersQuery(PageQuery):
    """A customer's filters stay among their own orders."""

    status: OrderStatus | None = None
    payment_status: PaymentState | None = None
    fulfilment_status: FulfilmentState | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    user_id: Id | None = None
    number: Annotated[Text, Field(pattern=r"^MH-[0-9]{1,18}$", examples=["MH-1001"])] | None = None
    sort: Literal["-created_at", "created_at"] = "-created_at"


# Answers


class OrderLineView(Dto):
    line_id: UUID
    product_id: UUID
    sku: str
    name: str
    unit_price: Money
    quantity: int
    fulfilled: int
    total: Money


class OrderPayment(Dto):
    """The payment and its status as the order was last told; the payment itself knows better."""

    payment_id: UUID
    status: str


class OrderView(Dto):
    order_id: UUID
    number: Annotated[str, Field(examples=["MH-1001"])]
    user_id: UUID
    status: OrderStatus
    payment_status: PaymentState
    fulfilment_status: FulfilmentState
    lines: tuple[OrderLineView, ...]
    subtotal: Money
    discount: Money
    shipping: Money
    tax: Money
    total: Money
    shipping_address: AnyAddress
    billing_address: AnyAddress | None
    note: str | None
    payment: OrderPayment
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int


class OrderState(Dto):
    order_id: UUID
    status: OrderStatus
    payment_status: PaymentState
    fulfilment_status: FulfilmentState
    updated_at: datetime


class TimelineEntry(Dto):
    """One change: what, by whom, when, why, and how the order stood after it."""

    version: int
    change: str
    actor: str
    at: datetime
    reason: str
    status: OrderStatus
    payment_status: PaymentState
    fulfilment_status: FulfilmentState


class Timeline(Dto):
    """In the order in which it happened."""

    order_id: UUID
    items: tuple[TimelineEntry, ...]


class FulfilmentLine(Dto):
    line_id: UUID
    product_id: UUID
    quantity: int


class FulfilmentView(Dto):
    fulfilment_id: UUID
    order_id: UUID
    status: FulfilmentStatus
    lines: tuple[FulfilmentLine, ...]
    carrier: str
    tracking_number: str
    shipped_at: datetime
    delivered_at: datetime | None


# Refusals


class OrderNotFound(Refusal):
    """Absent, or not yours. Details: order_id."""

    code = "orders.not_found"
    status = 404
    title = "There is no such order"


class FulfilmentNotFound(Refusal):
    """Absent, or not of an order of yours. Details: fulfilment_id."""

    code = "orders.fulfilment_not_found"
    status = 404
    title = "There is no such fulfilment"


class InvalidTransition(Refusal):
    """Details: status, allowed (the commands that it takes as it stands)."""

    code = "orders.invalid_transition"
    status = 409
    title = "The status does not allow this"


class TotalChanged(Refusal):
    """Details: total, as money."""

    code = "orders.total_changed"
    status = 409
    title = "The total is not what was expected"


class OrderCurrencyMismatch(Refusal):
    """Details: currencies."""

    code = "orders.currency_mismatch"
    status = 422
    title = "An order has one currency"


class TotalTooLarge(Refusal):
    """Details: limit, in minor units."""

    code = "orders.total_too_large"
    status = 422
    title = "The total is larger than any order may be"


class TooMuchToFulfil(Refusal):
    """Details: lines, each with line_id, requested, unfulfilled."""

    code = "orders.too_much_to_fulfil"
    status = 409
    title = "More than the order still wants"


class Orders(Protocol):
    """What the world may ask. A customer sees their own orders, staff sees all."""

    async def place(self, call: Call, command: PlaceOrder, attempt: Attempt) -> OrderView:
        """Hold the goods, open the payment, write the order: once per attempt id.

        Raises UserNotFound and UserInactive (users), ProductNotFound, OutOfStock, TooManyHolds,
        TooManyUnits and ReservationClosed (inventory; the last when a retry comes too late),
        OrderCurrencyMismatch, TotalChanged, TotalTooLarge.
        """

    async def order(self, call: Call, order_id: UUID) -> OrderView:
        """Raises OrderNotFound."""

    async def orders(self, call: Call, query: OrdersQuery) -> Page[OrderView]:
        """Raises CursorInvalid."""

    async def status(self, call: Call, order_id: UUID) -> OrderState:
        """Raises OrderNotFound."""

    async def timeline(self, call: Call, order_id: UUID) -> Timeline:
        """Raises OrderNotFound."""

    async def cancel(
        self, call: Call, order_id: UUID, command: CancelOrder, attempt: Attempt
    ) -> OrderView:
        """By the owner or staff, while nothing is shipped. Stock and money follow by event.

        Raises OrderNotFound, InvalidTransition.
        """

    async def fulfil(
        self, call: Call, order_id: UUID, command: FulfilOrder, attempt: Attempt
    ) -> FulfilmentView:
        """The goods leave the house, once per attempt id. Staff only.

        Raises Forbidden, OrderNotFound, InvalidTransition, TooMuchToFulfil, OutOfStock and
        ReservationClosed (inventory; the paid goods could not be had, the order will be
        cancelled).
        """

    async def fulfilment(self, call: Call, fulfilment_id: UUID) -> FulfilmentView:
        """Raises FulfilmentNotFound."""

    async def deliver(self, call: Call, fulfilment_id: UUID, attempt: Attempt) -> FulfilmentView:
        """The goods have arrived; with the last of them the order completes. Staff only.

        Raises Forbidden, FulfilmentNotFound, InvalidTransition.
        """

    async def count(self) -> int:
        """How many orders there are."""
