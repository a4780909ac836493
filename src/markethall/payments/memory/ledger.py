"""The in-memory store of the ledger."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID

from markethall.payments.contract.statuses import OperationStatus
from markethall.payments.domain.ledger import (
    CUSTOMER_PAYMENTS_ACCOUNT,
    ChainPosition,
    Posting,
    RecordedPosting,
    chain_of,
    next_position,
)
from markethall.payments.domain.operation import Operation
from markethall.payments.memory.tables import Tables
from markethall.payments.ports import DaySums, PostingFilter, StoredChain
from markethall.shared.composition.memory import MemoryUnitOfWork
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import TimeKeyset


class MemoryLedgerStore(MemoryUnitOfWork):
    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def add_posting(self, posting: Posting) -> None:
        if not posting.is_balanced:
            raise AssertionError("the posting does not balance")
        chain = chain_of(posting.payment_id)
        position = next_position(chain, self._tables.posting_chains.get(chain), posting)
        key = posting.operation_id, posting.kind
        if not self._tables.postings.add(key, RecordedPosting(posting, position)):
            raise AssertionError("the operation has such a posting already")
        self._tables.posting_chains.put(chain, position)

    async def save_fee(self, operation: Operation) -> None:
        self._tables.operations.put(operation.operation_id, operation)

    async def list_postings(self, posting_filter: PostingFilter) -> Sequence[RecordedPosting]:
        postings = self._tables.postings.where(lambda one: _matches(one.posting, posting_filter))
        postings.sort(key=_time_keyset, reverse=posting_filter.descending)
        return [_sort_debits_first(posting) for posting in postings[: posting_filter.limit]]

    async def list_chain_heads(self) -> Sequence[ChainPosition]:
        return sorted(self._tables.posting_chains.rows(), key=lambda head: head.chain)

    async def sum_entries(
        self, chain: int, after_sequence: int, until_sequence: int
    ) -> Sequence[DaySums]:
        totals: defaultdict[tuple[date, str, str], list[int]] = defaultdict(lambda: [0, 0])
        for posting in (
            one.posting
            for one in self._tables.postings.rows()
            if one.position.chain == chain
            and after_sequence < one.position.sequence <= until_sequence
        ):
            day = posting.created_at.astimezone(UTC).date()
            for account, amount in posting.entries:
                totals[day, account, posting.currency][amount < 0] += abs(amount)
        return [DaySums(*key, *amounts) for key, amounts in totals.items()]

    async def list_chains(self) -> Sequence[StoredChain]:
        highest: defaultdict[int, int] = defaultdict(int)
        for position in (one.position for one in self._tables.postings.rows()):
            highest[position.chain] = max(highest[position.chain], position.sequence)
        heads = {head.chain: head for head in self._tables.posting_chains.rows()}
        return [
            StoredChain(chain, heads.get(chain), highest[chain])
            for chain in sorted(heads.keys() | highest.keys())
        ]

    async def list_chain(
        self, chain: int, after_sequence: int, limit: int
    ) -> Sequence[RecordedPosting]:
        postings = self._tables.postings.where(
            lambda one: one.position.chain == chain and one.position.sequence > after_sequence
        )
        return sorted(postings, key=lambda one: one.position.sequence)[:limit]

    async def list_succeeded_operations(
        self, after: UUID | None, limit: int | None, until: UUID | None = None
    ) -> Sequence[Operation]:
        operations = self._tables.operations.where(
            lambda one: (
                one.status is OperationStatus.SUCCEEDED
                and _is_between(one.operation_id, after, until)
            )
        )
        return sorted(operations, key=lambda one: one.operation_id)[:limit]

    async def list_postings_of_operations(
        self, after: UUID | None, until: UUID | None
    ) -> Sequence[RecordedPosting]:
        return self._tables.postings.where(
            lambda one: _is_between(one.posting.operation_id, after, until)
        )

    async def list_payment_differences(
        self, after: UUID | None, limit: int
    ) -> Sequence[tuple[UUID, int]]:
        payments = self._tables.payments.where(lambda one: after is None or one.payment_id > after)
        page = sorted(payments, key=lambda one: one.payment_id)[:limit]
        balances = self._ledger_balances()
        return [
            (one.payment_id, one.captured - one.refunded + balances[one.payment_id]) for one in page
        ]

    def _ledger_balances(self) -> defaultdict[UUID, int]:
        balances: defaultdict[UUID, int] = defaultdict(int)
        for posting in (one.posting for one in self._tables.postings.rows()):
            balances[posting.payment_id] += sum(
                amount
                for account, amount in posting.entries
                if account == CUSTOMER_PAYMENTS_ACCOUNT
            )
        return balances


def _matches(posting: Posting, posting_filter: PostingFilter) -> bool:
    return (
        posting_filter.payment_id in {None, posting.payment_id}
        and posting_filter.kind in {None, posting.kind}
        and (
            posting_filter.account is None
            or any(account == posting_filter.account for account, _ in posting.entries)
        )
        and _is_in_period(posting.created_at, posting_filter)
        and _is_after(posting, posting_filter)
    )


def _is_between(id_: UUID, after: UUID | None, until: UUID | None) -> bool:
    return (after is None or id_ > after) and (until is None or id_ <= until)


def _is_in_period(created_at: datetime, posting_filter: PostingFilter) -> bool:
    after, before = posting_filter.created_after, posting_filter.created_before
    return (after is None or created_at > after) and (before is None or created_at < before)


def _is_after(posting: Posting, posting_filter: PostingFilter) -> bool:
    position, after = (posting.created_at, posting.posting_id), posting_filter.after
    if after is None:
        return True
    return position < after if posting_filter.descending else position > after


def _time_keyset(recorded: RecordedPosting) -> TimeKeyset:
    return TimeKeyset(recorded.posting.created_at, recorded.posting.posting_id)


def _sort_debits_first(recorded: RecordedPosting) -> RecordedPosting:
    entries = sorted(recorded.posting.entries, key=lambda entry: entry[1], reverse=True)
    return replace(recorded, posting=replace(recorded.posting, entries=tuple(entries)))
