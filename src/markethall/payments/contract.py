"""The contract of payments: DTOs, errors, events and Protocols."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal, Protocol
from uuid import UUID

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Dto, Id
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import Page, PageQuery
from markethall.shared.messaging.events import Event


class PaymentStatus(StrEnum):
    CREATED = "created"
    PROCESSING = "processing"
    REQUIRES_ACTION = "requires_action"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    FAILED = "failed"
    UNKNOWN = "unknown"
    VOIDED = "voided"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class RefundStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


class OpenPayment(Dto):
    """The amount due for one order. A payment that is not confirmed by `expires_at` expires."""

    payment_id: UUID
    order_id: UUID
    user_id: UUID
    amount: Money
    expires_at: datetime


class ActivatePayments(Dto):
    """Payments whose orders are stored, so that customers may confirm them."""

    payment_ids: tuple[UUID, ...]


class RefundPayment(Dto):
    """A refund of a payment. Without `amount`, all that is refundable is refunded."""

    payment_id: UUID
    refund_id: UUID
    amount: Money | None = None
    reason: str = ""


class PaymentView(Dto):
    payment_id: UUID
    order_id: UUID
    user_id: UUID
    status: PaymentStatus
    amount: Money
    authorized: Money
    captured: Money
    refunded: Money
    provider: str
    failure_code: str | None = None
    next_action: str | None = None
    expires_at: datetime
    created_at: datetime
    version: int


class PaymentList(Dto):
    """Payments with their current statuses. The order is not defined."""

    items: tuple[PaymentView, ...]


class RefundView(Dto):
    refund_id: UUID
    payment_id: UUID
    order_id: UUID
    amount: Money
    status: RefundStatus
    reason: str
    failure_code: str | None = None
    created_at: datetime


class PaymentNotFound(DomainError):
    """The payment does not exist or the caller may not see it. Details: payment_id."""

    code = "payments.not_found"
    status = 404
    title = "There is no such payment"


class InvalidPaymentTransition(DomainError):
    """The payment's status does not accept the command. Details: status, allowed (commands)."""

    code = "payments.invalid_transition"
    status = 409
    title = "The payment's status does not allow this"


class PaymentInProgress(DomainError):
    """The outcome of a charge of this payment is not known yet. Details: retry_after (seconds)."""

    code = "payments.in_progress"
    status = 409
    title = "This payment is being processed"
    retryable = True


class RefundExceedsCaptured(DomainError):
    """The amount is more than the refundable rest. Details: requested, refundable (both Money)."""

    code = "payments.refund_exceeds_captured"
    status = 409
    title = "A refund cannot exceed what was captured"


class PaymentCaptured(Event):
    type: ClassVar[str] = "payments.payment_captured"
    payment_id: UUID
    order_id: UUID
    amount: Money

    @property
    def key(self) -> UUID:
        return self.payment_id


class PaymentFailed(Event):
    type: ClassVar[str] = "payments.payment_failed"
    payment_id: UUID
    order_id: UUID
    failure_code: str

    @property
    def key(self) -> UUID:
        return self.payment_id


class PaymentRefunded(Event):
    """A refund succeeded. `refunded` is the sum of all refunds."""

    type: ClassVar[str] = "payments.payment_refunded"
    payment_id: UUID
    order_id: UUID
    refund_id: UUID
    amount: Money
    captured: Money
    refunded: Money

    @property
    def key(self) -> UUID:
        return self.payment_id


class Payments(Protocol):
    """The commands that other contexts may call. Each is idempotent."""

    async def open(self, ctx: CallContext, command: OpenPayment) -> PaymentView:
        """Open a payment. If this id exists already, return the existing payment.

        It cannot be confirmed before `activate`. If `cancel` was called with this id before, the
        new payment is cancelled at once. Raises OrderHasPayment.
        """

    async def activate(self, ctx: CallContext, command: ActivatePayments) -> PaymentList:
        """Allow these payments to be confirmed, because their orders are committed.

        Return the payments that exist.
        """

    async def cancel(self, ctx: CallContext, payment_id: UUID) -> None:
        """Cancel the payment. If it does not exist, a later `open` with this id cancels it at once.

        Raises InvalidPaymentTransition when the payment is captured, PaymentInProgress while the
        outcome of its charge is not known.
        """

    async def refund(self, ctx: CallContext, command: RefundPayment) -> RefundView:
        """Refund a captured payment. A call with a known refund id returns that refund.

        Raises PaymentNotFound, InvalidPaymentTransition, RefundExceedsCaptured, OperationIdTaken,
        ValidationFailed (for an amount that is not positive), CurrencyMismatch.
        """


