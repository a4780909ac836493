"""The statuses and kinds of payments, refunds, operations and ledger accounts."""

from enum import StrEnum


class PaymentStatus(StrEnum):
    CREATED = "created"
    PROCESSING = "processing"
    REQUIRES_ACTION = "requires_action"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    FAILED = "failed"
    UNKNOWN = "unknown"
    VOIDED = "voided"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class RefundStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


class OperationKind(StrEnum):
    """Kind of a request to the provider. A charge authorizes and captures in one request."""

    CHARGE = "charge"
    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class OperationStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


class PostingKind(StrEnum):
    CAPTURE = "capture"
    REFUND = "refund"
    # the amount that the provider keeps for an operation
    FEE = "fee"


class LedgerCheck(StrEnum):
    """A part of the verification of the ledger."""

    HASH_CHAINS = "hash_chains"
    PAYMENTS = "payments"
    OPERATIONS = "operations"


class LedgerProblem(StrEnum):
    """Kind of a finding of the verification of the ledger."""

    # this posting, the hash of the posting before it, or the order of the two was changed
    HASH_DIFFERS = "hash_differs"
    # the chain has no posting with this sequence number
    POSTING_MISSING = "posting_missing"
    # the posting was not added by the shop, or the head of the chain was changed
    POSTING_AFTER_HEAD = "posting_after_head"
    # the hash of the last posting differs from that of the head
    HEAD_DIFFERS = "head_differs"
    UNBALANCED = "unbalanced"
    DIFFERS_FROM_OPERATION = "differs_from_operation"
    OPERATION_WITHOUT_POSTING = "operation_without_posting"
    POSTING_WITHOUT_OPERATION = "posting_without_operation"
    # the amounts of the payment differ from its postings
    PAYMENT_DIFFERS = "payment_differs"


class LedgerAccountKind(StrEnum):
    ASSET = "asset"
    LIABILITY = "liability"
    EXPENSE = "expense"
