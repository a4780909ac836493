"""The double-entry ledger. Postings are added, never changed.

Every posting follows from its operation: `postings_of` derives all its fields. So the ledger can be
built again from the operations, and the two can be compared.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.payments.contract.statuses import (
    LedgerAccountKind,
    OperationKind,
    OperationStatus,
    PostingKind,
)
from markethall.payments.domain.operation import Operation
from markethall.shared.kernel.ids import derive_uuid7

# The liability account has a fixed name. The names of the other accounts are a prefix and the name
# of the provider.
CUSTOMER_PAYMENTS_ACCOUNT: Final = "customers:payments"
_PROVIDER_PREFIX: Final = "provider:"
_FEES_PREFIX: Final = "fees:"

# the operations that move money; an authorization and a void move none
_POSTING_KINDS: Final = {
    OperationKind.CHARGE: PostingKind.CAPTURE,
    OperationKind.CAPTURE: PostingKind.CAPTURE,
    OperationKind.REFUND: PostingKind.REFUND,
}


def account_kind(account: str) -> LedgerAccountKind:
    if account == CUSTOMER_PAYMENTS_ACCOUNT:
        return LedgerAccountKind.LIABILITY
    if account.startswith(_FEES_PREFIX):
        return LedgerAccountKind.EXPENSE
    return LedgerAccountKind.ASSET


@dataclass(frozen=True)
class Posting:
    """A posting to the ledger. Its entries (account, amount) sum to zero.

    Amounts are in minor units of `currency`: positive for a debit, negative for a credit. Storage
    rejects a posting that is not balanced. One that was changed outside of the shop can still be
    read, so that the verification of the ledger can name it.
    """

    posting_id: UUID
    payment_id: UUID
    operation_id: UUID
    kind: PostingKind
    currency: str
    entries: tuple[tuple[str, int], ...]
    created_at: datetime

    @property
    def moved_amount(self) -> int:
        """The sum of its debits."""
        return sum(amount for _, amount in self.entries if amount > 0)

    @property
    def is_balanced(self) -> bool:
        return bool(self.entries) and sum(amount for _, amount in self.entries) == 0


def postings_of(operation: Operation) -> tuple[Posting, ...]:
    """Return the postings of an operation: that of its amount, then that of its fee.

    Only an operation that has succeeded has postings. An amount of zero has no posting.
    """
    if operation.status is not OperationStatus.SUCCEEDED:
        return ()
    return _amount_postings(operation) + fee_postings_of(operation)


def fee_postings_of(operation: Operation) -> tuple[Posting, ...]:
    """Return the posting of the fee, which may be in another currency than the operation."""
    amount, currency = operation.fee_amount, operation.fee_currency
    recorded_at = operation.fee_recorded_at
    if not amount or currency is None or recorded_at is None:
        return ()
    entries = (
        (_FEES_PREFIX + operation.provider, amount),
        (_PROVIDER_PREFIX + operation.provider, -amount),
    )
    return (_build_posting(operation, PostingKind.FEE, currency, entries, recorded_at),)


def _amount_postings(operation: Operation) -> tuple[Posting, ...]:
    kind, settled_at = _POSTING_KINDS.get(operation.kind), operation.settled_at
    if kind is None or settled_at is None or not operation.amount:
        return ()
    amount = -operation.amount if kind is PostingKind.REFUND else operation.amount
    entries = (
        (_PROVIDER_PREFIX + operation.provider, amount),
        (CUSTOMER_PAYMENTS_ACCOUNT, -amount),
    )
    return (_build_posting(operation, kind, operation.currency, entries, settled_at),)


def _build_posting(
    operation: Operation,
    kind: PostingKind,
    currency: str,
    entries: tuple[tuple[str, int], ...],
    created_at: datetime,
) -> Posting:
    return Posting(
        posting_id=derive_uuid7(operation.operation_id, f"posting {kind}"),
        payment_id=operation.payment_id,
        operation_id=operation.operation_id,
        kind=kind,
        currency=currency,
        entries=entries,
        created_at=created_at,
    )
