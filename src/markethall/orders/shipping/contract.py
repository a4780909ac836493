"""The contract of shipping: the methods by which a shop ships, and their prices."""

from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from markethall.orders.configuration.contract import Items, ItemView
from markethall.orders.shop.contract import AtLeastOneCountry
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.merge_patch import omittable_field, remove_null_defaults
from markethall.shared.kernel.model import MAX_AMOUNT, Bool, Int, RequestModel, Text, VisibleText
from markethall.shared.kernel.money import Currency

MAX_TIERS: Final = 100
MAX_ZONES: Final = 100
_CODE_PATTERN: Final = r"^[A-Za-z0-9_.-]+$"
_MinorUnits = Annotated[Int, Field(ge=0, le=MAX_AMOUNT, examples=[490])]
_Threshold = Annotated[Int, Field(ge=0, le=MAX_AMOUNT, examples=[1000])]
# `json_schema_extra` repeats the pattern, because the schema would have that of `Text`
ShippingCode = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=50,
        pattern=_CODE_PATTERN,
        examples=["standard"],
        json_schema_extra={"pattern": _CODE_PATTERN},
    ),
]
MethodName = Annotated[VisibleText, Field(min_length=1, max_length=100, examples=["Parcel"])]
DeliveryText = Annotated[
    VisibleText, Field(min_length=1, max_length=200, examples=["2 to 3 working days"])
]
TaxClass = Annotated[VisibleText, Field(min_length=1, max_length=50, examples=["standard"])]


def _require_letter_or_digit(prefix: str) -> str:
    if not prefix.replace("-", " ").strip():
        raise PydanticCustomError("blank_prefix", "must have a letter or a digit")
    return prefix


# Not a Text, because requests and responses would get different schemas, and generated clients
# would have two models.
PostalPrefix = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=20, pattern=r"^[A-Za-z0-9 -]+$", examples=["10"]),
    # a prefix without letters and digits would match every postal code
    AfterValidator(_require_letter_or_digit),
]
RateKind = TypeAliasType("RateKind", Literal["flat", "by_weight", "by_total"])


class ShippingZone(RequestModel):
    """Countries, limited to the `postal_prefixes`. Without prefixes, the whole countries.

    Prefixes are compared without letter case, spaces and hyphens.
    """

    countries: AtLeastOneCountry
    postal_prefixes: Annotated[
        tuple[PostalPrefix, ...], Field(max_length=1000, fail_fast=True)
    ] = ()


class ShippingTier(RequestModel):
    """The price from a weight in grams, or from a subtotal in minor units, to the next tier."""

    starts_at: _Threshold
    price: _MinorUnits


class ShippingRate(RequestModel):
    """The price of a shipping method, in minor units of `currency`.

    - `flat`: `price`.
    - `by_weight`: the price of the last tier that does not start above the weight in grams.
    - `by_total`: the same for the subtotal of the order before discounts.

    Below the first tier, and above `up_to`, the method is not offered. If the subtotal is at least
    `free_from`, the price is 0.
    """

    kind: RateKind
    currency: Currency
    price: _MinorUnits | None = None
    tiers: Annotated[tuple[ShippingTier, ...], Field(max_length=MAX_TIERS, fail_fast=True)] = ()
    up_to: _Threshold | None = None
    free_from: _MinorUnits | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        is_flat = self.kind == "flat"
        if is_flat != (self.price is not None) or is_flat == bool(self.tiers):
            raise PydanticCustomError(
                "rate_kind", "needs a price if it is flat, otherwise tiers and no price"
            )
        starts = [tier.starts_at for tier in self.tiers]
        if starts != sorted(set(starts)):
            raise PydanticCustomError("tier_order", "tiers must start at increasing values")
        return self


Zones = Annotated[
    tuple[ShippingZone, ...],
    Field(max_length=MAX_ZONES, fail_fast=True, description="Empty: everywhere"),
]


class NewShippingMethod(RequestModel):
    """A shipping method. Without `tax_class` its price is not taxed.

    With `pickup`, customers collect the order at the shop. Its zones are not used, and the taxes at
    the address of the shop apply. If the shop has no address but sells to one country only, the
    taxes of this country apply; otherwise those at the address of the order.
    """

    code: ShippingCode
    name: MethodName
    zones: Zones = ()
    rate: ShippingRate
    tax_class: TaxClass | None = None
    pickup: Bool = False
    delivery: DeliveryText | None = None
    is_active: Bool = True


class ShippingMethodChange(RequestModel):
    """A change of a method, as a JSON merge patch (RFC 7396) of whole fields.

    Null restores the default of a field; a field without a default cannot be null.
    """

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    code: ShippingCode = omittable_field()
    name: MethodName = omittable_field()
    zones: Zones | None = None
    rate: ShippingRate = omittable_field()
    tax_class: TaxClass | None = None
    pickup: Bool | None = None
    delivery: DeliveryText | None = None
    is_active: Bool | None = None


class ShippingMethodView(ItemView):
    shipping_method_id: UUID
    code: str
    name: str
    zones: tuple[ShippingZone, ...]
    rate: ShippingRate
    tax_class: str | None
    pickup: bool
    delivery: str | None
    is_active: bool


class ShippingMethodNotFound(DomainError):
    """No shipping method has this id. Details: shipping_method_id."""

    code = "orders.shipping_method_not_found"
    status = 404
    title = "There is no such shipping method"


class ShippingCodeTaken(DomainError):
    """Another shipping method has this code. Details: key."""

    code = "orders.shipping_code_taken"
    status = 409
    title = "Another shipping method has this code"


class ShippingUnavailable(DomainError):
    """No shipping method, or not the requested one, serves this order. Details: shipping_method.

    `available` has the codes of the methods that serve it.
    """

    code = "orders.shipping_unavailable"
    status = 422
    title = "No shipping method serves this order"


# the errors of this kind are ShippingMethodNotFound and ShippingCodeTaken
ShippingMethods = Items[NewShippingMethod, ShippingMethodChange, ShippingMethodView]
