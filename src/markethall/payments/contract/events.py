"""The events of payments."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from markethall.payments.contract.statuses import PaymentStatus
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Event


class PaymentCaptured(Event):
    """The payment is captured, and no more can be. `amount` is the sum of all captures."""

    type: ClassVar[str] = "payments.payment_captured"
    payment_id: UUID
    order_id: UUID
    amount: Money

    @property
    def key(self) -> UUID:
        return self.payment_id


class PaymentPartiallyCaptured(Event):
    """A part was captured, and more can be. `captured` is the sum of all captures so far."""

    type: ClassVar[str] = "payments.payment_partially_captured"
    payment_id: UUID
    order_id: UUID
    capture_id: UUID
    amount: Money
    captured: Money

    @property
    def key(self) -> UUID:
        return self.payment_id


class PaymentFailed(Event):
    """A charge failed. `payment_version` is 0 in events of older releases."""

    type: ClassVar[str] = "payments.payment_failed"
    payment_id: UUID
    order_id: UUID
    failure_code: str
    payment_version: int = 0

    @property
    def key(self) -> UUID:
        return self.payment_id


class PaymentStatusChanged(Event):
    """The status has changed, and no other event reports the new status.

    The call `cancel` publishes no event, because its caller already knows the new status.
    """

    type: ClassVar[str] = "payments.payment_status_changed"
    payment_id: UUID
    order_id: UUID
    status: PaymentStatus
    payment_version: int
    # None in events of older releases
    expires_at: datetime | None = None

    @property
    def key(self) -> UUID:
        return self.payment_id


class PaymentRefunded(Event):
    """A refund succeeded. `refunded` is the sum of all succeeded refunds of the payment."""

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


class DisputeChanged(Event):
    """A dispute of the payment was opened or has changed. `status` is that of the provider."""

    type: ClassVar[str] = "payments.dispute_changed"
    payment_id: UUID
    order_id: UUID
    status: str
    reason: str
    amount: Money
    due_by: datetime | None = None
    provider_reference: str
    payment_version: int

    @property
    def key(self) -> UUID:
        return self.payment_id
