"""An operation at the provider, for example a charge or a refund, and its outcome."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.payments.contract import NextAction, OperationKind, OperationStatus
from markethall.shared.kernel.money import Money

# the method, and the provider, of a payment of zero; no provider is called
FREE_METHOD: Final = "free"


@dataclass(frozen=True)
class Succeeded:
    reference: str


@dataclass(frozen=True)
class Failed:
    """The provider refused. `reference` is its id of the operation, if it has one."""

    code: str
    reference: str | None = None


@dataclass(frozen=True)
class ActionRequired:
    """The charge failed, because the customer must act first, for example authenticate.

    The customer then confirms the payment again, which starts a new charge; or a webhook reports
    that the action is done. `reference` is the provider's id of the operation, if it has one. The
    payment, order and reservation live until `expires_at` if that is later; at most 90 days.
    """

    next_action: NextAction
    reference: str | None = None
    expires_at: datetime | None = None


Outcome = Succeeded | Failed | ActionRequired


@dataclass
class Operation:
    """A request to the provider.

    A charge has a `method`. A refund has a `charge_id`, the operation that it refunds, and the
    provider's reference of that operation. If the operation is still open at `due_at`, the
    reconciliation job looks up its outcome.
    """

    operation_id: UUID
    payment_id: UUID
    kind: OperationKind
    amount: int
    currency: str
    created_at: datetime
    due_at: datetime
    provider: str
    method: str | None = None
    charge_id: UUID | None = None
    charge_reference: str | None = None
    reason: str = ""
    status: OperationStatus = OperationStatus.PENDING
    provider_reference: str | None = None
    failure_code: str | None = None
    settled_at: datetime | None = None

    @property
    def money(self) -> Money:
        return Money(amount=self.amount, currency=self.currency)

    @property
    def is_pending(self) -> bool:
        """Tell whether the provider has to be called; an unknown outcome is only looked up."""
        return self.status is OperationStatus.PENDING

    @property
    def is_open(self) -> bool:
        return self.settled_at is None

    def succeed(self, reference: str, now: datetime) -> None:
        self.status, self.provider_reference = OperationStatus.SUCCEEDED, reference
        self.failure_code = None
        self.settled_at = now

    def fail(self, code: str, now: datetime, reference: str | None = None) -> None:
        self.status, self.failure_code = OperationStatus.FAILED, code
        self.provider_reference = reference or self.provider_reference
        self.settled_at = now

    def mark_unknown(self) -> None:
        self.status = OperationStatus.UNKNOWN
