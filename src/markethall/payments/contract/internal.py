"""The contract of payments for other contexts."""

from datetime import datetime
from typing import Annotated, Final, Protocol
from uuid import UUID

from pydantic import Field

from markethall.payments.contract.statuses import PaymentStatus, RefundStatus
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import Money

# the largest page of `list_payment_states`
MAX_STATES: Final = 500


class OpenPayment(Dto):
    """The amount due for one order. A payment that is not confirmed by `expires_at` expires.

    `country` is the code (ISO 3166-1 alpha-2) of the country to which the order is shipped, or None
    if it is not known. A payment method may be limited to some countries. `payment_method` is the
    method that the customer is going to use: it is checked, and confirming names it again.
    """

    payment_id: UUID
    order_id: UUID
    user_id: UUID
    amount: Money
    expires_at: datetime
    country: str | None = None
    payment_method: str | None = None
    # the cancelled payment of the same order that this one replaces
    replaces: UUID | None = None
    # an order may have any number of additional payments, of later changes, beside its payment
    is_additional: bool = False


class ActivatePayments(Dto):
    """Payments whose orders are stored, so that customers may confirm them."""

    payment_ids: tuple[UUID, ...]


class RefundPayment(Dto):
    """A refund of a payment. Without `amount`, the whole refundable amount is refunded."""

    payment_id: UUID
    refund_id: UUID
    amount: Money | None = None
    reason: str = ""


class CapturePayment(Dto):
    """The capture of an authorized payment, when goods are shipped.

    `due` is the sum that is due for all shipments so far, `total` the sum that is due after the
    last shipment. If both are equal, the rest of the authorization is released.
    """

    payment_id: UUID
    capture_id: UUID
    due: Money
    total: Money


class VoidPayment(Dto):
    payment_id: UUID
    void_id: UUID


class PaymentFields(Dto):
    """The fields of a payment for other contexts and for clients."""

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
    expires_at: datetime
    created_at: datetime
    version: int


class PaymentSummary(PaymentFields):
    """A payment as other contexts see it."""

    # always null; a process of the previous release, which may run during an update, requires it
    next_action: str | None = None


class PaymentList(Dto):
    """Payments with their current statuses, in no defined sequence."""

    items: tuple[PaymentSummary, ...]


class RefundView(Dto):
    refund_id: UUID
    payment_id: UUID
    order_id: UUID
    amount: Money
    status: RefundStatus
    reason: str
    failure_code: str | None = None
    created_at: datetime
    provider: str = ""
    provider_reference: str | None = None


class PaymentState(Dto):
    """The state of a payment. `settled_at` is the time of its latest known outcome, if any."""

    payment_id: UUID
    order_id: UUID
    status: PaymentStatus
    amount: Money
    captured: Money
    refunded: Money
    settled_at: datetime | None = None


class ListPaymentStates(Dto):
    """A page of payments by payment id, after the given one."""

    after_payment_id: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_STATES)] = MAX_STATES


class PaymentStates(Dto):
    items: tuple[PaymentState, ...]


class Payments(Protocol):
    """The commands that other contexts may call. Each is idempotent."""

    async def open(self, ctx: CallContext, command: OpenPayment) -> PaymentSummary:
        """Open a payment. If this id exists already, return the existing payment.

        The payment cannot be confirmed before `activate`. If `cancel` was called with this id
        before, the new payment is cancelled at once. An order has one payment, the payments that
        replace it, and additional ones; the caller cancels a payment before it replaces it. Raises
        OrderHasPayment; UnknownPaymentMethod if `payment_method` is not offered for this payment.
        """

    async def activate(self, ctx: CallContext, command: ActivatePayments) -> PaymentList:
        """Allow these payments to be confirmed, because their orders are committed.

        Return the payments that exist.
        """

    async def cancel(self, ctx: CallContext, payment_id: UUID) -> None:
        """Cancel the payment. If the id is unknown, a later `open` creates a cancelled payment.

        Raises InvalidPaymentTransition when the payment is captured or authorized,
        PaymentInProgress while the outcome of its charge, capture or void is not known.
        """

    async def capture_due(self, ctx: CallContext, command: CapturePayment) -> PaymentSummary:
        """Capture the due amount that is not captured yet. A captured payment stays as it is.

        A provider that captures only once captures `total` as soon as anything is due; a provider
        that captures only the whole amount captures the whole amount. If the provider rejects the
        capture, the payment stays `authorized`, and `failure_code` has the reason. A call with a
        known capture id captures nothing more. Raises PaymentNotFound, InvalidPaymentTransition,
        CurrencyMismatch, OperationIdTaken, PaymentInProgress while the outcome of this or another
        capture, or of a void, is not known.
        """

    async def void(self, ctx: CallContext, command: VoidPayment) -> PaymentSummary:
        """Release the uncaptured rest of an authorized payment.

        The payment is then `voided`, or `captured` if a part was captured. A payment that has ended
        stays as it is. If the provider rejects the void, the payment stays `authorized`, and
        expires. Raises PaymentNotFound, InvalidPaymentTransition, OperationIdTaken,
        PaymentInProgress while the outcome of a charge, capture or void is not known.
        """

    async def refund(self, ctx: CallContext, command: RefundPayment) -> RefundView:
        """Refund a captured payment. A call with a known refund id returns that refund.

        Raises PaymentNotFound, InvalidPaymentTransition, RefundExceedsCaptured, OperationIdTaken,
        ValidationFailed (for an amount that is not positive), CurrencyMismatch.
        """

    async def list_payment_states(self, ctx: CallContext, page: ListPaymentStates) -> PaymentStates:
        """Return the states of payments, sorted by payment id.

        Tombstones are left out. Fewer states than `limit` means that no more follow.
        """
