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


class LedgerAccountKind(StrEnum):
    ASSET = "asset"
    LIABILITY = "liability"
