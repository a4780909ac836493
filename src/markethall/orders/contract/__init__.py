"""The contract of orders: DTOs, errors and the Protocol. Other contexts use only its events."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from markethall.orders.contract.events import FulfilledLine as FulfilledLine
from markethall.orders.contract.events import OrderCancelled as OrderCancelled
from markethall.orders.contract.events import OrderCompleted as OrderCompleted
from markethall.orders.contract.events import OrderEvent as OrderEvent
from markethall.orders.contract.events import OrderExpired as OrderExpired
from markethall.orders.contract.events import OrderFulfilled as OrderFulfilled
from markethall.orders.contract.events import OrderLinesCancelled as OrderLinesCancelled
from markethall.orders.contract.events import OrderOverpaid as OrderOverpaid
from markethall.orders.contract.events import OrderPaid as OrderPaid
from markethall.orders.contract.events import OrderPlaced as OrderPlaced
from markethall.orders.contract.status import FulfilmentStatus as FulfilmentStatus
from markethall.orders.contract.status import OrderFulfilmentStatus as OrderFulfilmentStatus
from markethall.orders.contract.status import OrderPaymentStatus as OrderPaymentStatus
from markethall.orders.contract.status import OrderStatus as OrderStatus
from markethall.orders.contract.status import OrderStatusQuery as OrderStatusQuery
from markethall.orders.contract.status import OrderStatusView as OrderStatusView
from markethall.orders.contract.status import VersionedOrderStatus as VersionedOrderStatus
from markethall.orders.pricing.contract import OrderCurrencyMismatch as OrderCurrencyMismatch
from markethall.orders.shipping.contract import ShippingCode
from markethall.orders.shipping.contract import ShippingUnavailable as ShippingUnavailable
from markethall.orders.shop.contract import CountryNotServed as CountryNotServed
from markethall.orders.shop.contract.addresses import Address as Address
from markethall.orders.shop.contract.addresses import AnyAddress as AnyAddress
from markethall.orders.shop.contract.addresses import non_blank
from markethall.orders.totals.contract import DiscountView as DiscountView
from markethall.orders.totals.contract import TaxLineView as TaxLineView
from markethall.orders.totals.contract import TotalTooLarge as TotalTooLarge
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.email_address import EmailAddress
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import (
    Dto,
    Id,
    Int,
    RequestModel,
    Text,
    UtcDatetime,
    VisibleText,
)
from markethall.shared.kernel.money import Currency, Money
from markethall.shared.kernel.pagination import Page, PageQuery

# Commands

MAX_QUANTITY: Final = 999
MAX_LINES: Final = 100
# the prefix of the shop, whose last character is not a digit, and then the number
_ORDER_NUMBER_PATTERN: Final = r"^([A-Za-z0-9_#-]{0,19}[A-Za-z_#-])?[0-9]{1,18}$"
Quantity = Annotated[Int, Field(ge=1, le=MAX_QUANTITY, examples=[2])]


EMAIL_DESCRIPTION: Final = (
    "Address for messages about the order. Guests must give one; the default of a user is the"
    " address of the account"
)


class OrderLineRequest(RequestModel):
    product_id: Id
    quantity: Quantity


class ExpectedTotal(Money, extra="forbid"):
    """The total that the customer saw. If the real total differs, the order is rejected."""

    currency: Currency


class PlaceOrder(RequestModel):
    """A new order. Lines of the same product are added up.

    Without `currency`, the products' own currency is used. `shipping_method` is the code of a
    shipping method. The default is the cheapest method for the address that is not a pick-up.
    """

    lines: Annotated[
        tuple[OrderLineRequest, ...], Field(min_length=1, max_length=MAX_LINES, fail_fast=True)
    ]
    shipping_address: AnyAddress
    billing_address: AnyAddress | None = None
    currency: Currency | None = None
    shipping_method: ShippingCode | None = None
    expected_total: ExpectedTotal | None = None
    note: Annotated[Text, Field(max_length=1000)] | None = None
    email: Annotated[EmailAddress | None, Field(description=EMAIL_DESCRIPTION)] = None

    @field_validator("lines")
    @classmethod
    def _check_quantity_per_product(
        cls, lines: tuple[OrderLineRequest, ...]
    ) -> tuple[OrderLineRequest, ...]:
        quantities: dict[UUID, int] = {}
        for line in lines:
            quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
        if max(quantities.values()) > MAX_QUANTITY:
            raise PydanticCustomError(
                "too_many_units", f"must not order more than {MAX_QUANTITY} of one product"
            )
        return lines


class FulfilmentLineRequest(RequestModel):
    """Units of one line of an order."""

    line_id: Id
    quantity: Quantity


def _check_lines_are_distinct(
    lines: tuple[FulfilmentLineRequest, ...],
) -> tuple[FulfilmentLineRequest, ...]:
    if len({line.line_id for line in lines}) < len(lines):
        raise PydanticCustomError("line_named_twice", "must name each line once")
    return lines


LineQuantities = Annotated[
    tuple[FulfilmentLineRequest, ...],
    Field(min_length=1, max_length=MAX_LINES, fail_fast=True),
    AfterValidator(_check_lines_are_distinct),
]


class CancelOrder(RequestModel):
    """A cancellation. Without `lines`, everything that is not shipped is cancelled."""

    reason: Annotated[VisibleText, non_blank(500, examples=["changed my mind"])]
    lines: LineQuantities | None = None


class FulfilOrder(RequestModel):
    """A shipment. Without `lines`, everything that is not fulfilled yet is shipped."""

    lines: LineQuantities | None = None
    carrier: Annotated[VisibleText, non_blank(100, examples=["DHL"])]
    tracking_number: Annotated[VisibleText, non_blank(200, examples=["00340434161094042557"])]


OrderNumber = Annotated[
    Text,
    Field(
        pattern=_ORDER_NUMBER_PATTERN,
        json_schema_extra={"pattern": _ORDER_NUMBER_PATTERN},
        examples=["MH-1001"],
    ),
]
OrderSort = TypeAliasType("OrderSort", Literal["-created_at", "created_at"])


class OrderQuery(PageQuery):
    """Filters of the order list. Customers find only their own orders."""

    status: OrderStatus | None = None
    payment_status: OrderPaymentStatus | None = None
    fulfilment_status: OrderFulfilmentStatus | None = None
    created_after: UtcDatetime | None = None
    created_before: UtcDatetime | None = None
    user_id: Id | None = None
    number: OrderNumber | None = None
    email: EmailAddress | None = None
    sort: OrderSort = "-created_at"


# Views


class OrderLineView(Dto):
    """A line. `total` is the price of all units; `charged` is the total without the discount and
    with the `tax` that is added to it. `included_tax` is the tax that the price contains.
    """

    line_id: UUID
    product_id: UUID
    sku: str
    name: str
    unit_price: Money
    quantity: int
    fulfilled: int
    cancelled: int = 0
    total: Money
    discount: Money
    tax: Money
    included_tax: Money
    charged: Money
    discounts: tuple[DiscountView, ...]
    tax_lines: tuple[TaxLineView, ...]


class ShippingLineView(Dto):
    """The shipping method of an order. The amounts have the same meaning as in a line."""

    code: str
    name: str
    price: Money
    discount: Money
    tax: Money
    included_tax: Money
    charged: Money
    discounts: tuple[DiscountView, ...]
    tax_lines: tuple[TaxLineView, ...]


class OrderPaymentView(Dto):
    """The payment of an order. The status may lag behind the status in `payments`."""

    payment_id: UUID
    status: str


class OrderView(Dto):
    """An order: `total` = `subtotal` - `discount` + `shipping` + `tax`.

    `discount` contains the discounts of shipping. `tax` is added to the prices, `included_tax` is
    contained in them. `discounts` and `tax_lines` are sums over the lines and the shipping.
    """

    order_id: UUID
    number: Annotated[str, Field(examples=["MH-1001"])]
    user_id: Annotated[UUID, Field(description="The owner: a user or a guest")]
    is_guest: Annotated[bool, Field(description="Whether the owner is a guest")] = False
    email: str | None = None
    status: OrderStatus
    payment_status: OrderPaymentStatus
    fulfilment_status: OrderFulfilmentStatus
    lines: tuple[OrderLineView, ...]
    subtotal: Money
    discount: Money
    shipping: Money
    tax: Money
    total: Money
    included_tax: Money
    discounts: tuple[DiscountView, ...]
    tax_lines: tuple[TaxLineView, ...]
    shipping_line: ShippingLineView | None
    shipping_address: AnyAddress
    billing_address: AnyAddress | None
    note: str | None
    payment: OrderPaymentView
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int


class TimelineEntryView(Dto):
    """A change of an order, and the order's statuses after it."""

    version: int
    change: str
    actor: str
    at: datetime
    reason: str
    status: OrderStatus
    payment_status: OrderPaymentStatus
    fulfilment_status: OrderFulfilmentStatus


