"""The events of payments."""

from typing import ClassVar
from uuid import UUID

from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Event


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
