"""The transitions of a payment, and the checks of its commands."""

from enum import StrEnum

from markethall.payments.contract.errors import InvalidPaymentTransition
from markethall.payments.contract.statuses import PaymentStatus
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.money import Money

S = PaymentStatus


class PaymentCommand(StrEnum):
    CONFIRM = "confirm"
    AUTHORIZE = "authorize"
    AUTHORIZE_LATE = "authorize_late"
    CAPTURE = "capture"
    CAPTURE_PART = "capture_part"
    CAPTURE_LATE = "capture_late"
    FAIL = "fail"
    REQUIRE_ACTION = "require_action"
    MARK_UNKNOWN = "mark_unknown"
    CANCEL = "cancel"
    EXPIRE = "expire"
    VOID = "void"
    RELEASE = "release"


C = PaymentCommand

_PAYABLE_TRANSITIONS = {C.CONFIRM: S.PROCESSING, C.CANCEL: S.CANCELLED, C.EXPIRE: S.EXPIRED}
# a charge or authorization that was recorded as failed has succeeded at the provider after all; if
# the order was cancelled or has expired, the context orders reinstates the order, or refunds or
# voids the payment
_LATE_TRANSITIONS = {C.CAPTURE_LATE: S.CAPTURED, C.AUTHORIZE_LATE: S.AUTHORIZED}
# a capture of a part, and the end of an authorization of which a part is captured
_PART_TRANSITIONS = {C.CAPTURE_PART: S.AUTHORIZED, C.RELEASE: S.CAPTURED}
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
    S.AUTHORIZED: {
        C.CAPTURE: S.CAPTURED,
        C.VOID: S.VOIDED,
        C.EXPIRE: S.EXPIRED,
        **_PART_TRANSITIONS,
    },
    S.CAPTURED: {},
    S.VOIDED: {C.CAPTURE_LATE: S.CAPTURED},
    S.CANCELLED: _LATE_TRANSITIONS,
    S.EXPIRED: _LATE_TRANSITIONS,
}
# statuses in which the customer can confirm the payment
PAYABLE_STATUSES = frozenset(status for status, row in TRANSITIONS.items() if C.CONFIRM in row)
ENDED_UNPAID_STATUSES = frozenset({S.VOIDED, S.CANCELLED, S.EXPIRED})


def invalid_transition(status: PaymentStatus) -> InvalidPaymentTransition:
    """Return the error for a command that the status does not allow."""
    return InvalidPaymentTransition(
        f"The payment is {status.value}.",
        status=status.value,
        allowed=sorted(
            TRANSITIONS[status].keys() - _LATE_TRANSITIONS.keys() - _PART_TRANSITIONS.keys()
        ),
    )


def resolve_amount(requested: Money | None, available: Money) -> int:
    """Return the requested amount, or the whole available amount for None.

    Raises CurrencyMismatch, ValidationFailed.
    """
    if requested is None:
        return available.amount
    amount = (requested - Money(amount=0, currency=available.currency)).amount
    if amount <= 0:
        errors = [
            {"field": "/amount/amount", "code": "greater_than", "message": "must be greater than 0"}
        ]
        raise ValidationFailed(errors=errors)
    return amount
