"""The Postgres store of the ledger."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING
from uuid import UUID

from markethall.payments.contract import LedgerAccountBalance, LedgerReport, PostingKind
from markethall.payments.domain import Posting, account_kind
from markethall.payments.sql import ledger_statements as sql
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import TimeKeyset

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlLedgerStore(SqlUnitOfWork):
    async def add_posting(self, posting: Posting) -> None:
        await self._connection.execute(
            sql.INSERT_POSTING,
            posting_id=posting.posting_id,
            payment_id=posting.payment_id,
            operation_id=posting.operation_id,
            kind=posting.kind.value,
            created_at=posting.created_at,
            currency=posting.currency,
            accounts=[account for account, _ in posting.entries],
            amounts=[amount for _, amount in posting.entries],
        )

    async def list_postings(
        self, payment_id: UUID | None, before: TimeKeyset | None, limit: int
    ) -> Sequence[Posting]:
        statement = sql.list_postings(
            by_payment=payment_id is not None, has_keyset=before is not None
        )
        before_created_at, before_posting_id = before or (None, None)
        rows = await self._connection.fetch_all(
            statement,
            payment_id=payment_id,
            after_created_at=before_created_at,
            after_id=before_posting_id,
            limit=limit,
        )
        groups = groupby(rows, key=lambda row: row["posting_id"])
        return [_to_posting(list(group)) for _, group in groups]

    async def list_account_balances(self) -> Sequence[LedgerAccountBalance]:
        return [
            _to_account_balance(row)
            for row in await self._connection.fetch_all(sql.LIST_ACCOUNT_BALANCES)
        ]

    async def get_ledger_report(self) -> LedgerReport:
        unbalanced = [
            row[0] for row in await self._connection.fetch_all(sql.FIND_UNBALANCED_POSTINGS)
        ]
        mismatched = [
            row[0] for row in await self._connection.fetch_all(sql.FIND_MISMATCHED_PAYMENTS)
        ]
        return LedgerReport(
            balanced=not unbalanced and not mismatched,
            posting_count=await self._connection.fetch_value(sql.COUNT_POSTINGS),
            unbalanced_postings=tuple(unbalanced),
            mismatched_payments=tuple(mismatched),
        )


def _to_posting(rows: "list[Record]") -> Posting:
    """Build one posting from its rows. Each row is one entry."""
    first = rows[0]
    return Posting(
        posting_id=first["posting_id"],
        payment_id=first["payment_id"],
        operation_id=first["operation_id"],
        kind=PostingKind(first["kind"]),
        currency=first["currency"],
        entries=tuple((row["account"], row["amount"]) for row in rows),
        created_at=first["created_at"],
    )


def _to_account_balance(row: "Record") -> LedgerAccountBalance:
    return LedgerAccountBalance(
        account=row["account"],
        kind=account_kind(row["account"]),
        balance=Money(amount=row["balance"], currency=row["currency"]),
    )
