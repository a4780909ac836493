"""An operation at the provider, for example a charge or a refund, and its outcome."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from markethall.payments.contract.api import NextAction
from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.payments.domain.saved_method import MethodDetails
from markethall.shared.kernel.money import Money

# name of both the method and the provider of a payment of zero, for which no provider is called
FREE_METHOD: Final = "free"


@dataclass(frozen=True)
class Succeeded:
    """The provider executed the operation. `reference` is the operation's id there.

    The outcome of an authorization has `expires_at`: until then the amount can be captured. None
    means that the provider does not report it. `fee` is the amount that the provider keeps for the
    operation, or None if it is not known yet; it may be in another currency. A charge of a customer
    who wants to save the method has `saved_method`.
    """

    reference: str
    expires_at: datetime | None = None
    fee: Money | None = None
    saved_method: MethodDetails | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Failed:
    """The provider rejected the operation. `reference` is the operation's id there, if any."""

    code: str
    reference: str | None = None


@dataclass(frozen=True)
class ActionRequired:
    """The customer must act first, for example authenticate. The charge is recorded as failed.

    Either the customer then confirms the payment again, which starts a new charge; or a webhook
    reports that this charge has succeeded. `reference` is the provider's id of the charge, if it
    has one. A later `expires_at` postpones the expiry of the payment, the order and the
    reservation, to at most 90 days after the payment was opened. `lifetime` does the same: it is
    the time that the customer has, counted from the opening of the payment, so another charge does
    not renew it.

    If `is_cancellable` is true, the gateway can cancel the charge and must do so when the payment
    ends, because the charge could otherwise succeed later. A job then follows the charge up.
    """

    next_action: NextAction
    reference: str | None = None
    expires_at: datetime | None = None
    is_cancellable: bool = False
    lifetime: timedelta | None = None


Outcome = Succeeded | Failed | ActionRequired


@dataclass
class Operation:
    """A request to the provider. `amount` is in minor units of `currency`.

    A charge or authorization has a `method`. A capture, void or refund has `charge_id`, the id of
    the charge or authorization that it changes, and `charge_reference`, the provider's id of that
    operation. A capture with `is_final` makes the provider release the uncaptured rest. If the
    operation is still open at `due_at`, the reconciliation job looks up its outcome.

    `customer` is the reference of the user's customer object at the provider. The operation needs
    it if it charges a saved method, or if `saves_method` is set.

    While the customer may still act, `follow_up_at` is the time at which a job looks the charge up
    again, or cancels it because its payment has ended.

    `fee_amount` is the amount that the provider keeps, in minor units of `fee_currency`; it may
    become known after the operation has succeeded.
    """

    operation_id: UUID
    payment_id: UUID
    kind: OperationKind
    amount: int
    currency: str
    created_at: datetime
    due_at: datetime | None
    provider: str
    method: str | None = None
    charge_id: UUID | None = None
    charge_reference: str | None = None
    reason: str = ""
    is_final: bool = False
    status: OperationStatus = OperationStatus.PENDING
    provider_reference: str | None = None
    failure_code: str | None = None
    settled_at: datetime | None = None
    follow_up_at: datetime | None = None
    fee_amount: int | None = None
    fee_currency: str | None = None
    fee_recorded_at: datetime | None = None
    customer: str | None = None
    saves_method: bool = False

    @property
    def money(self) -> Money:
        return Money(amount=self.amount, currency=self.currency)

    @property
    def fee(self) -> Money | None:
        if self.fee_amount is None or self.fee_currency is None:
            return None
        return Money(amount=self.fee_amount, currency=self.fee_currency)

    @property
    def is_pending(self) -> bool:
        """Tell whether the operation still has to be sent to the provider.

        A retry does not send an operation with an unknown outcome again: the reconciliation job
        looks up the outcome.
        """
        return self.status is OperationStatus.PENDING

    @property
    def is_settled_by_hand(self) -> bool:
        """Tell whether staff settle the operation, so that no provider is asked."""
        return self.due_at is None

    @property
    def is_open(self) -> bool:
        return self.settled_at is None

    def is_refund_of(self, payment_id: UUID) -> bool:
        return self.kind is OperationKind.REFUND and self.payment_id == payment_id

    def log_fields(self, id_name: str = "operation_id") -> dict[str, str | int]:
        """Return the fields of a security log event; `id_name` names the id of the operation."""
        return {
            "subject": f"payment:{self.payment_id}",
            id_name: str(self.operation_id),
            "amount": self.amount,
            "currency": self.currency,
        }

    def succeed(self, reference: str, now: datetime) -> None:
        self.status, self.provider_reference = OperationStatus.SUCCEEDED, reference
        self.failure_code = self.follow_up_at = None
        self.settled_at = now

    def fail(self, code: str, now: datetime, reference: str | None = None) -> None:
        self.status, self.failure_code = OperationStatus.FAILED, code
        self.provider_reference = reference or self.provider_reference
        self.settled_at = now

    def record_fee(self, fee: Money, now: datetime) -> None:
        self.fee_amount, self.fee_currency = fee.amount, fee.currency
        self.fee_recorded_at = now

    def wait_for_staff(self) -> None:
        """Let staff settle the operation, which was never sent to a provider."""
        self.status, self.due_at = OperationStatus.PENDING, None

    def mark_unknown(self) -> None:
        self.status = OperationStatus.UNKNOWN
