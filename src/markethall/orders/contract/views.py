"""The representations of orders and their parts."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from markethall.orders.contract.status import (
    FulfilmentStatus,
    OrderFulfilmentStatus,
    OrderPaymentStatus,
    OrderStatus,
)
from markethall.orders.shop.contract import AnyAddress
from markethall.orders.totals.contract import (
    DiscountView,
    ShippingLineView,
    TaxLineView,
    TotalsView,
)
from markethall.shared.kernel.metadata import FrozenMetadata
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import Money


class OrderLineView(Dto):
    """A line of an order. `total` is the price of all units before the discount.

    `charged` is the total minus the discount plus the added `tax`. `included_tax` is the tax that
    the price contains.

    `fulfilled` counts the units of shipments. `failed` counts the units of lost and returned
    shipments that are not shipped again or cancelled yet, which `fulfilled` leaves out. `in_return`
    counts the units of open returns, `returned` those that closed returns have taken back.
    """

    line_id: UUID
    product_id: UUID
    sku: str
    name: str
    unit_price: Money
    quantity: int
    fulfilled: int
    delivered: int = 0
    failed: int = 0
    cancelled: int = 0
    in_return: int = 0
    returned: int = 0
    total: Money
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


class AdditionalPaymentView(Dto):
    """A captured payment of an edit, and its refunded amount."""

    payment_id: UUID
    amount: Money
    refunded: Money


class OpenEditView(Dto):
    """An edit that takes effect when its payment is captured, with the lines and amounts then.

    Confirm the payment `payment_id` of `amount` before `expires_at`; else the order stays as it is.
    """

    edit_id: UUID
    payment_id: UUID
    amount: Money
    expires_at: datetime
    lines: tuple[OrderLineView, ...]
    discount: Money
    shipping: Money
    tax: Money
    total: Money


class EditPreview(TotalsView):
    """The lines and amounts that an order would have after an edit.

    `difference` is the new total minus the current one. For a paid order it is charged, or refunded
    if it is negative. A pending order gets a payment of the new total instead.
    """

    lines: tuple[OrderLineView, ...]
    difference: Money


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
    additional_payments: Annotated[
        tuple[AdditionalPaymentView, ...], Field(description="Payments of edits after the first")
    ] = ()
    open_edit: Annotated[
        OpenEditView | None, Field(description="The edit that waits for its payment")
    ] = None
    on_hold: Annotated[bool, Field(description="Whether staff have stopped the shipping")] = False
    metadata: FrozenMetadata = Field(default_factory=dict)
    tags: Annotated[tuple[str, ...] | None, Field(description="Shown to staff only")] = None
    staff_note: Annotated[str | None, Field(description="Shown to staff only")] = None
    cart_id: Annotated[UUID | None, Field(description="The cart it was made of")] = None
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
    """A shipment. `failed_at` is the time at which it was reported as lost or returned.

    `restocked` tells whether the units of a returned shipment are sold again.
    """

    fulfilment_id: UUID
    order_id: UUID
    status: FulfilmentStatus
    lines: tuple[FulfilmentLineView, ...]
    carrier: str | None
    tracking_number: str | None
    shipped_at: datetime
    delivered_at: datetime | None
    failed_at: datetime | None = None
    restocked: bool = False
