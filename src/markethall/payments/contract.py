"""What the rest of the hall may know about payments."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Protocol
from uuid import UUID

from markethall.shared.call import Call
from markethall.shared.errors import Refusal
from markethall.shared.events import Event
from markethall.shared.model import Dto
from markethall.shared.money import Money


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
    """The amount due for one order. What is not confirmed by expires_at expires by itself."""

    payment_id: UUID
    order_id: UUID
    user_id: UUID
    amount: Money
    expires_at: datetime


class RefundPayment(Dto):
    """Without an amount: all that is left of it."""

    payment_id: UUID
    refund_id: UUID
    amount: Money | None = None
    reason: str = ""


class Payment(Dto):
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


class Refund(Dto):
    refund_id: UUID
    payment_id: UUID
    order_id: UUID
    amount: Money
    status: RefundStatus
    reason: str
    failure_code: str | None = None
    created_at: datetime


class PaymentNotFound(Refusal):
    """Absent, or not yours. Details: payment_id."""

    code = "payments.not_found"
    status = 404
    title = "There is no such payment"


class InvalidPaymentTransition(Refusal):
    """Details: status, allowed (the commands that the status takes)."""

    code = "payments.invalid_transition"
    status = 409
    title = "The payment's status does not allow this"


class PaymentInProgress(Refusal):
    """Another confirm of this payment is running. Details: retry_after."""

    code = "payments.in_progress"
    status = 409
    title = "This payment is being processed"
    retryable = True


class RefundExceedsCaptured(Refusal):
    """Details: requested, refundable, each as money."""

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
    """A refund has succeeded. `refunded` is the sum of all of them."""

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
    """What a neighbour may ask. Every command may be repeated."""

    async def open(self, call: Call, command: OpenPayment) -> Payment:
        """Once per payment id; after a cancel it stays cancelled."""

    async def cancel(self, call: Call, payment_id: UUID) -> None:
        """Nothing will be charged any more; a payment that was never opened cannot be.

        Raises InvalidPaymentTransition when the money is taken, PaymentInProgress when that is
        being decided.
        """

    async def refund(self, call: Call, command: RefundPayment) -> Refund:
        """Give money back, once per refund id.

        Raises PaymentNotFound, InvalidPaymentTransition, RefundExceedsCaptured.
        """
