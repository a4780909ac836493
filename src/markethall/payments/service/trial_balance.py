"""Sum the entries of the ledger by day, account and currency, and build a trial balance."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from markethall.payments.contract.ledger import (
    TrialBalance,
    TrialBalanceQuery,
    TrialBalanceRow,
    TrialBalanceTotal,
)
from markethall.payments.domain.ledger import ChainPosition, account_kind
from markethall.payments.ports import DaySums, ReadStore
from markethall.shared.kernel.money import Money, money_in_range
from markethall.shared.persistence.database import ReadDatabase

# the number of postings that one statement sums, which takes about 50 ms
_PAGE_SIZE: Final = 10_000


class LedgerSums:
    """Sums the postings, and keeps the sums of those that it has read.

    `read` first reads the heads of the chains, and then sums the postings up to these heads. A
    chain has no gaps, so the sums contain all postings that were committed when it read the heads.
    Postings are never changed, so the next `read` only adds the later postings. The kept sums are
    dropped if the ledger lacks the last posting in them, for example after a backup was restored.
    """

    def __init__(self, database: ReadDatabase[ReadStore]) -> None:
        self._database = database
        # one `read` at a time, so that concurrent calls do not add the same postings twice
        self._lock = asyncio.Lock()
        self._ends: dict[int, ChainPosition] = {}
        self._totals: dict[tuple[date, str, str], tuple[int, int]] = {}

    async def read(self) -> Sequence[DaySums]:
        """Return the sums of all postings, by day, account and currency. Raises Unavailable."""
        async with self._lock:
            async with self._database.read_session() as store:
                heads = await store.list_chain_heads()
                if not await self._has_ends(store, heads):
                    self._ends, self._totals = {}, {}
            for head in heads:
                await self._advance(head)
            return [DaySums(*key, *amounts) for key, amounts in sorted(self._totals.items())]

    async def _has_ends(self, store: ReadStore, heads: Sequence[ChainPosition]) -> bool:
        """Tell whether the ledger has the last posting of each chain in the kept sums."""
        for end in self._ends.values():
            if end not in heads and await _find_position(store, end.chain, end.sequence) != end:
                return False
        return True

    async def _advance(self, head: ChainPosition) -> None:
        """Add the postings of a chain up to its head. A cancelled call keeps what it has added."""
        end = self._ends.get(head.chain)
        sequence = end.sequence if end else 0
        while sequence < head.sequence:
            until = min(sequence + _PAGE_SIZE, head.sequence)
            async with self._database.read_session() as store:
                sums = await store.sum_entries(head.chain, sequence, until)
                position = await _find_position(store, head.chain, until)
            self._add(sums)
            # an empty hash never matches, so the next reading drops the sums
            self._ends[head.chain] = position or ChainPosition(head.chain, until, b"")
            sequence = until

    def _add(self, sums: Iterable[DaySums]) -> None:
        for one in sums:
            key = one.day, one.account, one.currency
            debits, credits_ = self._totals.get(key, (0, 0))
            self._totals[key] = debits + one.debits, credits_ + one.credits


async def _find_position(store: ReadStore, chain: int, sequence: int) -> ChainPosition | None:
    found = await store.list_chain(chain, sequence - 1, 1)
    return found[0].position if found and found[0].position.sequence == sequence else None


@dataclass(frozen=True)
class PeriodSums:
    """Sums of entries of one account in one currency, in minor units.

    `opening` has the entries before the period; a credit is negative there. `debits` and `credits`
    have those of the period; both are positive.
    """

    account: str
    currency: str
    opening: int = 0
    debits: int = 0
    credits: int = 0


def sum_period(days: Iterable[DaySums], start_date: date, end_date: date) -> Sequence[PeriodSums]:
    """Add up the sums of days until `end_date`, by account and currency."""
    totals: dict[tuple[str, str], PeriodSums] = {}
    for day in days:
        if day.day <= end_date:
            key = day.account, day.currency
            total = totals.get(key, PeriodSums(*key))
            totals[key] = _add_day(total, day, is_before=day.day < start_date)
    return [totals[key] for key in sorted(totals)]


def _add_day(total: PeriodSums, day: DaySums, *, is_before: bool) -> PeriodSums:
    if is_before:
        return replace(total, opening=total.opening + day.debits - day.credits)
    return replace(total, debits=total.debits + day.debits, credits=total.credits + day.credits)


def resolve_period(query: TrialBalanceQuery, now: datetime) -> tuple[date, date]:
    """Return the first and the last day.

    Without `end_date`, the last day is today, or a later `start_date`. Without `start_date`, the
    first day is the last day.
    """
    today = now.astimezone(UTC).date()
    end_date = query.end_date or max(today, query.start_date or today)
    return query.start_date or end_date, end_date


def times_of(start_date: date, end_date: date) -> tuple[datetime, datetime]:
    """Return the start of the first day, and the exclusive end of the last day."""
    midnight = time(tzinfo=UTC)
    start = datetime.combine(start_date, midnight)
    return start, datetime.combine(end_date, midnight) + timedelta(days=1)


def build_trial_balance(
    start_date: date, end_date: date, sums: Sequence[PeriodSums]
) -> TrialBalance:
    """Raises AmountOutOfRange."""
    starts_at, ends_at = times_of(start_date, end_date)
    currencies = sorted({one.currency for one in sums})
    return TrialBalance(
        start_date=start_date,
        end_date=end_date,
        starts_at=starts_at,
        ends_at=ends_at,
        rows=tuple(map(_to_row, sums)),
        totals=tuple(
            _to_total(currency, [one for one in sums if one.currency == currency])
            for currency in currencies
        ),
    )


def _to_row(sums: PeriodSums) -> TrialBalanceRow:
    return TrialBalanceRow(account=sums.account, kind=account_kind(sums.account), **_amounts(sums))


def _to_total(currency: str, rows: Iterable[PeriodSums]) -> TrialBalanceTotal:
    opening = debits = credits_ = 0
    for row in rows:
        opening, debits, credits_ = (
            opening + row.opening,
            debits + row.debits,
            credits_ + row.credits,
        )
    return TrialBalanceTotal(**_amounts(PeriodSums("", currency, opening, debits, credits_)))


def _amounts(sums: PeriodSums) -> dict[str, Money]:
    amounts = {
        "opening": sums.opening,
        "debits": sums.debits,
        "credits": sums.credits,
        "closing": sums.opening + sums.debits - sums.credits,
    }
    return {name: money_in_range(amount, sums.currency) for name, amount in amounts.items()}
