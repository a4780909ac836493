"""The rules that a stored ledger must fulfil. A row that breaks one is a finding."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

from markethall.payments.contract.ledger import LedgerFinding
from markethall.payments.contract.statuses import LedgerProblem, PostingKind
from markethall.payments.domain.ledger import Posting, postings_of
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.posting_chain import (
    GENESIS_HASH,
    ChainPosition,
    RecordedPosting,
    hash_posting,
)


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
