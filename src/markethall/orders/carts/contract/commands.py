"""The commands of carts."""

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from markethall.orders.carts.contract.views import CartStatus
from markethall.orders.contract import (
    MAX_LINES,
    AnyAddress,
    ExpectedTotal,
    OrderLineRequest,
    PaymentMethod,
    Quantity,
)
from markethall.orders.promotions.contract import VoucherCode
from markethall.orders.shipping.contract import ShippingCode
from markethall.orders.shop.contract import distinct
from markethall.shared.kernel.email_address import EmailAddress
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.merge_patch import remove_null_defaults
from markethall.shared.kernel.metadata import MAX_METADATA_ENTRIES, MetadataName, MetadataValue
from markethall.shared.kernel.model import Id, RequestModel, Text
from markethall.shared.kernel.money import Currency
from markethall.shared.kernel.pagination import PageQuery

# longer than every access token that `users` issues
_MAX_TOKEN_LENGTH: Final = 4096

CartMetadata = Annotated[
    dict[MetadataName, MetadataValue],
    Field(max_length=MAX_METADATA_ENTRIES, examples=[{"source": "newsletter"}]),
]
CartNote = Annotated[Text, Field(max_length=1000, examples=["Please gift-wrap it"])]


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
    """A new cart.

    Without `currency`, the prices are in the default currency of a shop that lists its currencies,
    else in the products' own currency.
    """

    lines: Annotated[
        tuple[OrderLineRequest, ...],
        Field(max_length=MAX_LINES, fail_fast=True),
        distinct("product_id", "product_named_twice", "must name each product once"),
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
        Annotated[Text, Field(min_length=1, max_length=_MAX_TOKEN_LENGTH)] | None, Field(repr=False)
    ] = None


class CartQuery(PageQuery):
    """Filters of the list of carts."""

    status: CartStatus | None = None


class CheckOutCart(RequestModel):
    """The checkout of a cart. With `expected_total`, it is rejected if the total has changed."""

    payment_method: PaymentMethod | None = None
    expected_total: ExpectedTotal | None = None


@dataclass(frozen=True)
class CartPrecondition:
    """The versions that a change accepts. Staff must name them; an owner may leave them out."""

    is_given: bool
    expected_versions: ExpectedVersions
