"""The Postgres store of the ledger."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import UUID

from markethall.payments.contract.statuses import PostingKind
from markethall.payments.domain.ledger import (
    ChainPosition,
    Posting,
    RecordedPosting,
    canonical_content,
    chain_of,
)
from markethall.payments.domain.operation import Operation
from markethall.payments.ports import DaySums, PostingFilter, StoredChain
from markethall.payments.sql import ledger_statements as sql
from markethall.payments.sql.rows import to_operation
from markethall.payments.sql.statements import page_values
from markethall.shared.composition.sql import SqlUnitOfWork

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlLedgerStore(SqlUnitOfWork):
    async def add_posting(self, posting: Posting) -> None:
        await self._connection.execute(sql.INSERT_POSTING, **posting_values(posting))

    async def save_fee(self, operation: Operation) -> None:
        row_count = await self._connection.execute(
            sql.SAVE_FEE,
            operation_id=operation.operation_id,
            fee_amount=operation.fee_amount,
            fee_currency=operation.fee_currency,
            fee_recorded_at=operation.fee_recorded_at,
        )
        if row_count != 1:
            raise AssertionError("the operation has a fee already")

    async def list_postings(self, posting_filter: PostingFilter) -> Sequence[RecordedPosting]:
        values = {name: getattr(posting_filter, name) for name in sql.FILTER_NAMES}
        given_values = {name: value for name, value in values.items() if value is not None}
        statement = sql.list_postings(
            filters=tuple(given_values),
            has_keyset=posting_filter.after is not None,
            descending=posting_filter.descending,
        )
        rows = await self._connection.fetch_all(
            statement, **given_values, **page_values(posting_filter.after, posting_filter.limit)
        )
        return _to_postings(rows)

    async def list_chain_heads(self) -> Sequence[ChainPosition]:
        rows = await self._connection.fetch_all(sql.LIST_CHAIN_HEADS)
        return [ChainPosition(row["chain"], row["sequence"], row["hash"]) for row in rows]

    async def sum_entries(
        self, chain: int, after_sequence: int, until_sequence: int
    ) -> Sequence[DaySums]:
        rows = await self._connection.fetch_all(
            sql.SUM_ENTRIES,
            chain=chain,
            after_sequence=after_sequence,
            until_sequence=until_sequence,
        )
        return [_to_day_sums(row) for row in rows]

    async def list_chains(self) -> Sequence[StoredChain]:
        return [_to_chain(row) for row in await self._connection.fetch_all(sql.LIST_CHAINS)]

    async def list_chain(
        self, chain: int, after_sequence: int, limit: int
    ) -> Sequence[RecordedPosting]:
        rows = await self._connection.fetch_all(
            sql.LIST_CHAIN, chain=chain, after_sequence=after_sequence, limit=limit
        )
        return _to_postings(rows)

    async def list_succeeded_operations(
        self, after: UUID | None, limit: int | None, until: UUID | None = None
    ) -> Sequence[Operation]:
        statement = sql.list_succeeded_operations(
            has_after=after is not None, has_until=until is not None
        )
        rows = await self._connection.fetch_all(statement, after=after, until=until, limit=limit)
        return [to_operation(row) for row in rows]

    async def list_postings_of_operations(
        self, after: UUID | None, until: UUID | None
    ) -> Sequence[RecordedPosting]:
        statement = sql.list_postings_of_operations(
            has_after=after is not None, has_until=until is not None
        )
        rows = await self._connection.fetch_all(statement, after=after, until=until)
        return _to_postings(rows)

    async def list_payment_differences(
        self, after: UUID | None, limit: int
    ) -> Sequence[tuple[UUID, int]]:
        statement = sql.list_payment_differences(has_keyset=after is not None)
        rows = await self._connection.fetch_all(statement, after=after, limit=limit)
        return [(row["payment_id"], row["difference"]) for row in rows]


def posting_values(posting: Posting) -> dict[str, Any]:
    """Return the bind values of `insert_posting`."""
    return {
        "posting_id": posting.posting_id,
        "payment_id": posting.payment_id,
        "operation_id": posting.operation_id,
        "kind": posting.kind.value,
        "created_at": posting.created_at,
        "currency": posting.currency,
        "accounts": [account for account, _ in posting.entries],
        "amounts": [amount for _, amount in posting.entries],
        "chain": chain_of(posting.payment_id),
        "content": canonical_content(posting),
    }


def _to_postings(rows: "Sequence[Record]") -> Sequence[RecordedPosting]:
    groups = groupby(rows, key=lambda row: row["posting_id"])
    return [_to_posting(list(group)) for _, group in groups]


def _to_posting(rows: "list[Record]") -> RecordedPosting:
    """Build one posting from its rows. Each row is one entry."""
    first = rows[0]
    stored_entries = [row for row in rows if row["account"] is not None]
    posting = Posting(
        posting_id=first["posting_id"],
        payment_id=first["payment_id"],
        operation_id=first["operation_id"],
        kind=PostingKind(first["kind"]),
        # Several currencies mean that an entry was changed outside of the shop. The verification
        # then finds a wrong hash.
        currency="/".join(dict.fromkeys(row["currency"] for row in stored_entries)),
        entries=tuple((row["account"], row["amount"]) for row in stored_entries),
        created_at=first["created_at"],
    )
    return RecordedPosting(posting, ChainPosition(first["chain"], first["sequence"], first["hash"]))


def _to_day_sums(row: "Record") -> DaySums:
    debits, credits_ = int(row["debits"]), int(row["credits"])
    return DaySums(row["day"], row["account"], row["currency"], debits, credits_)


def _to_chain(row: "Record") -> StoredChain:
    chain, sequence = row["chain"], row["sequence"]
    head = None if sequence is None else ChainPosition(chain, sequence, row["hash"])
    return StoredChain(chain, head, row["max_sequence"])
