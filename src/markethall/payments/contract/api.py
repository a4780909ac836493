"""The public API of payments."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, Protocol, Self
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from markethall.payments.contract.internal import PaymentFields, RefundView
from markethall.payments.contract.statuses import (
    OperationKind,
    OperationStatus,
    PaymentStatus,
    RefundStatus,
)
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.countries import Country
from markethall.shared.kernel.model import MAX_AMOUNT, Dto, Id, QueryModel, Text
from markethall.shared.kernel.money import Currency, Money
from markethall.shared.kernel.pagination import Page, PageQuery


class PaymentDispute(Dto):
    """The latest dispute of a payment. Staff answer it at the provider.

    `status` and `reason` are those of the provider. Stripe's statuses are `needs_response`,
    `under_review`, `won`, `lost` and `prevented`, and for an inquiry of the bank, which takes no
    money yet, `warning_needs_response`, `warning_under_review` and `warning_closed`. `due_by` is
    the time until which the provider accepts an answer.
    """

    status: str
    reason: str
    amount: Money
    due_by: datetime | None = None
    opened_at: datetime
    provider_reference: str


class SavedPaymentMethodView(Dto):
    """A saved method. The provider stores the card; here are only the values that identify it.

    A value that the provider does not report is null.
    """

    saved_payment_method_id: UUID
    provider: str
    brand: str | None = None
    last4: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None
    created_at: datetime


class RedirectAction(Dto):
    """The customer continues on a page of the provider."""

    type: Literal["redirect"] = "redirect"
    url: str


class ProviderSdkAction(Dto):
    """The shop's page passes `client_secret` to the provider's JavaScript library."""

    type: Literal["provider_sdk"] = "provider_sdk"
    provider: str
    client_secret: str


class AwaitTransferAction(Dto):
    """The customer pays outside of the shop, as the instructions say."""

    type: Literal["await_transfer"] = "await_transfer"
    instructions: str


NextAction = TypeAliasType(
    "NextAction",
    Annotated[
        RedirectAction | ProviderSdkAction | AwaitTransferAction, Field(discriminator="type")
    ],
)


class PaymentView(PaymentFields):
    """A payment as its customer and staff see it."""

    next_action: NextAction | None = None
    dispute: PaymentDispute | None = None


class OperationView(Dto):
    """A request to the provider. `operation_id` is also its idempotency key at the provider.

    `fee` is the amount that the provider keeps for the operation; only staff see it.
    """

    operation_id: UUID
    payment_id: UUID
    kind: OperationKind
    provider: str
    status: OperationStatus
    amount: Money
    method: str | None = None
    provider_reference: str | None = None
    failure_code: str | None = None
    fee: Money | None = None
    created_at: datetime
    settled_at: datetime | None = None


class WebhookReceipt(Dto):
    """The response to a webhook. `duplicate` means that the event was stored before."""

    event_id: str
    duplicate: bool


PaymentSort = TypeAliasType("PaymentSort", Literal["created_at", "-created_at"])


class PaymentQuery(PageQuery):
    """Filters of the payment list.

    A customer who filters by the `user_id` of another customer gets an empty list.
    """

    order_id: Id | None = None
    user_id: Id | None = None
    status: PaymentStatus | None = None
    # true: only payments with a dispute; false: only payments without one
    disputed: bool | None = None
    sort: PaymentSort = "-created_at"


class PaymentMethodQuery(QueryModel):
    """The currency, country and total of an order. Only methods for such an order are listed.

    `total` is in minor units of `currency`. A value of None excludes no method.
    """

    currency: Currency | None = None
    country: Country | None = None
    total: Annotated[int, Field(ge=0, le=MAX_AMOUNT)] | None = None

    @model_validator(mode="after")
    def _require_currency_of_total(self) -> Self:
        if self.total is not None and self.currency is None:
            raise PydanticCustomError("currency_missing", "total needs a currency")
        return self


class PaymentMethodView(Dto):
    """A payment method that this shop offers. Confirm a payment with its `method`."""

    method: str
    provider: str
    name: str
    instructions: str | None = None


class PaymentMethodsView(Dto):
    items: tuple[PaymentMethodView, ...]


class PaymentApi(Protocol):
    """The public API of payments."""

    def list_payment_methods(self, query: PaymentMethodQuery) -> PaymentMethodsView:
        """Return the methods that this shop offers; for a total of zero only the method `free`."""

    async def get_payment(self, ctx: CallContext, payment_id: UUID) -> PaymentView:
        """Raises PaymentNotFound."""

    async def list_payments(self, ctx: CallContext, query: PaymentQuery) -> Page[PaymentView]:
        """Return the payments of the caller; staff see all payments. Raises CursorInvalid."""

    async def confirm(
        self,
        ctx: CallContext,
        payment_id: UUID,
        method: str,
        attempt: IdempotentCommand,
        *,
        save_method: bool = False,
    ) -> PaymentView:
        """Charge or authorize the payment, as the shop's setting says.

        After a decline its status is `failed`, after a timeout `unknown`.

        `method` may be the id of a saved method of the caller. With `save_method`, the method is
        saved when the charge succeeds.

        Raises PaymentNotFound (also before the transaction that stores its order is committed),
        UnknownPaymentMethod, UnsupportedByProvider (the provider cannot save methods, or staff
        confirm the payment of a customer with a method that takes money), InvalidPaymentTransition,
        PaymentInProgress.
        """

    async def list_saved_methods(
        self, ctx: CallContext, query: PageQuery
    ) -> Page[SavedPaymentMethodView]:
        """Return the saved methods of the caller, the newest first. Raises CursorInvalid."""

    async def delete_saved_method(self, ctx: CallContext, saved_method_id: UUID) -> None:
        """Delete a saved method of the caller; a repeated call changes nothing.

        Raises SavedPaymentMethodNotFound.
        """

    async def delete_saved_methods(self, ctx: CallContext) -> None:
        """Delete all saved methods of the caller."""

    async def mark_paid(
        self,
        ctx: CallContext,
        payment_id: UUID,
        amount: Money,
        reference: str,
        attempt: IdempotentCommand,
    ) -> PaymentView:
        """Record money that arrived outside of the shop. Staff only.

        Raises PaymentNotFound, UnsupportedByProvider (the customer has not confirmed with a method
        that staff can mark as paid), PaymentInProgress, InvalidPaymentTransition, AmountExceedsDue,
        CurrencyMismatch.
        """

    async def capture(
        self,
        ctx: CallContext,
        payment_id: UUID,
        amount: Money | None,
        attempt: IdempotentCommand,
        *,
        is_final: bool,
    ) -> PaymentView:
        """Capture an authorized payment; without `amount`, the uncaptured rest. Staff only.

        If the amount is the rest, if it `is_final`, or if the provider captures only once, the
        payment is then `captured`, otherwise it stays `authorized`. If the provider rejects the
        capture, `failure_code` has the reason. Raises PaymentNotFound, InvalidPaymentTransition,
        PaymentInProgress, UnsupportedByProvider, CaptureExceedsAuthorized, CurrencyMismatch.
        """

    async def void(
        self, ctx: CallContext, payment_id: UUID, attempt: IdempotentCommand
    ) -> PaymentView:
        """Release the uncaptured rest of an authorized payment. Staff only.

        The payment is then `voided`, or `captured` if a part was captured. Raises PaymentNotFound,
        InvalidPaymentTransition, PaymentInProgress.
        """

    async def list_operations(
        self, ctx: CallContext, payment_id: UUID, query: PageQuery
    ) -> Page[OperationView]:
        """Return operations, the oldest first. Raises PaymentNotFound, CursorInvalid."""

    async def refund(
        self,
        ctx: CallContext,
        payment_id: UUID,
        amount: Money | None,
        reason: str,
        attempt: IdempotentCommand,
    ) -> RefundView:
        """Refund a payment; without `amount`, the whole refundable amount. Staff only.

        Raises PaymentNotFound, InvalidPaymentTransition, RefundExceedsCaptured, CurrencyMismatch.
        """

    async def get_refund(self, ctx: CallContext, payment_id: UUID, refund_id: UUID) -> RefundView:
        """Raises PaymentNotFound, RefundNotFound."""

    async def list_refunds(
        self, ctx: CallContext, payment_id: UUID, query: PageQuery
    ) -> Page[RefundView]:
        """Return refunds, the oldest first. Raises PaymentNotFound, CursorInvalid."""

    async def receive_webhook(
        self, ctx: CallContext, provider: str, headers: Mapping[str, str], body: bytes
    ) -> WebhookReceipt:
        """Verify and store the event, then apply it. The names in `headers` are in lower case.

        Raises UnknownProvider, WebhookSignatureInvalid, BodyTooLarge, MalformedRequest,
        ValidationFailed.
        """

    async def count(self) -> int:
        """Return the number of payments."""


class RefundQuery(PageQuery):
    """Filters of the list of refunds. `pending` refunds of `manual` wait for staff."""

    status: RefundStatus | None = None
    provider: Annotated[Text, Field(max_length=50, examples=["manual"])] | None = None


class ManualRefunds(Protocol):
    """The refunds that no provider executes. Staff only."""

    async def list_refunds(self, ctx: CallContext, query: RefundQuery) -> Page[RefundView]:
        """Return refunds of all payments, the oldest first. Raises CursorInvalid."""

    async def mark_refund_paid(
        self,
        ctx: CallContext,
        payment_id: UUID,
        refund_id: UUID,
        reference: str,
        attempt: IdempotentCommand,
    ) -> RefundView:
        """Record that staff have transferred the amount of a pending refund.

        Raises RefundNotFound, UnsupportedByProvider (the provider executes its refunds),
        InvalidPaymentTransition (the refund is settled).
        """
