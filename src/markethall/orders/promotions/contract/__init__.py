"""The contract of promotions: automatic discounts and vouchers."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.orders.configuration.contract import ItemView
from markethall.orders.promotions.contract.fields import NewPromotion as NewPromotion
from markethall.orders.promotions.contract.fields import PromotionAmount as PromotionAmount
from markethall.orders.promotions.contract.fields import PromotionChange as PromotionChange
from markethall.orders.promotions.contract.fields import PromotionConditions as PromotionConditions
from markethall.orders.promotions.contract.vouchers import VoucherCode as VoucherCode
from markethall.orders.promotions.contract.vouchers import VoucherExhausted as VoucherExhausted
from markethall.orders.promotions.contract.vouchers import VoucherInvalid as VoucherInvalid
from markethall.orders.totals.domain import PromotionKind
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.pagination import Page, PageQuery


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
