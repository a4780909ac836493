"""The contract of draft orders: DTOs, errors and the Protocol."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Protocol, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from markethall.orders.carts.contract import ReadinessProblem
from markethall.orders.contract import (
    MAX_LINES,
    AnyAddress,
    OrderLineRequest,
    OrderView,
    PlaceOrder,
)
from markethall.orders.promotions.contract import VoucherCode
from markethall.orders.shipping.contract import ShippingCode
from markethall.orders.totals.contract import TotalsView
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.email_address import EmailAddress
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.merge_patch import omittable_field, remove_null_defaults
from markethall.shared.kernel.model import Dto, Id, RequestModel, Text
from markethall.shared.kernel.money import Currency
from markethall.shared.kernel.pagination import Page, PageQuery

DraftLines = Annotated[
    tuple[OrderLineRequest, ...], Field(min_length=1, max_length=MAX_LINES, fail_fast=True)
]
DraftNote = Annotated[Text, Field(max_length=1000)]


class DraftStatus(StrEnum):
    """Status of a draft order. A completed draft has an order and never changes."""

    OPEN = "open"
    COMPLETED = "completed"


class NewDraftOrder(RequestModel):
    """A draft order, for a customer or for a buyer without an account, who has an e-mail address.

    Without `email`, the customer's address is used. The other fields have the same meaning as in
    an order.
    """

    customer_id: Annotated[Id | None, Field(description="A user or a guest")] = None
    email: EmailAddress | None = None
    lines: DraftLines
    shipping_address: AnyAddress
    billing_address: AnyAddress | None = None
    currency: Currency | None = None
    shipping_method: ShippingCode | None = None
    voucher_code: VoucherCode | None = None
    note: DraftNote | None = None

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.customer_id is None and self.email is None:
            raise PydanticCustomError("buyer_missing", "must have a customer_id or an email")
        self.to_place_order()  # checks the quantities per product
        return self

    def to_place_order(self) -> PlaceOrder:
        return PlaceOrder(
            **{name: getattr(self, name) for name in type(self).model_fields if name in _SHARED}
        )


_SHARED = frozenset(NewDraftOrder.model_fields) & frozenset(PlaceOrder.model_fields)


class ChangeDraftOrder(RequestModel):
    """A change of a draft order, as a JSON merge patch (RFC 7396).

    Null clears a field; `lines` and `shipping_address` cannot be null.
    """

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    customer_id: Id | None = None
    email: EmailAddress | None = None
    lines: DraftLines = omittable_field()
    shipping_address: AnyAddress = omittable_field()
    billing_address: AnyAddress | None = None
    currency: Currency | None = None
    shipping_method: ShippingCode | None = None
    voucher_code: VoucherCode | None = None
    note: DraftNote | None = None


class DraftOrderQuery(PageQuery):
    """Filters of the list of draft orders."""

    status: DraftStatus | None = None


class DraftLineView(Dto):
    product_id: UUID
    quantity: int


class DraftOrderView(Dto):
    """A draft order. `order_id` is the order that its completion has placed."""

    draft_order_id: UUID
    status: DraftStatus
    order_id: UUID | None
    customer_id: UUID | None
    email: str | None
    lines: tuple[DraftLineView, ...]
    shipping_address: AnyAddress
    billing_address: AnyAddress | None
    currency: str | None
    shipping_method: str | None
    voucher_code: str | None
    note: str | None
    created_by: Annotated[str, Field(examples=["user:0199c0de-0000-7000-8000-000000000001"])]
    created_at: datetime
    updated_at: datetime
    version: int


class DraftOrderPreview(DraftOrderView):
    """A draft order with its current totals. Nothing is reserved.

    `readiness` lists the reasons why the draft cannot be completed now. If the voucher is one of
    these reasons, `totals` are the totals without the voucher. `totals` is null if the draft cannot
    be priced. The totals of a completed draft are the totals of its order.
    """

    totals: TotalsView | None
    readiness: tuple[ReadinessProblem, ...]


class DraftOrderNotFound(DomainError):
    """Details: draft_order_id."""

    code = "orders.draft_order_not_found"
    status = 404
    title = "There is no such draft order"


class DraftOrderCompleted(DomainError):
    """The draft order is completed, so it never changes. Details: draft_order_id, order_id."""

    code = "orders.draft_order_completed"
    status = 409
    title = "The draft order is completed"


class DraftOrderChanged(DomainError):
    """The draft order was changed or deleted during its completion. Details: draft_order_id."""

    code = "orders.draft_order_changed"
    status = 409
    title = "The draft order has changed meanwhile"


class DraftOrders(Protocol):
    """Draft orders, which staff prepare for customers. Staff only: all methods raise Forbidden."""

    async def create(
        self, ctx: CallContext, fields: NewDraftOrder, attempt: IdempotentCommand
    ) -> DraftOrderView:
        """Create a draft order. `attempt.id` becomes its id. Nothing is reserved."""

    async def get(self, ctx: CallContext, draft_order_id: UUID) -> DraftOrderPreview:
        """Return the draft with its current totals. Raises DraftOrderNotFound, Unavailable."""

    async def list_page(self, ctx: CallContext, query: DraftOrderQuery) -> Page[DraftOrderView]:
        """Return draft orders, the newest first. Raises CursorInvalid."""

    async def change(
        self,
        ctx: CallContext,
        draft_order_id: UUID,
        patch: ChangeDraftOrder,
        expected_versions: ExpectedVersions,
    ) -> DraftOrderView:
        """Raises DraftOrderNotFound, DraftOrderCompleted, PreconditionFailed, ValidationFailed."""

    async def delete(
        self, ctx: CallContext, draft_order_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        """Raises DraftOrderNotFound, DraftOrderCompleted, PreconditionFailed."""

    async def complete(
        self, ctx: CallContext, draft_order_id: UUID, attempt: IdempotentCommand
    ) -> OrderView:
        """Place the order. A draft never has more than one order; the attempt's id is the order id.

        The order is pending until its payment is paid, by its customer or by staff. Raises the
        errors of `Orders.place`, DraftOrderNotFound, DraftOrderCompleted, DraftOrderChanged.
        """
