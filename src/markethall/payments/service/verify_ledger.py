"""Verify the ledger: sums, hash chains, amounts of payments, and a comparison with the operations.

The ledger is read in pages, each in one short statement, so that a large ledger holds no connection
for long. The shop may add postings meanwhile. A chain is checked up to the end that it had at the
beginning; a difference to an operation counts only if a second look finds it too.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, TypeVar
from uuid import UUID

from markethall.payments.contract.ledger import LedgerChainHead, LedgerFinding, LedgerReport
from markethall.payments.contract.statuses import LedgerCheck, LedgerProblem
from markethall.payments.domain.ledger import (
    ChainCheck,
    ChainPosition,
    RecordedPosting,
    compare_with_operations,
)
from markethall.payments.ports import ReadStore, Store, StoredChain
from markethall.shared.persistence.database import Database

T = TypeVar("T")

_PAGE_SIZE: Final = 500
_MAX_LISTED: Final = 100


class VerifyLedger:
    def __init__(self, database: Database[ReadStore, Store]) -> None:
        self._database = database

    async def verify(
        self,
        *,
        rebuild: bool,
        results: "LedgerResults | None" = None,
        max_seconds: float | None = None,
    ) -> LedgerReport:
        """Check the ledger; with `rebuild`, also build it again from the operations.

        The findings are added to `results` as soon as they are found. After `max_seconds`, return
        the findings until then.
        """
        results = results or LedgerResults()
        results.unfinished_checks = [LedgerCheck.HASH_CHAINS, LedgerCheck.PAYMENTS]
        if rebuild:
            results.unfinished_checks.append(LedgerCheck.OPERATIONS)
        async with self._database.read_session() as store:
            chains = await store.list_chains()
        try:
            async with asyncio.timeout(max_seconds) as limit:
                await self._run_checks(chains, results)
        except TimeoutError:
            if not limit.expired():
                raise
        return results.build_report(chains)

    async def _run_checks(self, chains: Sequence[StoredChain], results: "LedgerResults") -> None:
        for check in tuple(results.unfinished_checks):
            match check:
                case LedgerCheck.HASH_CHAINS:
                    for chain in chains:
                        await self._check_chain(chain, results)
                case LedgerCheck.PAYMENTS:
                    await self._check_payments(results)
                case LedgerCheck.OPERATIONS:
                    await self._compare_with_operations(results)
            results.unfinished_checks.remove(check)

    async def _check_chain(self, chain: StoredChain, results: "LedgerResults") -> None:
        check = ChainCheck(chain.chain, chain.head)
        async for recorded in self._read_chain(chain):
            results.posting_count += 1
            results.add(check.check(recorded))
        results.add(check.finish())

    async def _read_chain(self, chain: StoredChain) -> AsyncIterator[RecordedPosting]:
        end, after_sequence = _end_of(chain), 0
        while after_sequence < end:
            await _let_others_run()
            async with self._database.read_session() as store:
                page = await store.list_chain(chain.chain, after_sequence, _PAGE_SIZE)
            for recorded in page:
                if recorded.position.sequence <= end:
                    yield recorded
            if len(page) < _PAGE_SIZE:
                return
            after_sequence = page[-1].position.sequence

    async def _check_payments(self, results: "LedgerResults") -> None:
        after: UUID | None = None
        while True:
            await _let_others_run()
            async with self._database.read_session() as store:
                page = await store.list_payment_differences(after, _PAGE_SIZE)
            results.add(_payment_differs(payment_id) for payment_id, amount in page if amount)
            if len(page) < _PAGE_SIZE:
                return
            after = page[-1][0]

    async def _compare_with_operations(self, results: "LedgerResults") -> None:
        after: UUID | None = None
        while True:
            await _let_others_run()
            async with self._database.read_session() as store:
                operations = await store.list_succeeded_operations(after, _PAGE_SIZE)
                is_last = len(operations) < _PAGE_SIZE
                until = None if is_last else operations[-1].operation_id
                postings = await store.list_postings_of_operations(after, until)
            if found := list(compare_with_operations(operations, postings)):
                results.add(await self._look_again(after, until, found))
            if is_last:
                return
            after = until

    async def _look_again(
        self, after: UUID | None, until: UUID | None, found: Sequence[LedgerFinding]
    ) -> Sequence[LedgerFinding]:
        """Return the findings that are found again in this range of operations.

        Operations and postings are read one after the other, so an operation that succeeds in
        between looks like a difference. The second read shows no such difference.
        """
        async with self._database.read_session() as store:
            operations = await store.list_succeeded_operations(after, None, until)
            postings = await store.list_postings_of_operations(after, until)
        found_again = set(compare_with_operations(operations, postings))
        return [finding for finding in found if finding in found_again]


class LedgerResults:
    """Collects the findings of a verification, also of one that does not finish."""

    def __init__(self) -> None:
        self.unfinished_checks: list[LedgerCheck] = []
        self.posting_count = 0
        self.finding_count = 0
        self.findings: list[LedgerFinding] = []
        self._unbalanced_postings: list[UUID] = []
        self._mismatched_payments: list[UUID] = []

    def add(self, findings: Iterable[LedgerFinding]) -> None:
        for finding in findings:
            self.finding_count += 1
            _append(self.findings, finding)
            if finding.problem is LedgerProblem.UNBALANCED and finding.posting_id:
                _append(self._unbalanced_postings, finding.posting_id)
            if finding.problem is LedgerProblem.PAYMENT_DIFFERS and finding.payment_id:
                _append(self._mismatched_payments, finding.payment_id)

    def build_report(self, chains: Sequence[StoredChain]) -> LedgerReport:
        is_finished = not self.unfinished_checks
        is_balanced = not self._unbalanced_postings and not self._mismatched_payments
        return LedgerReport(
            balanced=is_finished and is_balanced,
            intact=is_finished and not self.finding_count,
            unfinished_checks=tuple(self.unfinished_checks),
            posting_count=self.posting_count,
            posting_total=sum(map(_end_of, chains)),
            unbalanced_postings=tuple(self._unbalanced_postings),
            mismatched_payments=tuple(self._mismatched_payments),
            finding_count=self.finding_count,
            findings=tuple(self.findings),
            chains=tuple(_to_head_view(chain.head) for chain in chains if chain.head),
        )


async def _let_others_run() -> None:
    """Let other tasks run, also if the storage never waits. The time limit can end the check."""
    await asyncio.sleep(0)


def _end_of(chain: StoredChain) -> int:
    return max(chain.max_sequence, chain.head.sequence if chain.head else 0)


def _append(rows: list[T], row: T) -> None:
    if len(rows) < _MAX_LISTED:
        rows.append(row)


def _payment_differs(payment_id: UUID) -> LedgerFinding:
    return LedgerFinding(problem=LedgerProblem.PAYMENT_DIFFERS, payment_id=payment_id)


def _to_head_view(head: ChainPosition) -> LedgerChainHead:
    return LedgerChainHead(chain=head.chain, sequence=head.sequence, hash=head.hash.hex())
