"""One payment: what it may do next, and how much of it has moved."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from markethall.payments import contract
from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentStatus,
    RefundExceedsCaptured,
)
from markethall.shared.errors import Invalid
from markethall.shared.money import Money

S = PaymentStatus


class Command(StrEnum):
    CONFIRM = "confirm"
    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    FAIL = "fail"
    ASK = "ask"
    LOSE = "lose"
    CANCEL = "cancel"
    EXPIRE = "expire"
    VOID = "void"


C = Command

_PAYABLE = {C.CONFIRM: S.PROCESSING, C.CANCEL: S.CANCELLED, C.EXPIRE: S.EXPIRED}
_ANSWERS = {
    C.AUTHORIZE: S.AUTHORIZED,
    C.CAPTURE: S.CAPTURED,
    C.FAIL: S.FAILED,
    C.ASK: S.REQUIRES_ACTION,
}
# from -> command -> to; what is not here is illegal
TRANSITIONS: dict[PaymentStatus, dict[Command, PaymentStatus]] = {
    S.CREATED: _PAYABLE,
    S.REQUIRES_ACTION: _PAYABLE,
    S.FAILED: _PAYABLE,
    S.PROCESSING: _ANSWERS | {C.LOSE: S.UNKNOWN},
    S.UNKNOWN: _ANSWERS,
    S.AUTHORIZED: {C.CAPTURE: S.CAPTURED, C.VOID: S.VOIDED, C.EXPIRE: S.EXPIRED},
    S.CAPTURED: {},
    S.VOIDED: {},
    S.CANCELLED: {},
    S.EXPIRED: {},
}
# nothing has been charged, and nothing will be unless somebody confirms
PAYABLE = frozenset(status for status, row in TRANSITIONS.items() if row is _PAYABLE)
# the provider is being asked: seconds after which it is worth looking again
DECIDING = {S.PROCESSING: 1, S.UNKNOWN: 5}
_ENDED_UNPAID = frozenset({S.VOIDED, S.CANCELLED, S.EXPIRED})


@dataclass
class Payment:
    """Amounts in minor units of one currency.

    `refunding` is reserved for refunds under way; `charge_id` is the operation that took the money.
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
    next_action: str | None = None
    charge_id: UUID | None = None
    version: int = 1

    @property
    def refundable(self) -> int:
        return self.captured - self.refunded - self.refunding

    def confirm(self, now: datetime) -> None:
        """Raises PaymentInProgress, InvalidPaymentTransition."""
        self._refuse_while_deciding()
        if self.status in PAYABLE and now >= self.expires_at:
            raise _illegal(S.EXPIRED)
        self._move(C.CONFIRM)
        self.failure_code = self.next_action = None

    def capture(self, charge_id: UUID) -> None:
        self._move(C.CAPTURE)
        self.charge_id = charge_id
        self.authorized = self.captured = self.amount

    def fail(self, code: str) -> None:
        self._move(C.FAIL)
        self.failure_code = code

    def ask(self, next_action: str) -> None:
        self._move(C.ASK)
        self.next_action = next_action

    def lose(self) -> None:
        """The provider gave no answer."""
        if self.status is not S.UNKNOWN:
            self._move(C.LOSE)

    def cancel(self) -> bool:
        """False when it has ended unpaid already.

        Raises PaymentInProgress, InvalidPaymentTransition.
        """
        self._refuse_while_deciding()
        if self.status in _ENDED_UNPAID:
            return False
        self._move(C.CANCEL)
        return True

    def expire(self) -> None:
        self._move(C.EXPIRE)

    def reserve_refund(self, wanted: Money | None) -> int:
        """The amount. Raises InvalidPaymentTransition, RefundExceedsCaptured, CurrencyMismatch."""
        if self.status is not S.CAPTURED:
            raise _illegal(self.status)
        amount = self._refund_of(wanted)
        self.refunding += amount
        self.version += 1
        return amount

    def refund_succeeded(self, amount: int) -> None:
        self.refunding -= amount
        self.refunded += amount
        self.version += 1

    def refund_lost(self) -> None:
        """No answer: the amount stays reserved."""
        self.version += 1

    def refund_failed(self, amount: int) -> None:
        self.refunding -= amount
        self.version += 1

    def money(self, amount: int) -> Money:
        return Money(amount=amount, currency=self.currency)

    def view(self) -> contract.Payment:
        return contract.Payment(
            payment_id=self.payment_id,
            order_id=self.order_id,
            user_id=self.user_id,
            status=self.status,
            amount=self.money(self.amount),
            authorized=self.money(self.authorized),
            captured=self.money(self.captured),
            refunded=self.money(self.refunded),
            provider=self.provider,
            failure_code=self.failure_code,
            next_action=self.next_action,
            expires_at=self.expires_at,
            created_at=self.created_at,
            version=self.version,
        )

    def _move(self, command: Command) -> None:
        to = TRANSITIONS[self.status].get(command)
        if to is None:
            raise _illegal(self.status)
        self.status = to
        self.version += 1

    def _refuse_while_deciding(self) -> None:
        if self.status in DECIDING:
            raise PaymentInProgress(retry_after=DECIDING[self.status])

    def _refund_of(self, wanted: Money | None) -> int:
        left = self.money(self.refundable)
        amount = left.amount if wanted is None else (wanted - self.money(0)).amount
        if wanted is not None and amount <= 0:
            raise Invalid(errors=[_NOT_POSITIVE])
        if amount > left.amount or not amount:
            requested = wanted or self.money(self.captured)
            raise RefundExceedsCaptured(
                requested=requested.model_dump(), refundable=left.model_dump()
            )
        return amount


_NOT_POSITIVE = {
    "field": "/amount/amount",
    "code": "greater_than",
    "message": "must be greater than 0",
}


def _illegal(status: PaymentStatus) -> InvalidPaymentTransition:
    return InvalidPaymentTransition(
        f"The payment is {status.value}.", status=status.value, allowed=sorted(TRANSITIONS[status])
    )
