"""The double-entry ledger. Postings are added, never changed.

Every posting follows from its operation: `postings_of` derives all its fields. So the ledger can be
built again from the operations, and the two can be compared.

Each posting belongs to one of CHAIN_COUNT chains and has the next sequence number of its chain. Its
hash is the SHA-256 of the previous hash and of its own content, which shows that a posting was
changed, removed or inserted. There are several chains, because the postings of one chain wait for
each other: the head of the chain is locked until the commit.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from markethall.payments.contract.ledger import LedgerFinding
from markethall.payments.contract.statuses import (
    LedgerAccountKind,
    LedgerProblem,
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
CHAIN_COUNT: Final = 16
# the previous hash of the first posting of a chain
GENESIS_HASH: Final = bytes(32)


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


@dataclass(frozen=True)
class ChainPosition:
    """The place of a posting in its chain. `sequence` begins with 1 and has no gaps."""

    chain: int
    sequence: int
    hash: bytes


@dataclass(frozen=True)
class RecordedPosting:
    """A posting as it is stored."""

    posting: Posting
    position: ChainPosition


def chain_of(payment_id: UUID) -> int:
    """Return the chain of all postings of a payment."""
    return payment_id.int % CHAIN_COUNT


def next_position(chain: int, head: ChainPosition | None, posting: Posting) -> ChainPosition:
    """Return the position of a posting after the head of its chain; None: the chain is empty."""
    sequence, previous_hash = (head.sequence, head.hash) if head else (0, GENESIS_HASH)
    return ChainPosition(chain, sequence + 1, hash_posting(previous_hash, posting))


def hash_posting(previous_hash: bytes, posting: Posting) -> bytes:
    return hashlib.sha256(previous_hash + canonical_content(posting)).digest()


def canonical_content(posting: Posting) -> bytes:
    """Return the bytes that are hashed: a JSON array of all fields, with the entries by account.

    The format must not change, because the hashes of stored postings depend on it.
    """
    fields = [
        str(posting.posting_id),
        str(posting.payment_id),
        str(posting.operation_id),
        posting.kind.value,
        posting.currency,
        sorted(posting.entries),
        posting.created_at.astimezone(UTC).isoformat(timespec="microseconds"),
    ]
    return json.dumps(fields, separators=(",", ":")).encode()


class ChainCheck:
    """Checks one hash chain. It takes all postings of the chain, by their sequence number."""

    def __init__(self, chain: int, head: ChainPosition | None) -> None:
        self._chain = chain
        self._head = head
        self._sequence = 0
        self._hash = GENESIS_HASH

    def check(self, recorded: RecordedPosting) -> Iterator[LedgerFinding]:
        """Check the next posting. After a wrong hash, the check continues with the stored one.

        So a posting whose content was changed gives one finding. The first posting after a gap has
        an unknown previous hash, so its own hash is not checked.
        """
        position = recorded.position
        if position.sequence > self._sequence + 1:
            yield self._missing()
        elif hash_posting(self._hash, recorded.posting) != position.hash:
            yield _finding(LedgerProblem.HASH_DIFFERS, recorded)
        if not recorded.posting.is_balanced:
            yield _finding(LedgerProblem.UNBALANCED, recorded)
        yield from self._check_against_head(recorded)
        self._sequence, self._hash = position.sequence, position.hash

    def finish(self) -> Iterator[LedgerFinding]:
        """Check that the chain reaches its head."""
        if self._head and self._sequence < self._head.sequence:
            yield self._missing()

    def _check_against_head(self, recorded: RecordedPosting) -> Iterator[LedgerFinding]:
        position, head = recorded.position, self._head
        if head is None or position.sequence > head.sequence:
            yield _finding(LedgerProblem.POSTING_AFTER_HEAD, recorded)
        elif position.sequence == head.sequence and position.hash != head.hash:
            yield _finding(LedgerProblem.HEAD_DIFFERS, recorded)

    def _missing(self) -> LedgerFinding:
        return LedgerFinding(
            problem=LedgerProblem.POSTING_MISSING, chain=self._chain, sequence=self._sequence + 1
        )


def compare_with_operations(
    operations: Iterable[Operation], stored: Iterable[RecordedPosting]
) -> Iterator[LedgerFinding]:
    """Build the postings of the operations again, and compare them with the stored postings."""
    rebuilt = {_key(posting): posting for one in operations for posting in postings_of(one)}
    recorded = {_key(one.posting): one for one in stored}
    for key in sorted(rebuilt.keys() | recorded.keys()):
        if key not in recorded:
            yield _without_posting(rebuilt[key])
        elif key not in rebuilt:
            yield _finding(LedgerProblem.POSTING_WITHOUT_OPERATION, recorded[key])
        elif _sort_entries(rebuilt[key]) != _sort_entries(recorded[key].posting):
            yield _finding(LedgerProblem.DIFFERS_FROM_OPERATION, recorded[key])


def _key(posting: Posting) -> tuple[UUID, PostingKind]:
    return posting.operation_id, posting.kind


def _sort_entries(posting: Posting) -> Posting:
    return replace(posting, entries=tuple(sorted(posting.entries)))


def _without_posting(posting: Posting) -> LedgerFinding:
    return LedgerFinding(problem=LedgerProblem.OPERATION_WITHOUT_POSTING, **_ids_of(posting))


def _finding(problem: LedgerProblem, recorded: RecordedPosting) -> LedgerFinding:
    position = recorded.position
    return LedgerFinding(
        problem=problem,
        chain=position.chain,
        sequence=position.sequence,
        **_ids_of(recorded.posting),
    )


def _ids_of(posting: Posting) -> dict[str, Any]:
    return {
        "posting_id": posting.posting_id,
        "payment_id": posting.payment_id,
        "operation_id": posting.operation_id,
    }
