"""The events of payments."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from markethall.payments.contract.statuses import PaymentStatus
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Event


class PaymentEvent(Event):
    type: ClassVar[str] = "payments.payment_event"
    payment_id: UUID
    order_id: UUID

    @property
    def key(self) -> UUID:
        return self.payment_id


class PaymentCaptured(PaymentEvent):
    """The payment is captured, and no more can be. `amount` is the sum of all captures."""

    type: ClassVar[str] = "payments.payment_captured"
    amount: Money


class PaymentPartiallyCaptured(PaymentEvent):
    """A part was captured, and more can be. `captured` is the sum of all captures so far."""

    type: ClassVar[str] = "payments.payment_partially_captured"
    capture_id: UUID
    amount: Money
    captured: Money


class PaymentFailed(PaymentEvent):
    """A charge failed. `payment_version` is 0 in events of older releases."""

    type: ClassVar[str] = "payments.payment_failed"
    failure_code: str
    payment_version: int = 0


class PaymentStatusChanged(PaymentEvent):
    """The status has changed, and no other event reports the new status.

    The call `cancel` publishes no event, because its caller already knows the new status.
    """

    type: ClassVar[str] = "payments.payment_status_changed"
    status: PaymentStatus
    payment_version: int
    # None in events of older releases
    expires_at: datetime | None = None


class PaymentRefunded(PaymentEvent):
    """A refund succeeded. `refunded` is the sum of all succeeded refunds of the payment."""

    type: ClassVar[str] = "payments.payment_refunded"
    refund_id: UUID
    amount: Money
    captured: Money
    refunded: Money


class DisputeChanged(PaymentEvent):
    """A dispute of the payment was opened or has changed. `status` is that of the provider."""

    type: ClassVar[str] = "payments.dispute_changed"
    status: str
    reason: str
    amount: Money
    due_by: datetime | None = None
    provider_reference: str
    payment_version: int
