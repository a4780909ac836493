"""One call of the provider, and what it may answer."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from markethall.payments import contract
from markethall.payments.contract import OperationKind, OperationStatus, RefundStatus
from markethall.payments.domain.payment import Payment
from markethall.shared.kernel.money import Money


@dataclass(frozen=True)
class Succeeded:
    reference: str


@dataclass(frozen=True)
class Failed:
    code: str


@dataclass(frozen=True)
class ActionRequired:
    """The customer must act; this charge ends here and another confirm starts the next."""

    next_action: str


Outcome = Succeeded | Failed | ActionRequired


@dataclass
class Operation:
    """All that the provider was asked for. A charge has a method, a refund the charge it undoes.

    `due_at` is when the reconciler asks what became of it.
    """

    operation_id: UUID
    payment_id: UUID
    kind: OperationKind
    amount: int
    currency: str
    created_at: datetime
    due_at: datetime
    method: str | None = None
    charge_id: UUID | None = None
    reason: str = ""
    status: OperationStatus = OperationStatus.PENDING
    provider_reference: str | None = None
    failure_code: str | None = None
    settled_at: datetime | None = None

    @property
    def money(self) -> Money:
        return Money(amount=self.amount, currency=self.currency)

    @property
    def is_open(self) -> bool:
        return self.settled_at is None

    def succeed(self, reference: str, now: datetime) -> None:
        self.status, self.provider_reference = OperationStatus.SUCCEEDED, reference
        self.settled_at = now

    def fail(self, code: str, now: datetime) -> None:
        self.status, self.failure_code = OperationStatus.FAILED, code
        self.settled_at = now

    def mark_unknown(self) -> None:
        self.status = OperationStatus.UNKNOWN

    def to_view(self) -> contract.OperationView:
        return contract.OperationView(
            operation_id=self.operation_id,
            payment_id=self.payment_id,
            kind=self.kind,
            status=self.status,
            amount=self.money,
            method=self.method,
            provider_reference=self.provider_reference,
            failure_code=self.failure_code,
            created_at=self.created_at,
            settled_at=self.settled_at,
        )

    def to_refund_view(self, payment: Payment) -> contract.RefundView:
        """A refund is an operation that gives back: the same id, the same status."""
        return contract.RefundView(
            refund_id=self.operation_id,
            payment_id=self.payment_id,
            order_id=payment.order_id,
            amount=self.money,
            status=RefundStatus(self.status.value),
            reason=self.reason,
            failure_code=self.failure_code,
            created_at=self.created_at,
        )