class TimelineView(Dto):
    """All changes of an order, the oldest first."""

    order_id: UUID
    items: tuple[TimelineEntryView, ...]


class FulfilmentLineView(Dto):
    line_id: UUID
    product_id: UUID
    quantity: int


class FulfilmentView(Dto):
    fulfilment_id: UUID
    order_id: UUID
    status: FulfilmentStatus
    lines: tuple[FulfilmentLineView, ...]
    carrier: str
    tracking_number: str
    shipped_at: datetime
    delivered_at: datetime | None


# Errors


class OrderNotFound(DomainError):
    """The order does not exist or the caller may not see it. Details: order_id."""

    code = "orders.not_found"
    status = 404
    title = "There is no such order"


class FulfilmentNotFound(DomainError):
    """The fulfilment does not exist or the caller may not see it. Details: fulfilment_id."""

    code = "orders.fulfilment_not_found"
    status = 404
    title = "There is no such fulfilment"


class InvalidTransition(DomainError):
    """The order's status does not accept the command. Details: status, allowed (commands)."""

    code = "orders.invalid_transition"
    status = 409
    title = "The status does not allow this"


class TotalChanged(DomainError):
    """The total differs from `expected_total`. Details: total (Money)."""

    code = "orders.total_changed"
    status = 409
    title = "The total is not what was expected"


