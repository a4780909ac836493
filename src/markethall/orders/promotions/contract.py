"""The contract of promotions: automatic discounts and vouchers."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Protocol, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from markethall.orders.configuration.contract import ItemView
from markethall.orders.shop.contract import distinct
from markethall.orders.totals.domain import PromotionKind
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.merge_patch import omittable_field, remove_null_defaults
from markethall.shared.kernel.model import (
    MAX_AMOUNT,
    Bool,
    Id,
    Int,
    RequestModel,
    Text,
    UtcDatetime,
    VisibleText,
)
from markethall.shared.kernel.money import Currency
from markethall.shared.kernel.pagination import Page, PageQuery

VoucherCode = Annotated[
    VisibleText,
    Field(
        min_length=1,
        max_length=50,
        description="Letter case and spaces at both ends are ignored",
        examples=["SPRING10"],
    ),
]


class VoucherInvalid(DomainError):
    """The order cannot use the voucher. Details: voucher_code, reason, condition.

    `reason` is `unknown` (no voucher has this code), `inactive`, `not_started`, `ended` or
    `conditions_not_met`. The last one has a `condition`, which is null otherwise:

    - `min_total`: the subtotal is too small, or the voucher does not apply in the currency.
    - `first_order`: the customer has ordered before.
    - `customer_ids`: the voucher is for other customers.
    - `lines`: the voucher is for other products.
    - `discount`: no amount is left to discount, or another promotion excludes the voucher.
    """

    code = "orders.voucher_invalid"
    status = 422
    title = "The order cannot use this voucher"


class VoucherExhausted(DomainError):
    """The voucher was used as often as it may be. Details: voucher_code, limit.

    `limit` is `usage_limit` or `per_customer_limit`.
    """

    code = "orders.voucher_exhausted"
    status = 409
    title = "The voucher is used up"


MAX_NAMES: Final = 100
MAX_IDS: Final = 500
MAX_USES: Final = 1_000_000_000
# above 0, at most 100, with at most four decimals
_PERCENT_PATTERN: Final = (
    r"^(100(\.0{1,4})?|[1-9][0-9]?(\.[0-9]{1,4})?"
    r"|0\.([1-9][0-9]{0,3}|0[1-9][0-9]{0,2}|00[1-9][0-9]?|000[1-9]))$"
)

PromotionName = Annotated[VisibleText, Field(min_length=1, max_length=100, examples=["Spring"])]
# `json_schema_extra` repeats the pattern, because the schema would have that of `Text`
Percent = Annotated[
    Text,
    Field(
        pattern=_PERCENT_PATTERN,
        json_schema_extra={"pattern": _PERCENT_PATTERN},
        description="A decimal: 12.5 is 12.5 %",
        examples=["10"],
    ),
]
UnitCount = Annotated[Int, Field(ge=1, le=999, examples=[2])]
UseLimit = Annotated[Int, Field(ge=1, le=MAX_USES, examples=[100])]
Priority = Annotated[
    Int, Field(ge=-1000, le=1000, description="Promotions of higher priority apply earlier")
]
ConditionCategory = Annotated[
    VisibleText, Field(min_length=1, max_length=400, examples=["Drinks > Tea"])
]
ConditionTag = Annotated[VisibleText, Field(min_length=1, max_length=255, examples=["sale"])]


class PromotionAmount(RequestModel):
    """An amount in minor units: 500 EUR is 5.00 euro."""

    amount: Annotated[Int, Field(ge=1, le=MAX_AMOUNT, examples=[500])]
    currency: Currency


# one amount per currency
Amounts = Annotated[
    tuple[PromotionAmount, ...],
    Field(max_length=MAX_NAMES, fail_fast=True),
    distinct("currency", "currency_named_twice", "must name each currency once"),
]


class PromotionConditions(RequestModel):
    """The orders, products and customers to which a promotion applies. Empty: all.

    - `min_total`: the smallest subtotal, per currency. In other currencies the promotion does not
      apply.
    - `categories`, `products`, `tags`: the discounted lines are those that have one of them. A
      category includes the categories below it on its path. Letter case and extra spaces are
      ignored.
    - `first_order`: the customer has no other order that is not cancelled or expired.
    """

    min_total: Amounts = ()
    categories: Annotated[
        tuple[ConditionCategory, ...], Field(max_length=MAX_NAMES, fail_fast=True)
    ] = ()
    products: Annotated[tuple[Id, ...], Field(max_length=MAX_IDS, fail_fast=True)] = ()
    tags: Annotated[tuple[ConditionTag, ...], Field(max_length=MAX_NAMES, fail_fast=True)] = ()
    first_order: Bool = False
    customer_ids: Annotated[tuple[Id, ...], Field(max_length=MAX_IDS, fail_fast=True)] = ()


_VALUE_FIELDS: Final = ("percent", "amounts", "buy_quantity", "get_quantity")
# by kind: the required fields, and further allowed fields
_FIELDS_BY_KIND: Final[Mapping[PromotionKind, tuple[frozenset[str], frozenset[str]]]] = {
    PromotionKind.PERCENT: (frozenset({"percent"}), frozenset()),
    PromotionKind.FIXED: (frozenset({"amounts"}), frozenset()),
    PromotionKind.FREE_SHIPPING: (frozenset(), frozenset()),
    PromotionKind.BUY_X_GET_Y: (
        frozenset({"buy_quantity", "get_quantity"}),
        frozenset({"percent"}),
    ),
}


class NewPromotion(RequestModel):
    """A promotion. With a `code` it is a voucher, otherwise it applies by itself.

    - `percent`: `percent` of the lines.
    - `fixed`: the amount in the currency of the order. In other currencies it does not apply.
    - `free_shipping`: the price of shipping.
    - `buy_x_get_y`: of each `buy_quantity` + `get_quantity` units, the cheapest `get_quantity` are
      free, or cost `percent` less.

    Promotions apply by descending `priority`, each to the amounts that the earlier ones left. A
    promotion that is not `stackable` applies only if no other promotion does. Limits count the
    orders that have the discount and are not cancelled or expired.
    """

    name: PromotionName
    kind: PromotionKind
    code: VoucherCode | None = None
    percent: Percent | None = None
    amounts: Amounts = ()
    buy_quantity: UnitCount | None = None
    get_quantity: UnitCount | None = None
    conditions: PromotionConditions = PromotionConditions()
    usage_limit: UseLimit | None = None
    per_customer_limit: UseLimit | None = None
    starts_at: UtcDatetime | None = None
    ends_at: UtcDatetime | None = None
    stackable: Bool = True
    priority: Priority = 0
    is_active: Bool = True

    @model_validator(mode="after")
    def _check_fields_of_kind(self) -> Self:
        needed, optional = _FIELDS_BY_KIND[self.kind]
        given = {name for name in _VALUE_FIELDS if getattr(self, name)}
        if not needed <= given <= needed | optional:
            raise PydanticCustomError(
                "promotion_kind",
                "needs {needed} if it is {kind}, and no other values",
                {"needed": ", ".join(sorted(needed)) or "no value", "kind": self.kind.value},
            )
        return self

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.starts_at and self.ends_at and self.starts_at >= self.ends_at:
            raise PydanticCustomError("promotion_window", "must start before it ends")
        return self

    @property
    def percent_value(self) -> Decimal:
        return Decimal(self.percent) if self.percent else Decimal(100)


class PromotionChange(RequestModel):
    """A change of a promotion, as a JSON merge patch (RFC 7396) of whole fields.

    Null restores the default of a field; a field without a default cannot be null.
    """

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    name: PromotionName = omittable_field()
    kind: PromotionKind = omittable_field()
    code: VoucherCode | None = None
    percent: Percent | None = None
    amounts: Amounts | None = None
    buy_quantity: UnitCount | None = None
    get_quantity: UnitCount | None = None
    conditions: PromotionConditions | None = None
    usage_limit: UseLimit | None = None
    per_customer_limit: UseLimit | None = None
    starts_at: UtcDatetime | None = None
    ends_at: UtcDatetime | None = None
    stackable: Bool | None = None
    priority: Priority | None = None
    is_active: Bool | None = None


class PromotionQuery(PageQuery):
    """Filters of the list of promotions."""

    code: VoucherCode | None = None
    is_active: bool | None = None


class PromotionView(ItemView):
    """A promotion. `used` counts the orders against `usage_limit`; null without this limit."""

    promotion_id: UUID
    name: str
    kind: PromotionKind
    code: str | None
    percent: str | None
    amounts: tuple[PromotionAmount, ...]
    buy_quantity: int | None
    get_quantity: int | None
    conditions: PromotionConditions
    usage_limit: int | None
    per_customer_limit: int | None
    used: int | None
    starts_at: datetime | None
    ends_at: datetime | None
    stackable: bool
    priority: int
    is_active: bool


class PromotionNotFound(DomainError):
    """No promotion has this id. Details: promotion_id."""

    code = "orders.promotion_not_found"
    status = 404
    title = "There is no such promotion"


class VoucherCodeTaken(DomainError):
    """Another active promotion has this code. Details: voucher_code."""

    code = "orders.voucher_code_taken"
    status = 409
    title = "Another active promotion has this code"


class UsageLimitTooLow(DomainError):
    """The promotion was used more often than the new limit allows. Details: limit, used.

    `limit` is `usage_limit` or `per_customer_limit`; `used` is the smallest possible value.
    """

    code = "orders.usage_limit_too_low"
    status = 409
    title = "The promotion was used more often than this limit allows"


class Promotions(Protocol):
    """The API of promotions, for staff."""

    async def get(self, ctx: CallContext, promotion_id: UUID) -> PromotionView:
        """Raises PromotionNotFound."""

    async def list_page(self, ctx: CallContext, query: PromotionQuery) -> Page[PromotionView]:
        """Return promotions in the order in which they were created. Raises CursorInvalid."""

    async def create(
        self, ctx: CallContext, fields: NewPromotion, attempt: IdempotentCommand
    ) -> PromotionView:
        """Create a promotion. `attempt.id` becomes its id.

        Raises VoucherCodeTaken, TooManyItems (of active promotions without a code).
        """

    async def change(
        self,
        ctx: CallContext,
        promotion_id: UUID,
        patch: PromotionChange,
        expected_versions: ExpectedVersions,
    ) -> PromotionView:
        """Apply a merge patch. Orders that exist stay unchanged.

        Raises PromotionNotFound, PreconditionFailed, ValidationFailed, VoucherCodeTaken,
        UsageLimitTooLow, TooManyItems.
        """

    async def delete(
        self, ctx: CallContext, promotion_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        """Delete the promotion and its counts. Orders keep the discount.

        Raises PromotionNotFound, PreconditionFailed.
        """
