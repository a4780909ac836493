"""Carts as the HTTP API returns them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from markethall.orders.contract import AnyAddress, DiscountView, TaxLineView, TotalsView
from markethall.shared.kernel.metadata import FrozenMetadata
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import Money


class CartStatus(StrEnum):
    """Status of a cart. Transitions: open -> checked_out; open -> merged."""

    OPEN = "open"
    CHECKED_OUT = "checked_out"
    MERGED = "merged"


class LineChangeKind(StrEnum):
    """Kinds of changes of the product of a line since the owner last read the cart."""

    PRICE_CHANGED = "price_changed"
    LESS_AVAILABLE = "less_available"
    UNAVAILABLE = "unavailable"
    REMOVED = "removed"
    AVAILABLE_AGAIN = "available_again"


class CartLineView(Dto):
    """A line. The amounts have the same meaning as in an order.

    They are null if the product is no longer sold. Without a common currency of all lines, only
    `unit_price` and `total` are known; `total` is null if it is out of range. `available` counts
    the units that can be bought now.
    """

    product_id: UUID
    sku: str
    name: str
    quantity: int
    available: int
    unit_price: Money | None
    total: Money | None
    discount: Money | None
    tax: Money | None
    included_tax: Money | None
    charged: Money | None
    discounts: tuple[DiscountView, ...]
    tax_lines: tuple[TaxLineView, ...]


class LineChangeView(Dto):
    """A change of the product of a line. `available` never exceeds the quantity of the line."""

    kind: LineChangeKind
    product_id: UUID
    previous_price: Money | None = None
    price: Money | None = None
    previous_available: int | None = None
    available: int | None = None


class ReadinessProblem(Dto):
    """A reason why a cart or a draft order cannot be ordered now. `field` is a JSON pointer.

    `code` is `missing`, or the code of the error that ordering would return.
    """

    code: Annotated[str, Field(examples=["missing"])]
    field: Annotated[str, Field(examples=["/shipping_address"])]
    message: str


class CartView(Dto):
    """A cart. Prices, availability and totals are current, but nothing is reserved.

    `changes` lists the changes since the owner last read the cart. `readiness` is empty if the cart
    can be checked out. `totals` is null if the cart cannot be priced, such as an empty one. Without
    a shipping address, it assumes the country of the shop. At `expires_at` the cart is deleted,
    unless it changes before.
    """

    cart_id: UUID
    user_id: Annotated[UUID, Field(description="The owner: a user or a guest")]
    is_guest: Annotated[bool, Field(description="Whether the owner is a guest")]
    status: CartStatus
    currency: Annotated[str | None, Field(examples=["EUR"])]
    email: str | None
    shipping_address: AnyAddress | None
    billing_address: AnyAddress | None
    shipping_method: str | None
    voucher_code: str | None
    note: str | None
    metadata: FrozenMetadata
    lines: tuple[CartLineView, ...]
    totals: TotalsView | None
    changes: tuple[LineChangeView, ...]
    readiness: tuple[ReadinessProblem, ...]
    order_id: Annotated[UUID | None, Field(description="The order of a checked out cart")]
    merged_into: Annotated[UUID | None, Field(description="The cart that took over the lines")]
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    version: int


class CartSummaryView(Dto):
    """A cart in a list, without its lines and prices. `unit_count` is the sum of the quantities."""

    cart_id: UUID
    status: CartStatus
    line_count: int
    unit_count: int
    order_id: Annotated[UUID | None, Field(description="The order of a checked out cart")]
    merged_into: Annotated[UUID | None, Field(description="The cart that took over the lines")]
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    version: int


class ShippingOptionView(Dto):
    """A shipping method that serves the cart, with its price before discounts and added taxes."""

    code: str
    name: str
    price: Money
    delivery: str | None
    pickup: bool


class ShippingOptionsView(Dto):
    items: tuple[ShippingOptionView, ...]
