"""The port to the storage of the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol
from uuid import UUID

from prometheus_client import Counter

from markethall.payments.contract.statuses import PostingKind
from markethall.payments.domain.ledger import ChainPosition, Posting, RecordedPosting
from markethall.payments.domain.operation import Operation
from markethall.shared.kernel.pagination import TimeKeyset


@dataclass(frozen=True, kw_only=True)
class PostingFilter:
    """Selection of one page of postings, which begins after the position `after`."""

    limit: int
    descending: bool = True
    after: TimeKeyset | None = None
    payment_id: UUID | None = None
    account: str | None = None
    kind: PostingKind | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True)
class DaySums:
    """The debits and credits of one account in one currency on one UTC day, in minor units.

    Neither is negative.
    """

    day: date
    account: str
    currency: str
    debits: int
    credits: int


@dataclass(frozen=True)
class StoredChain:
    """The head of a chain as it is recorded, and the highest sequence number of a posting."""

    chain: int
    head: ChainPosition | None
    max_sequence: int


class LedgerReadStore(Protocol):
    async def list_postings(self, posting_filter: PostingFilter) -> Sequence[RecordedPosting]:
        """Return postings by their time, each with its debits first."""

    async def list_chain_heads(self) -> Sequence[ChainPosition]:
        """Return the heads of the chains, read at one point in time."""

    async def sum_entries(
        self, chain: int, after_sequence: int, until_sequence: int
    ) -> Sequence[DaySums]:
        """Sum the entries of the postings of a chain with these sequence numbers, by day."""

    async def list_chains(self) -> Sequence[StoredChain]:
        """Return the chains that have a head or a posting, read at one point in time."""

    async def list_chain(
        self, chain: int, after_sequence: int, limit: int
    ) -> Sequence[RecordedPosting]:
        """Return postings of a chain, sorted by sequence number."""

    async def list_succeeded_operations(
        self, after: UUID | None, limit: int | None, until: UUID | None = None
    ) -> Sequence[Operation]:
        """Return operations by their id, with an id greater than `after` and at most `until`."""

    async def list_postings_of_operations(
        self, after: UUID | None, until: UUID | None
    ) -> Sequence[RecordedPosting]:
        """Return postings whose operation id is greater than `after` and at most `until`."""

    async def list_payment_differences(
        self, after: UUID | None, limit: int
    ) -> Sequence[tuple[UUID, int]]:
        """Return payments by id, each with captured minus refunded minus its sum in the ledger."""


class LedgerStore(LedgerReadStore, Protocol):
    async def add_posting(self, posting: Posting) -> None:
        """Append the posting to its hash chain. The chain is locked until the commit."""

    def count_on_commit(self, counter: Counter, amount: int = 1) -> None:
        """Add the amount to a counter of the metrics if this transaction commits."""

    async def save_fee(self, operation: Operation) -> None:
        """Update the fee of an operation that has none."""
