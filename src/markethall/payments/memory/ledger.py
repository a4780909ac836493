"""The in-memory store of the ledger."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.payments.contract import LedgerAccountBalance, LedgerReport
from markethall.payments.domain import Posting, account_kind
from markethall.payments.memory.tables import Tables
from markethall.shared.composition.memory import MemoryUnitOfWork
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import TimeKeyset


class MemoryLedgerStore(MemoryUnitOfWork):
    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def add_posting(self, posting: Posting) -> None:
        if not self._tables.postings.add(posting.operation_id, posting):
            raise AssertionError("the operation has a posting already")

    async def list_postings(
        self, payment_id: UUID | None, before: TimeKeyset | None, limit: int
    ) -> Sequence[Posting]:
        postings = self._tables.postings.where(
            lambda posting: (
                payment_id in {None, posting.payment_id}
                and (before is None or _posting_position(posting) < before)
            )
        )
        postings.sort(key=_posting_position, reverse=True)
        return [_sort_debits_first(posting) for posting in postings[:limit]]

    async def list_account_balances(self) -> Sequence[LedgerAccountBalance]:
        sums: defaultdict[tuple[str, str], int] = defaultdict(int)
        for posting in self._tables.postings.rows():
            for account, amount in posting.entries:
                sums[account, posting.currency] += amount
        return [_to_account_balance(*key, amount) for key, amount in sorted(sums.items())]

    async def get_ledger_report(self) -> LedgerReport:
        """Compare payments with the ledger. All postings balance, because `Posting` checks it."""
        ledger_balances: defaultdict[UUID, int] = defaultdict(int)
        for posting in self._tables.postings.rows():
            ledger_balances[posting.payment_id] += posting.entries[0][1]
        mismatched = self._tables.payments.where(
            lambda payment: (
                payment.captured - payment.refunded != ledger_balances[payment.payment_id]
            )
        )
        return LedgerReport(
            balanced=not mismatched,
            posting_count=len(self._tables.postings),
            unbalanced_postings=(),
            mismatched_payments=tuple(payment.payment_id for payment in mismatched[:100]),
        )


def _posting_position(posting: Posting) -> tuple[datetime, UUID]:
    return posting.created_at, posting.posting_id


def _sort_debits_first(posting: Posting) -> Posting:
    entries = sorted(posting.entries, key=lambda entry: entry[1], reverse=True)
    return replace(posting, entries=tuple(entries))


def _to_account_balance(account: str, currency: str, amount: int) -> LedgerAccountBalance:
    return LedgerAccountBalance(
        account=account,
        kind=account_kind(account),
        balance=Money(amount=amount, currency=currency),
    )
