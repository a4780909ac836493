"""The ledger: where the money is. It is only ever added to."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from markethall.payments import contract
from markethall.payments.contract import LedgerAccountKind, PostingKind
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.payment import Payment
from markethall.shared.kernel.money import Money

# what the customers have paid us; what a provider holds for us is "provider:<its name>"
CUSTOMER_PAYMENTS_ACCOUNT = "customers:payments"


def account_kind(account: str) -> LedgerAccountKind:
    return (
        LedgerAccountKind.LIABILITY
        if account == CUSTOMER_PAYMENTS_ACCOUNT
        else LedgerAccountKind.ASSET
    )


@dataclass(frozen=True)
class Posting:
    """Double entry: the entries (account, amount) sum to zero; a debit is positive."""

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

    def to_view(self) -> contract.PostingView:
        return contract.PostingView(
            posting_id=self.posting_id,
            payment_id=self.payment_id,
            operation_id=self.operation_id,
            kind=self.kind,
            entries=tuple(
                contract.PostingEntryView(
                    account=account, amount=Money(amount=amount, currency=self.currency)
                )
                for account, amount in self.entries
            ),
            created_at=self.created_at,
        )


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
