"""The double-entry ledger of captures and refunds. Postings are added, never changed."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from markethall.payments.contract import LedgerAccountKind, PostingKind
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.payment import Payment

# a liability account; the asset accounts are named "provider:<provider name>"
CUSTOMER_PAYMENTS_ACCOUNT = "customers:payments"


def account_kind(account: str) -> LedgerAccountKind:
    return (
        LedgerAccountKind.LIABILITY
        if account == CUSTOMER_PAYMENTS_ACCOUNT
        else LedgerAccountKind.ASSET
    )


@dataclass(frozen=True)
class Posting:
    """A posting to the ledger. Its entries (account, amount) sum to zero.

    Amounts are in minor units of `currency`: positive for a debit, negative for a credit.
    """

    posting_id: UUID
    payment_id: UUID
    operation_id: UUID
    kind: PostingKind
    currency: str
    entries: tuple[tuple[str, int], ...]
    created_at: datetime

    def __post_init__(self) -> None:
        if not self.entries or sum(amount for _, amount in self.entries) != 0:
            raise ValueError("the entries of a posting must sum to zero")


def build_posting(
    payment: Payment, operation: Operation, kind: PostingKind, posting_id: UUID, now: datetime
) -> Posting:
    amount = operation.amount if kind is PostingKind.CAPTURE else -operation.amount
    return Posting(
        posting_id=posting_id,
        payment_id=payment.payment_id,
        operation_id=operation.operation_id,
        kind=kind,
        currency=payment.currency,
        entries=((f"provider:{payment.provider}", amount), (CUSTOMER_PAYMENTS_ACCOUNT, -amount)),
        created_at=now,
    )
