"""The payment: its state machine and its amounts."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from markethall.payments.contract import (
    AmountExceedsDue,
    InvalidPaymentTransition,
    NextAction,
    PaymentInProgress,
    PaymentStatus,
    RefundExceedsCaptured,
)
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.money import Money

S = PaymentStatus


class PaymentCommand(StrEnum):
    CONFIRM = "confirm"
    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    CAPTURE_LATE = "capture_late"
    FAIL = "fail"
    REQUIRE_ACTION = "require_action"
    MARK_UNKNOWN = "mark_unknown"
    CANCEL = "cancel"
    EXPIRE = "expire"
    VOID = "void"


C = PaymentCommand

_PAYABLE_TRANSITIONS = {C.CONFIRM: S.PROCESSING, C.CANCEL: S.CANCELLED, C.EXPIRE: S.EXPIRED}
# a charge that was recorded as failed has succeeded at the provider after all; if the order was
# cancelled or has expired, the context orders reinstates the order or refunds the money
_LATE_TRANSITIONS = {C.CAPTURE_LATE: S.CAPTURED}
_OUTCOME_TRANSITIONS = {
    C.AUTHORIZE: S.AUTHORIZED,
    C.CAPTURE: S.CAPTURED,
    C.FAIL: S.FAILED,
    C.REQUIRE_ACTION: S.REQUIRES_ACTION,
}
# status -> command -> next status; a status rejects the commands that it does not list
TRANSITIONS: dict[PaymentStatus, dict[PaymentCommand, PaymentStatus]] = {
    S.CREATED: _PAYABLE_TRANSITIONS,
    S.REQUIRES_ACTION: _PAYABLE_TRANSITIONS | _LATE_TRANSITIONS,
    S.FAILED: _PAYABLE_TRANSITIONS | _LATE_TRANSITIONS,
    S.PROCESSING: _OUTCOME_TRANSITIONS | {C.MARK_UNKNOWN: S.UNKNOWN},
    S.UNKNOWN: _OUTCOME_TRANSITIONS,
    S.AUTHORIZED: {C.CAPTURE: S.CAPTURED, C.VOID: S.VOIDED, C.EXPIRE: S.EXPIRED},
    S.CAPTURED: {},
    S.VOIDED: {},
    S.CANCELLED: _LATE_TRANSITIONS,
    S.EXPIRED: _LATE_TRANSITIONS,
}
# statuses in which the customer can confirm the payment
PAYABLE_STATUSES = frozenset(status for status, row in TRANSITIONS.items() if C.CONFIRM in row)
# the longest time from the opening of a payment to its expiry; the reservation of the stock has a
# maximum duration too (MAX_EXTENDED_DURATION of inventory), which is one day longer, so that the
# stock is still reserved when the customer pays
MAX_LIFETIME: Final = timedelta(days=90)
# Retry-After header of PaymentInProgress, in seconds
IN_PROGRESS_RETRY_SECONDS = {S.PROCESSING: 1, S.UNKNOWN: 5}
_ENDED_UNPAID_STATUSES = frozenset({S.VOIDED, S.CANCELLED, S.EXPIRED})


@dataclass
class Payment:
    """A payment. Amounts are in minor units of one currency.

    `refunding` is the sum of the refunds in progress. `charge_id` is the operation that captured
    the payment. `provider` is the provider of the latest charge; once money was received, it is the
    provider of the operation `charge_id`. A payment cannot be confirmed before it is activated,
    because the transaction that stores its order may still fail.
    """

    payment_id: UUID
    order_id: UUID
    user_id: UUID
    currency: str
    amount: int
    expires_at: datetime
    created_at: datetime
    provider: str
    status: PaymentStatus = S.CREATED
    authorized: int = 0
    captured: int = 0
    refunded: int = 0
    refunding: int = 0
    failure_code: str | None = None
    next_action: NextAction | None = None
    charge_id: UUID | None = None
    is_activated: bool = False
    version: int = 1

    @property
    def refundable(self) -> int:
        return self.captured - self.refunded - self.refunding

    @property
    def is_in_progress(self) -> bool:
        """Tell whether the outcome of a charge is not known yet."""
        return self.status in IN_PROGRESS_RETRY_SECONDS

    @property
    def has_money_after_end(self) -> bool:
        """Tell whether the shop has money of a payment that was voided, cancelled or has expired.

        Money that is refunded, or whose refund is in progress, does not count.
        """
        return self.status in _ENDED_UNPAID_STATUSES and self.refundable > 0

    def confirm(self, now: datetime, provider: str) -> None:
        """Start a charge. Raises PaymentInProgress, InvalidPaymentTransition."""
        self._check_not_in_progress()
        if self.status in PAYABLE_STATUSES and now >= self.expires_at:
            raise _invalid_transition(S.EXPIRED)
        self._check_nothing_received()
        self._transition(C.CONFIRM)
        self.provider = provider
        self.failure_code = self.next_action = None

    def capture(self, charge_id: UUID) -> None:
        self._capture(C.CAPTURE, charge_id)

    def capture_late(self, charge_id: UUID, provider: str) -> None:
        """Record the success of a charge that had failed or had required an action of the customer.

        Raises PaymentInProgress, InvalidPaymentTransition.
        """
        self._check_not_in_progress()
        self._capture(C.CAPTURE_LATE, charge_id)
        self.provider = provider

    def receive(self, charge_id: UUID, provider: str, amount: Money) -> None:
        """Record money that arrived outside of the shop, for example by bank transfer.

        The payment is captured when the received money minus the refunds reaches the amount of the
        payment. A refund in progress counts as a refund.
        `charge_id` is the charge that gave the customer the instructions to pay.
        Raises PaymentInProgress, InvalidPaymentTransition, AmountExceedsDue, CurrencyMismatch.
        """
        self._check_not_in_progress()
        if C.CAPTURE_LATE not in TRANSITIONS[self.status]:
            raise _invalid_transition(self.status)
        due = self.money(self.amount - self.captured)
        if (due - amount).amount < 0:
            raise AmountExceedsDue(requested=amount.model_dump(), due=due.model_dump())
        self.captured += amount.amount
        self.authorized, self.charge_id, self.provider = self.captured, charge_id, provider
        if self.refundable < self.amount:
            self.version += 1
            return
        self._transition(C.CAPTURE_LATE)
        self.failure_code = self.next_action = None

    def _capture(self, command: PaymentCommand, charge_id: UUID) -> None:
        self._check_nothing_received()
        self._transition(command)
        self.failure_code = self.next_action = None
        self.charge_id = charge_id
        self.authorized = self.captured = self.amount

    def fail(self, code: str) -> None:
        self._transition(C.FAIL)
        self.failure_code = code

    def require_action(self, next_action: NextAction, expires_at: datetime | None = None) -> None:
        """Wait for an action of the customer. A later `expires_at` replaces that of the payment.

        The payment expires at most MAX_LIFETIME after it was opened, however often the customer
        confirms it, because its stock is reserved for little more than MAX_LIFETIME.
        """
        self._transition(C.REQUIRE_ACTION)
        self.next_action = next_action
        latest = min(expires_at or self.expires_at, self.created_at + MAX_LIFETIME)
        self.expires_at = max(self.expires_at, latest)

    def mark_unknown(self) -> None:
        """Record that the provider did not answer."""
        if self.status is not S.UNKNOWN:
            self._transition(C.MARK_UNKNOWN)

    def cancel(self) -> bool:
        """Cancel the payment. Return False when it is voided, cancelled or expired already.

        Raises PaymentInProgress, InvalidPaymentTransition.
        """
        self._check_not_in_progress()
        if self.status in _ENDED_UNPAID_STATUSES:
            return False
        self._transition(C.CANCEL)
        return True

    def expire(self) -> None:
        self._transition(C.EXPIRE)

    def reserve_refund(self, requested_amount: Money | None) -> int:
        """Reserve an amount for a refund and return it; None reserves all that is refundable.

        Raises InvalidPaymentTransition, RefundExceedsCaptured, CurrencyMismatch, ValidationFailed.
        """
        if self.status is not S.CAPTURED and not self.has_money_after_end:
            raise _invalid_transition(self.status)
        amount = self._resolve_refund_amount(requested_amount)
        self.refunding += amount
        self.version += 1
        return amount

    def complete_refund(self, amount: int) -> None:
        self.refunding -= amount
        self.refunded += amount
        self.version += 1

    def mark_refund_unknown(self) -> None:
        """Record that the provider did not answer a refund. The amount stays reserved."""
        self.version += 1

    def correct_failure(self, code: str) -> None:
        """Record that the required action of the customer has failed."""
        self.status, self.failure_code, self.next_action = S.FAILED, code, None
        self.version += 1

    def correct_refund(self, amount: int) -> None:
        """Record the success of a refund that was recorded as failed.

        Raises RefundExceedsCaptured if the captured amount does not cover the refund any more.
        """
        self.refunded += self._resolve_refund_amount(self.money(amount))
        self.version += 1

    def fail_refund(self, amount: int) -> None:
        self.refunding -= amount
        self.version += 1

    def money(self, amount: int) -> Money:
        return Money(amount=amount, currency=self.currency)

    def _transition(self, command: PaymentCommand) -> None:
        to = TRANSITIONS[self.status].get(command)
        if to is None:
            raise _invalid_transition(self.status)
        self.status = to
        self.version += 1

    def _check_nothing_received(self) -> None:
        """Raise InvalidPaymentTransition if a part of the amount was received.

        A charge always takes the whole amount, so the customer would pay too much.
        """
        if self.captured and self.status is not S.CAPTURED:
            raise InvalidPaymentTransition(
                "A part of the payment is paid.", status=self.status.value, allowed=[]
            )

    def _check_not_in_progress(self) -> None:
        if self.status in IN_PROGRESS_RETRY_SECONDS:
            raise PaymentInProgress(retry_after=IN_PROGRESS_RETRY_SECONDS[self.status])

    def _resolve_refund_amount(self, requested_amount: Money | None) -> int:
        refundable = self.money(self.refundable)
        amount = (
            refundable.amount
            if requested_amount is None
            else (requested_amount - self.money(0)).amount
        )
        if requested_amount is not None and amount <= 0:
            raise ValidationFailed(errors=[_NOT_POSITIVE_ERROR])
        if amount > refundable.amount or not amount:
            requested = requested_amount or self.money(self.captured)
            raise RefundExceedsCaptured(
                requested=requested.model_dump(), refundable=refundable.model_dump()
            )
        return amount


_NOT_POSITIVE_ERROR = {
    "field": "/amount/amount",
    "code": "greater_than",
    "message": "must be greater than 0",
}


def _invalid_transition(status: PaymentStatus) -> InvalidPaymentTransition:
    return InvalidPaymentTransition(
        f"The payment is {status.value}.",
        status=status.value,
        allowed=sorted(TRANSITIONS[status].keys() - _LATE_TRANSITIONS.keys()),
    )
