"""Payments, their operations at the provider, and the ledger."""

from markethall.payments.domain.ledger import (
    CUSTOMER_PAYMENTS_ACCOUNT,
    Posting,
    account_kind,
    build_posting,
)
from markethall.payments.domain.operation import (
    FREE_METHOD,
    ActionRequired,
    Failed,
    Operation,
    Outcome,
    Succeeded,
)
from markethall.payments.domain.outcomes import (
    ACTION_REQUIRED,
    CHARGE_KINDS,
    OutcomeEffects,
    captured_event,
    contradicts,
    correct_operation,
    ended_event,
    settle_operation,
    status_changed_event,
)
from markethall.payments.domain.payment import Payment
from markethall.payments.domain.payment_transitions import (
    PAYABLE_STATUSES,
    TRANSITIONS,
    PaymentCommand,
)

__all__ = [
    "ACTION_REQUIRED",
    "CHARGE_KINDS",
    "CUSTOMER_PAYMENTS_ACCOUNT",
    "FREE_METHOD",
    "PAYABLE_STATUSES",
    "TRANSITIONS",
    "ActionRequired",
    "Failed",
    "Operation",
    "Outcome",
    "OutcomeEffects",
    "Payment",
    "PaymentCommand",
    "Posting",
    "Succeeded",
    "account_kind",
    "build_posting",
    "captured_event",
    "contradicts",
    "correct_operation",
    "ended_event",
    "settle_operation",
    "status_changed_event",
]
