"""Payments, their operations at the provider, and the ledger."""

from markethall.payments.domain.ledger import (
    CUSTOMER_PAYMENTS_ACCOUNT,
    Posting,
    account_kind,
    fee_postings_of,
    postings_of,
)
from markethall.payments.domain.ledger_checks import ChainCheck, compare_with_operations
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
    dispute_changed_event,
    ended_event,
    settle_operation,
    status_changed_event,
)
from markethall.payments.domain.payment import OPEN_CHANGE_RETRY_SECONDS, Payment
from markethall.payments.domain.payment_transitions import (
    ENDED_UNPAID_STATUSES,
    PAYABLE_STATUSES,
    TRANSITIONS,
    PaymentCommand,
)
from markethall.payments.domain.posting_chain import (
    CHAIN_COUNT,
    GENESIS_HASH,
    ChainPosition,
    RecordedPosting,
    canonical_content,
    chain_of,
    hash_posting,
    next_position,
)
from markethall.payments.domain.saved_method import MethodDetails, ProviderCustomer, SavedMethod

__all__ = [
    "ACTION_REQUIRED",
    "CHAIN_COUNT",
    "CHARGE_KINDS",
    "CUSTOMER_PAYMENTS_ACCOUNT",
    "ENDED_UNPAID_STATUSES",
    "FREE_METHOD",
    "GENESIS_HASH",
    "OPEN_CHANGE_RETRY_SECONDS",
    "PAYABLE_STATUSES",
    "TRANSITIONS",
    "ActionRequired",
    "ChainCheck",
    "ChainPosition",
    "Failed",
    "MethodDetails",
    "Operation",
    "Outcome",
    "OutcomeEffects",
    "Payment",
    "PaymentCommand",
    "Posting",
    "ProviderCustomer",
    "RecordedPosting",
    "SavedMethod",
    "Succeeded",
    "account_kind",
    "canonical_content",
    "captured_event",
    "chain_of",
    "compare_with_operations",
    "contradicts",
    "correct_operation",
    "dispute_changed_event",
    "ended_event",
    "fee_postings_of",
    "hash_posting",
    "next_position",
    "postings_of",
    "settle_operation",
    "status_changed_event",
]
