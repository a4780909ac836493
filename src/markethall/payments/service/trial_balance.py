"""Build a trial balance from the sums of the ledger."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from markethall.payments.contract import (
    TrialBalance,
    TrialBalanceQuery,
    TrialBalanceRow,
    TrialBalanceTotal,
)
from markethall.payments.domain import account_kind
from markethall.payments.ports import DaySums
from markethall.shared.kernel.money import Money, money_in_range


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