class OperationKind(StrEnum):
    """A charge authorizes and captures at once; the others do one step."""

    CHARGE = "charge"
    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class OperationStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


class OperationView(Dto):
    """A request to the provider. `operation_id` is the idempotency key there."""

    operation_id: UUID
    payment_id: UUID
    kind: OperationKind
    provider: str
    status: OperationStatus
    amount: Money
    method: str | None = None
    provider_reference: str | None = None
    failure_code: str | None = None
    created_at: datetime
    settled_at: datetime | None = None


class PostingKind(StrEnum):
    CAPTURE = "capture"
    REFUND = "refund"


class PostingEntryView(Dto):
    """One entry of a posting. The amount of a debit is positive, that of a credit negative."""

    account: str
    amount: Money


class PostingView(Dto):
    """A double-entry posting. The entries of each currency sum to zero."""

    posting_id: UUID
    payment_id: UUID
    operation_id: UUID
    kind: PostingKind
    entries: tuple[PostingEntryView, ...]
    created_at: datetime


class LedgerAccountKind(StrEnum):
    ASSET = "asset"
    LIABILITY = "liability"


class LedgerAccountBalance(Dto):
    """The balance of one account in one currency: the debits minus the credits."""

    account: str
    kind: LedgerAccountKind
    balance: Money


class LedgerReport(Dto):
    """The result of comparing the ledger with the payments. Each list has at most 100 ids."""

    balanced: bool
    posting_count: int
    unbalanced_postings: tuple[UUID, ...]
    mismatched_payments: tuple[UUID, ...]


class WebhookReceipt(Dto):
    """The response to a webhook. `duplicate` means that the event was stored before."""

    event_id: str
    duplicate: bool


class PaymentQuery(PageQuery):
    """Filters of the payment list. Only staff may filter by `user_id`."""

    order_id: Id | None = None
    user_id: Id | None = None
    status: PaymentStatus | None = None
    sort: Literal["created_at", "-created_at"] = "-created_at"


class PostingQuery(PageQuery):
    payment_id: Id | None = None


class RefundNotFound(DomainError):
    """The payment has no refund with this id. Details: refund_id."""

    code = "payments.refund_not_found"
    status = 404
    title = "There is no such refund of this payment"


class UnknownPaymentMethod(DomainError):
    """No provider of this shop supports this payment method. Details: payment_method."""

    code = "payments.unknown_method"
    status = 422
    title = "This shop does not offer this payment method"


class UnsupportedByProvider(DomainError):
    """The provider of the payment cannot do this. Details: provider, capability."""

    code = "payments.unsupported_by_provider"
    status = 409
    title = "The provider of this payment cannot do this"


class UnknownProvider(DomainError):
    """No provider of this name sends webhooks. Details: provider."""

    code = "payments.unknown_provider"
    status = 404
    title = "There is no such provider"


class WebhookSignatureInvalid(DomainError):
    """The signature is missing, forged or too old."""

    code = "payments.webhook_signature_invalid"
    status = 401
    title = "The webhook's signature is not valid"


class OrderHasPayment(DomainError):
    """The order has a payment with another id. Details: order_id."""

    code = "payments.order_has_payment"
    status = 409
    title = "The order has a payment already"


class OperationIdTaken(DomainError):
    """The refund id belongs to another operation. Details: operation_id."""

    code = "payments.operation_id_taken"
    status = 409
    title = "This id names another operation"


class PaymentApi(Protocol):
    """The public API of payments."""

    async def get_payment(self, ctx: CallContext, payment_id: UUID) -> PaymentView:
        """Raises PaymentNotFound."""

    async def list_payments(self, ctx: CallContext, query: PaymentQuery) -> Page[PaymentView]:
        """Return the caller's payments; all of them for staff. Raises CursorInvalid."""

    async def confirm(
        self, ctx: CallContext, payment_id: UUID, method: str, attempt: IdempotentCommand
    ) -> PaymentView:
        """Charge the payment. After a decline its status is `failed`, after a timeout `unknown`.

        Raises PaymentNotFound (also while its order is not committed), UnknownPaymentMethod,
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
        """Refund a payment; without `amount`, refund all that is refundable. Staff only.

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

    async def list_postings(self, ctx: CallContext, query: PostingQuery) -> Page[PostingView]:
        """Return postings, the newest first. Raises CursorInvalid."""

    async def list_account_balances(self, ctx: CallContext) -> tuple[LedgerAccountBalance, ...]: ...

    async def verify_ledger(self, ctx: CallContext) -> LedgerReport: ...

    async def count(self) -> int:
        """Return the number of payments."""
