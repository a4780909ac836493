"""The contract of carts for the HTTP API."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Protocol
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from markethall.orders.contract import (
    MAX_LINES,
    AnyAddress,
    DiscountView,
    ExpectedTotal,
    OrderLineRequest,
    OrderView,
    Quantity,
    TaxLineView,
    TotalsView,
)
from markethall.orders.promotions.contract import VoucherCode
from markethall.orders.shipping.contract import ShippingCode
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.email_address import EmailAddress
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.merge_patch import remove_null_defaults
from markethall.shared.kernel.metadata import (
    MAX_METADATA_ENTRIES,
    FrozenMetadata,
    MetadataName,
    MetadataValue,
)
from markethall.shared.kernel.model import Dto, Id, RequestModel, Text
from markethall.shared.kernel.money import Currency, Money

# longer than every access token that `users` issues
_MAX_TOKEN_LENGTH: Final = 4096

CartMetadata = Annotated[
    dict[MetadataName, MetadataValue],
    Field(max_length=MAX_METADATA_ENTRIES, examples=[{"source": "newsletter"}]),
]
CartNote = Annotated[Text, Field(max_length=1000, examples=["Please gift-wrap it"])]


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


def _check_products_are_distinct(
    lines: tuple[OrderLineRequest, ...],
) -> tuple[OrderLineRequest, ...]:
    if len({line.product_id for line in lines}) < len(lines):
        raise PydanticCustomError("product_named_twice", "must name each product once")
    return lines


# Commands


class CartChange(RequestModel):
    """A change of a cart. Absent fields stay unchanged, and null clears a field.

    `shipping_method` is the code of a shipping method. Without it, checkout chooses the cheapest
    one that is not a pick-up. `metadata` replaces all entries.
    """

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    email: EmailAddress | None = None
    shipping_address: AnyAddress | None = None
    billing_address: AnyAddress | None = None
    shipping_method: ShippingCode | None = None
    currency: Currency | None = None
    note: CartNote | None = None
    metadata: CartMetadata | None = None


class NewCart(CartChange):
    """A new cart. Without `currency`, the prices are in the products' own currency."""

    lines: Annotated[
        tuple[OrderLineRequest, ...],
        Field(max_length=MAX_LINES, fail_fast=True),
        AfterValidator(_check_products_are_distinct),
    ] = ()


class CartLineChange(RequestModel):
    """The number of units of a product that the cart has from now on."""

    quantity: Quantity


class CartVoucherChange(RequestModel):
    """The code of a voucher."""

    code: VoucherCode


class MergeCart(RequestModel):
    """The cart whose lines are added. `guest_token` is the access token of the guest who owns it.

    The caller needs no token for an own cart, or for a cart of a guest that the caller has claimed.
    """

    source_cart_id: Annotated[Id, Field(examples=["0199c0de-0000-7000-8000-000000000001"])]
    guest_token: Annotated[
        Annotated[Text, Field(min_length=1, max_length=_MAX_TOKEN_LENGTH)] | None,
        Field(repr=False),
    ] = None


class CheckOutCart(RequestModel):
    """The checkout of a cart. With `expected_total`, it is rejected if the total has changed."""

    expected_total: ExpectedTotal | None = None


@dataclass(frozen=True)
class CartPrecondition:
    """The versions that a change accepts. Staff must name them; an owner may leave them out."""

    is_given: bool
    expected_versions: ExpectedVersions


# Views


class CartLineView(Dto):
    """A line. The amounts have the same meaning as in an order.

    They are null if the product is no longer sold. Without a common currency of all lines, only
    `unit_price` and `total` are known. `available` counts the units that can be bought now.
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
    """A reason why the cart cannot be checked out now. `field` is a JSON pointer into the cart.

    `code` is `missing`, or the code of the error that checkout would return.
    """

    code: Annotated[str, Field(examples=["missing"])]
    field: Annotated[str, Field(examples=["/shipping_address"])]
    message: str


class CartView(Dto):
    """A cart. Prices, availability and totals are current, but nothing is reserved.

    `changes` lists what has changed since the owner last read the cart. `readiness` is empty if the
    cart can be checked out. `totals` is null if the cart cannot be priced, such as an empty one.
    Without a shipping address, it assumes the country of the shop. At `expires_at` the cart is
    deleted, unless it changes before.
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


class ShippingOptionView(Dto):
    """A shipping method that serves the cart, with its price before discounts and added taxes."""

    code: str
    name: str
    price: Money
    delivery: str | None
    pickup: bool


class ShippingOptionsView(Dto):
    items: tuple[ShippingOptionView, ...]


# Errors