class TooMuchToCancel(DomainError):
    """A cancellation has more units of a line than are unfulfilled.

    Details: lines (each with line_id, requested, unfulfilled).
    """

    code = "orders.too_much_to_cancel"
    status = 409
    title = "The quantity exceeds the unfulfilled quantity"


class TooMuchToFulfil(DomainError):
    """A shipment has more units of a line than are unfulfilled.

    Details: lines (each with line_id, requested, unfulfilled).
    """

    code = "orders.too_much_to_fulfil"
    status = 409
    title = "The quantity exceeds the unfulfilled quantity"


class Orders(Protocol):
    """The public API of orders. Customers see their own orders, staff see all."""

    async def place(
        self, ctx: CallContext, command: PlaceOrder, attempt: IdempotentCommand
    ) -> OrderView:
        """Reserve the stock, open the payment, write the order. The attempt's id is the order id.

        Raises OrderCurrencyMismatch, CountryNotServed, ShippingUnavailable, TotalChanged,
        TotalTooLarge, ValidationFailed (a guest without an e-mail address), ReservationClosed (the
        time to place the order is over); from users: UserNotFound, UserInactive; from inventory:
        ProductNotFound, OutOfStock, TooManyUnpaidOrders, TooManyUnits.
        """

    async def get_order(self, ctx: CallContext, order_id: UUID) -> OrderView:
        """Raises OrderNotFound."""

    async def list_orders(self, ctx: CallContext, query: OrderQuery) -> Page[OrderView]:
        """Raises CursorInvalid."""

    async def get_order_status(self, ctx: CallContext, order_id: UUID) -> VersionedOrderStatus:
        """Raises OrderNotFound."""

    async def wait_for_order_status(
        self,
        ctx: CallContext,
        order_id: UUID,
        seconds: float,
        is_known: Callable[[int], bool] | None = None,
    ) -> VersionedOrderStatus:
        """Wait until the status is new to the caller, at most about `seconds`. Then return it.

        `is_known(version)` tells whether the caller knows this version of the order: the status is
        new if the result is False. If `is_known` is None, the status is new if the order is not
        pending. If too many requests wait, or the process stops, return at once. Raises
        OrderNotFound, Overloaded.
        """

    async def get_timeline(self, ctx: CallContext, order_id: UUID) -> TimelineView:
        """Raises OrderNotFound."""

    async def cancel(
        self, ctx: CallContext, order_id: UUID, command: CancelOrder, attempt: IdempotentCommand
    ) -> OrderView:
        """Cancel an order, or units of a paid order. Idempotent by the attempt's id.

        Event handlers then release the stock, and cancel the payment or refund the price of the
        units. After the first shipment, only staff can cancel the units that are not shipped. The
        order completes when every unit is delivered or cancelled. Raises OrderNotFound,
        InvalidTransition, TooMuchToCancel.
        """

    async def fulfil(
        self, ctx: CallContext, order_id: UUID, command: FulfilOrder, attempt: IdempotentCommand
    ) -> FulfilmentView:
        """Ship lines of an order. The attempt's id is the fulfilment id. Staff only.

        Raises Forbidden, OrderNotFound, InvalidTransition, TooMuchToFulfil. Raises OutOfStock or
        ReservationClosed when the order is paid but its stock was sold to others; the handler of
        OrderPaid then cancels the order.
        """

    async def get_fulfilment(self, ctx: CallContext, fulfilment_id: UUID) -> FulfilmentView:
        """Raises FulfilmentNotFound."""

    async def deliver(
        self, ctx: CallContext, fulfilment_id: UUID, attempt: IdempotentCommand
    ) -> FulfilmentView:
        """Mark a fulfilment as delivered. The last delivery completes the order. Staff only.

        Raises Forbidden, FulfilmentNotFound, InvalidTransition.
        """

    async def count(self) -> int:
        """Return the number of orders."""
