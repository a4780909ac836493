"""A payment, the calls of its provider, and the ledger of what has moved."""

from markethall.payments.domain.ledger import (
    CUSTOMER_PAYMENTS,
    Posting,
    account_kind,
    posting_of,
)
from markethall.payments.domain.operation import (
    ActionRequired,
    Failed,
    Operation,
    Outcome,
    Succeeded,
)
from markethall.payments.domain.payment import PAYABLE, TRANSITIONS, Command, Payment
from markethall.payments.domain.settling import ACTION_REQUIRED, Settled, settle

__all__ = [
    "ACTION_REQUIRED",
    "CUSTOMER_PAYMENTS",
    "PAYABLE",
    "TRANSITIONS",
    "ActionRequired",
    "Command",
    "Failed",
    "Operation",
    "Outcome",
    "Payment",
    "Posting",
    "Settled",
    "Succeeded",
    "account_kind",
    "posting_of",
    "settle",
]