class CartNotFound(DomainError):
    """The cart does not exist or the caller may not see it. Details: cart_id."""

    code = "orders.cart_not_found"
    status = 404
    title = "There is no such cart"


class CartClosed(DomainError):
    """The cart is checked out or merged, so it cannot change.

    Details: cart_id, status, order_id (of a checked out cart), merged_into (of a merged cart).
    """

    code = "orders.cart_closed"
    status = 409
    title = "The cart is closed"


class CartChanged(DomainError):
    """The cart was changed during its checkout, so nothing was ordered. Details: cart_id.

    Read the cart, then check it out with another idempotency key.
    """

    code = "orders.cart_changed"
    status = 409
    title = "The cart was changed during the checkout"


class CartNotReady(DomainError):
    """The cart lacks what checkout needs. Details: readiness (each with code, field, message)."""

    code = "orders.cart_not_ready"
    status = 409
    title = "The cart is not ready for checkout"


class TooManyCartLines(DomainError):
    """The cart would have too many lines. Details: limit."""

    code = "orders.too_many_cart_lines"
    status = 409
    title = "The cart has too many lines"


class TooManyCarts(DomainError):
    """The owner has too many open carts. Details: limit."""

    code = "orders.too_many_carts"
    status = 409
    title = "Too many of your carts are open"


class Carts(Protocol):
    """The API of carts. Owners see and change their own carts, staff see and change all.

    Reads and changes return the cart with current prices. Changes raise CartNotFound, CartClosed,
    PreconditionFailed; PreconditionRequired if staff give no precondition for the cart of others.
    """

    async def create(
        self, ctx: CallContext, command: NewCart, attempt: IdempotentCommand
    ) -> CartView:
        """Create a cart. The attempt's id is the cart id.

        Raises TooManyCarts, OrderCurrencyMismatch; from inventory: ProductNotFound.
        """

    async def get(self, ctx: CallContext, cart_id: UUID) -> CartView:
        """Return the cart. If the owner reads it, the next read lists only later changes.

        Raises CartNotFound.
        """

    async def change(
        self, ctx: CallContext, cart_id: UUID, change: CartChange, precondition: CartPrecondition
    ) -> CartView:
        """Raises OrderCurrencyMismatch."""

    async def set_line(
        self,
        ctx: CallContext,
        cart_id: UUID,
        product_id: UUID,
        change: CartLineChange,
        precondition: CartPrecondition,
    ) -> CartView:
        """Set the quantity of a product. A new product becomes the last line.

        Raises TooManyCartLines, OrderCurrencyMismatch; from inventory: ProductNotFound.
        """

    async def remove_line(
        self, ctx: CallContext, cart_id: UUID, product_id: UUID, precondition: CartPrecondition
    ) -> int:
        """Remove the line of a product, if there is one. Return the version of the cart."""

    async def set_voucher(
        self,
        ctx: CallContext,
        cart_id: UUID,
        change: CartVoucherChange,
        precondition: CartPrecondition,
    ) -> CartView:
        """Use a voucher. It replaces the one that the cart has.

        It is checked if the cart can be priced. Raises VoucherInvalid, VoucherExhausted.
        """

    async def remove_voucher(
        self, ctx: CallContext, cart_id: UUID, precondition: CartPrecondition
    ) -> int:
        """Remove the voucher, if there is one. Return the version of the cart."""

    async def list_shipping_options(self, ctx: CallContext, cart_id: UUID) -> ShippingOptionsView:
        """Return the methods that serve the cart; none if it cannot be priced.

        Raises CartNotFound.
        """


class CartMerges(Protocol):
    """The API that merges two carts, such as those before and after a login."""

    async def merge(
        self,
        ctx: CallContext,
        cart_id: UUID,
        command: MergeCart,
        precondition: CartPrecondition,
        attempt: IdempotentCommand,
    ) -> CartView:
        """Add the lines of another cart to an own cart, and close the other cart.

        Quantities of one product are added up to the largest quantity. Fields that the cart lacks
        come from the other cart. A repeated merge changes nothing. Raises CartNotFound, CartClosed,
        PreconditionFailed, TooManyCartLines, OrderCurrencyMismatch, ValidationFailed (the same
        cart, or a bad guest token).
        """


class CartCheckouts(Protocol):
    """The API that makes an order of a cart."""

    async def check_out(
        self,
        ctx: CallContext,
        cart_id: UUID,
        command: CheckOutCart,
        precondition: CartPrecondition,
        attempt: IdempotentCommand,
    ) -> OrderView:
        """Place an order with the lines of an own cart, and close the cart.

        A cart becomes one order at most. The attempt's id is the order id. Raises CartNotFound,
        CartClosed, CartChanged, CartNotReady, PreconditionFailed, and the errors of `Orders.place`.
        """
