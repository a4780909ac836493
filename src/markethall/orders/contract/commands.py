"""The requests to orders."""

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from markethall.orders.contract.status import OrderFulfilmentStatus, OrderPaymentStatus, OrderStatus
from markethall.orders.promotions.contract import VoucherCode
from markethall.orders.shipping.contract import ShippingCode
from markethall.orders.shop.contract import AnyAddress, distinct, non_blank
from markethall.shared.kernel.email_address import EmailAddress
from markethall.shared.kernel.merge_patch import omittable_field, remove_null_defaults
from markethall.shared.kernel.metadata import MetadataPatch
from markethall.shared.kernel.model import (
    Bool,
    Id,
    Int,
    QueryModel,
    RequestModel,
    Text,
    UtcDatetime,
    VisibleText,
)
from markethall.shared.kernel.money import Currency, Money
from markethall.shared.kernel.pagination import PageQuery

MAX_QUANTITY: Final = 999
MAX_LINES: Final = 100
# A prefix and a number. The prefix is a setting of the shop, and does not end with a digit.
_ORDER_NUMBER_PATTERN: Final = r"^([A-Za-z0-9_#-]{0,19}[A-Za-z_#-])?[0-9]{1,18}$"
MAX_ORDER_TAGS: Final = 50
MAX_ORDER_TAG_LENGTH: Final = 50
MAX_STAFF_NOTE_LENGTH: Final = 5000
OrderTags = Annotated[
    tuple[
        Annotated[
            VisibleText, Field(min_length=1, max_length=MAX_ORDER_TAG_LENGTH, examples=["vip"])
        ],
        ...,
    ],
    Field(max_length=MAX_ORDER_TAGS, fail_fast=True),
]
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


PaymentMethod = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=100,
        examples=["sandbox_ok"],
        description="The method with which the customer is going to pay. The order is refused if"
        " the shop does not offer it for this currency, country and total. Confirming the payment"
        " names the method again and may name another one",
    ),
]


class PlaceOrder(RequestModel):
    """A new order. Lines of the same product are added up.

    Without `currency`, the default currency of a shop that lists its currencies is used, else the
    products' own currency. `shipping_method` is the code of a shipping
    method. The default is the cheapest method for the address that is not a pick-up.
    """

    lines: Annotated[
        tuple[OrderLineRequest, ...], Field(min_length=1, max_length=MAX_LINES, fail_fast=True)
    ]
    shipping_address: AnyAddress
    billing_address: AnyAddress | None = None
    currency: Currency | None = None
    shipping_method: ShippingCode | None = None
    voucher_code: VoucherCode | None = None
    payment_method: PaymentMethod | None = None
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


LineQuantities = Annotated[
    tuple[FulfilmentLineRequest, ...],
    Field(min_length=1, max_length=MAX_LINES, fail_fast=True),
    distinct("line_id", "line_named_twice", "must name each line once"),
]


class CancelOrder(RequestModel):
    """A cancellation. Without `lines`, everything that is not shipped is cancelled.

    Units of lost and returned shipments count as not shipped, and are cancelled first.
    """

    reason: Annotated[VisibleText, non_blank(500, examples=["changed my mind"])]
    lines: LineQuantities | None = None


class ChangeOrder(RequestModel):
    """A change of an order, as a JSON merge patch (RFC 7396). Absent fields stay unchanged.

    Null clears a field; `shipping_address` cannot be null. Metadata is merged by name. `reason` is
    shown in the timeline, also to the owner.
    """

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    tags: OrderTags | None = None
    staff_note: Annotated[Text, Field(max_length=MAX_STAFF_NOTE_LENGTH)] | None = None
    on_hold: Annotated[Bool | None, Field(description="Whether nothing may be shipped")] = None
    metadata: MetadataPatch | None = None
    shipping_address: AnyAddress = omittable_field()
    reason: Annotated[VisibleText, non_blank(500)] | None = None


class EditedLine(RequestModel):
    """The new quantity of a product; 0 removes it from the order."""

    product_id: Id
    quantity: Annotated[Int, Field(ge=0, le=MAX_QUANTITY, examples=[3])]


class EditOrder(RequestModel):
    """New quantities of products. Products that are not named stay as they are."""

    lines: Annotated[
        tuple[EditedLine, ...],
        Field(min_length=1, max_length=MAX_LINES, fail_fast=True),
        distinct("product_id", "product_named_twice", "must name each product once"),
    ]
    expected_total: ExpectedTotal | None = None
    reason: Annotated[VisibleText, non_blank(500)] | None = None


class FulfilOrder(RequestModel):
    """A shipment. Without `lines`, everything that is not fulfilled yet is shipped.

    `lines` may also name units of lost or returned shipments, to ship them again. `carrier` and
    `tracking_number` are left out for a pick-up, or digital goods.
    """

    lines: LineQuantities | None = None
    carrier: Annotated[VisibleText, non_blank(100, examples=["DHL"])] | None = None
    tracking_number: (
        Annotated[VisibleText, non_blank(200, examples=["00340434161094042557"])] | None
    ) = None


class ReturnShipment(RequestModel):
    """A shipment that has come back. With `restock`, its units are sold again."""

    restock: Bool
    reason: Annotated[VisibleText, non_blank(500, examples=["refused by the recipient"])] | None = (
        None
    )


OrderNumber = Annotated[
    Text,
    Field(
        pattern=_ORDER_NUMBER_PATTERN,
        json_schema_extra={"pattern": _ORDER_NUMBER_PATTERN},
        examples=["MH-1001"],
    ),
]


class LookUpOrder(RequestModel):
    """The number of an order, and the e-mail address that the buyer gave for it."""

    number: OrderNumber
    email: EmailAddress


OrderSort = TypeAliasType("OrderSort", Literal["-created_at", "created_at"])


class OrderFilters(QueryModel):
    """Filters and sequence of orders. Customers find only their own orders."""

    status: OrderStatus | None = None
    payment_status: OrderPaymentStatus | None = None
    fulfilment_status: OrderFulfilmentStatus | None = None
    created_after: UtcDatetime | None = None
    created_before: UtcDatetime | None = None
    user_id: Id | None = None
    number: OrderNumber | None = None
    email: EmailAddress | None = None
    sort: OrderSort = "-created_at"


class OrderQuery(PageQuery, OrderFilters):
    """A page of the order list."""
