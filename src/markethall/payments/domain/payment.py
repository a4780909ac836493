"""The payment: its state machine and its amounts."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from markethall.payments.contract.api import NextAction, PaymentDispute
from markethall.payments.contract.errors import (
    AmountExceedsDue,
    CaptureExceedsAuthorized,
    InvalidPaymentTransition,
    PaymentInProgress,
    RefundExceedsCaptured,
)
from markethall.payments.contract.statuses import PaymentStatus
from markethall.payments.domain.payment_transitions import (
    ENDED_UNPAID_STATUSES,
    PAYABLE_STATUSES,
    TRANSITIONS,
    PaymentCommand,
    invalid_transition,
    resolve_amount,
)
from markethall.shared.kernel.money import Money

S, C = PaymentStatus, PaymentCommand

# the longest time from the opening of a payment to its expiry; the reservation of the stock has a
# maximum duration too (MAX_EXTENDED_DURATION of inventory), which is one day longer, so that the
# stock is still reserved when the customer pays
MAX_LIFETIME: Final = timedelta(days=90)
# Retry-After header of PaymentInProgress, in seconds
_IN_PROGRESS_RETRY_SECONDS = {S.PROCESSING: 1, S.UNKNOWN: 5}
OPEN_CHANGE_RETRY_SECONDS: Final = 5


@dataclass
class Payment:
    """A payment. Amounts are in minor units of one currency.

    `authorized` - `captured` is the amount that can still be captured. `refunding` is the sum of
    the refunds in progress. `charge_id` is the operation that captured or authorized the payment.
    `open_change_id` is the capture or void whose outcome is not known yet; there is at most one,
    so that captures, voids and the expiry take effect one after the other. `provider` is the
    provider of the latest charge; once money was received, it is the provider of the operation
    `charge_id`. While the payment is authorized, `expires_at` is the end of the authorization. A
    payment cannot be confirmed before it is activated, because the transaction that stores its
    order may still fail.
    """

    payment_id: UUID
    order_id: UUID
    user_id: UUID
    currency: str
    amount: int
    expires_at: datetime
    created_at: datetime
    provider: str
    country: str | None = None
    # the cancelled payment of the same order that this one replaces
    replaces: UUID | None = None
    is_additional: bool = False
    status: PaymentStatus = S.CREATED
    authorized: int = 0
    captured: int = 0
    refunded: int = 0
    refunding: int = 0
    failure_code: str | None = None
    next_action: NextAction | None = None
    charge_id: UUID | None = None
    open_change_id: UUID | None = None
    dispute: PaymentDispute | None = None
    is_activated: bool = False
    version: int = 1

    @property
    def refundable(self) -> int:
        return self.captured - self.refunded - self.refunding

    @property
    def is_in_progress(self) -> bool:
        """Tell whether the outcome of a charge is not known yet."""
        return self.status in _IN_PROGRESS_RETRY_SECONDS

    @property
    def capturable(self) -> int:
        return self.authorized - self.captured if self.status is S.AUTHORIZED else 0

    def has_overdue_authorization(self, now: datetime) -> bool:
        is_overdue = self.status is S.AUTHORIZED and now >= self.expires_at
        return is_overdue and self.open_change_id is None

    @property
    def has_money_after_end(self) -> bool:
        """Tell whether the shop has money of a payment that was voided, cancelled or has expired.

        Money that is refunded, or whose refund is in progress, does not count.
        """
        return self.status in ENDED_UNPAID_STATUSES and self.refundable > 0

    def change_owner(self, user_id: UUID) -> None:
        """Change the owner from the guest to the user who has claimed the guest."""
        self.user_id = user_id
        self.version += 1

    def confirm(self, now: datetime, provider: str) -> None:
        """Start a charge. Raises PaymentInProgress, InvalidPaymentTransition."""
        self._check_not_in_progress()
        if self.status in PAYABLE_STATUSES and now >= self.expires_at:
            raise invalid_transition(S.EXPIRED)
        self._check_nothing_received()
        self._transition(C.CONFIRM)
        self.provider = provider
        self.failure_code = self.next_action = None

    def authorize(self, charge_id: UUID, expires_at: datetime) -> None:
        """Record an authorization of the whole amount. It can be captured until `expires_at`."""
        self._authorize(C.AUTHORIZE, charge_id, expires_at)

    def authorize_late(self, charge_id: UUID, provider: str, expires_at: datetime) -> None:
        """Record the success of an authorization that had failed or had required an action.

        Raises PaymentInProgress, InvalidPaymentTransition.
        """
        self._check_not_in_progress()
        self._authorize(C.AUTHORIZE_LATE, charge_id, expires_at)
        self.provider = provider

    def start_capture(self, capture_id: UUID, requested: Money | None, now: datetime) -> int:
        """Start to capture an amount and return it; None captures the uncaptured rest.

        Raises PaymentInProgress, InvalidPaymentTransition, CaptureExceedsAuthorized,
        CurrencyMismatch, ValidationFailed.
        """
        self.check_capturable(now)
        amount = resolve_amount(requested, self.money(self.capturable))
        if amount > self.capturable or not amount:
            raise CaptureExceedsAuthorized(
                requested=self.money(amount).model_dump(),
                capturable=self.money(self.capturable).model_dump(),
            )
        self._start_change(capture_id)
        return amount

    def check_capturable(self, now: datetime) -> None:
        """Raises PaymentInProgress, InvalidPaymentTransition."""
        self._check_can_change()
        if now >= self.expires_at:
            raise invalid_transition(S.EXPIRED)

    def start_void(self, void_id: UUID) -> int:
        """Start to release the uncaptured amount, and return it.

        Raises PaymentInProgress, InvalidPaymentTransition.
        """
        self._check_can_change()
        self._start_change(void_id)
        return self.capturable

    def complete_capture(self, amount: int, *, is_final: bool) -> None:
        """Record the success of a capture.

        The last capture is the final one, or the one that completes the authorized amount.
        """
        self.open_change_id = self.failure_code = None
        is_last = is_final or amount == self.capturable
        self._transition(C.CAPTURE if is_last else C.CAPTURE_PART)
        self.captured += amount
        if is_last:
            self.authorized = self.captured

    def correct_capture(self, amount: int, *, is_final: bool) -> None:
        """Record the success of a capture that was recorded as failed.

        Raises PaymentInProgress, InvalidPaymentTransition.
        """
        self._check_not_in_progress()
        if self.status is S.AUTHORIZED and amount <= self.capturable:
            self.complete_capture(amount, is_final=is_final)
            return
        if self.status not in {S.VOIDED, S.EXPIRED} or self.captured + amount > self.amount:
            raise invalid_transition(self.status)
        self._transition(C.CAPTURE_LATE)
        self.captured += amount
        self.authorized = self.captured

    def complete_void(self) -> None:
        """Record that the provider has released the uncaptured amount."""
        self.open_change_id = self.failure_code = None
        self._end_authorization(C.VOID)

    def fail_change(self, code: str) -> None:
        """Record that the provider rejected a capture or void. The authorization stays."""
        self.open_change_id, self.failure_code = None, code
        self.version += 1

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
            raise invalid_transition(self.status)
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

    def _authorize(self, command: PaymentCommand, charge_id: UUID, expires_at: datetime) -> None:
        self._check_nothing_received()
        self._transition(command)
        self.failure_code = self.next_action = None
        self.charge_id, self.authorized = charge_id, self.amount
        self.expires_at = expires_at

    def _check_can_change(self) -> None:
        self._check_not_in_progress()
        if self.status is not S.AUTHORIZED:
            raise invalid_transition(self.status)

    def _start_change(self, operation_id: UUID) -> None:
        self.open_change_id = operation_id
        self.version += 1

    def _end_authorization(self, command: PaymentCommand) -> None:
        """End the authorization. The payment is captured if a part of the amount is captured."""
        self._transition(C.RELEASE if self.captured else command)
        self.authorized = self.captured

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
        if self.status in ENDED_UNPAID_STATUSES:
            return False
        self._transition(C.CANCEL)
        return True

    def expire(self) -> None:
        """Expire the payment, or its authorization.

        Raises PaymentInProgress, InvalidPaymentTransition.
        """
        if self.status is S.AUTHORIZED:
            self._check_not_in_progress()
            self._end_authorization(C.EXPIRE)
        else:
            self._transition(C.EXPIRE)

    def reserve_refund(self, requested_amount: Money | None) -> int:
        """Reserve an amount for a refund and return it; None reserves the whole refundable amount.

        Raises InvalidPaymentTransition, RefundExceedsCaptured, CurrencyMismatch, ValidationFailed.
        """
        has_captures = self.status is S.AUTHORIZED and self.captured > 0
        if self.status is not S.CAPTURED and not has_captures and not self.has_money_after_end:
            raise invalid_transition(self.status)
        amount = self._resolve_refund_amount(requested_amount)
        self.refunding += amount
        self.version += 1
        return amount

    def complete_refund(self, amount: int) -> None:
        self.refunding -= amount
        self.refunded += amount
        self.version += 1

    def await_outcome(self) -> None:
        """Record that the provider did not answer a capture, void or refund.

        No other capture or void may start; the amount of a refund stays reserved.
        """
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

    def update_dispute(self, dispute: PaymentDispute) -> bool:
        """Record the state of a dispute. Return False if nothing changes.

        A payment shows its latest dispute, so an older one does not replace it.
        """
        known = self.dispute
        is_other = known and known.provider_reference != dispute.provider_reference
        if known == dispute or (known and is_other and known.opened_at > dispute.opened_at):
            return False
        self.dispute = dispute
        self.version += 1
        return True

    def money(self, amount: int) -> Money:
        return Money(amount=amount, currency=self.currency)

    def _transition(self, command: PaymentCommand) -> None:
        to = TRANSITIONS[self.status].get(command)
        if to is None:
            raise invalid_transition(self.status)
        self.status = to
        self.version += 1

    def _check_nothing_received(self) -> None:
        """Raise InvalidPaymentTransition if a charge has succeeded or a part of the amount arrived.

        A charge always takes the whole amount, so the customer would pay too much. An authorization
        that was voided or has expired counts as a charge that has succeeded.
        """
        if self.charge_id and self.status not in {S.AUTHORIZED, S.CAPTURED}:
            reason = (
                "A part of the payment is paid." if self.captured else "A charge has succeeded."
            )
            raise InvalidPaymentTransition(reason, status=self.status.value, allowed=[])

    def _check_not_in_progress(self) -> None:
        if self.status in _IN_PROGRESS_RETRY_SECONDS:
            raise PaymentInProgress(retry_after=_IN_PROGRESS_RETRY_SECONDS[self.status])
        if self.open_change_id:
            raise PaymentInProgress(retry_after=OPEN_CHANGE_RETRY_SECONDS)

    def _resolve_refund_amount(self, requested_amount: Money | None) -> int:
        refundable = self.money(self.refundable)
        amount = resolve_amount(requested_amount, refundable)
        if amount > refundable.amount or not amount:
            requested = requested_amount or self.money(self.captured)
            raise RefundExceedsCaptured(
                requested=requested.model_dump(), refundable=refundable.model_dump()
            )
        return amount
