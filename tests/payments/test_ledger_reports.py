"""Reports of the ledger: filtered postings, the CSV export and the trial balance."""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from markethall.payments.contract.api import OperationView, PaymentView
from markethall.payments.contract.ledger import (
    PostingFilters,
    PostingQuery,
    TrialBalance,
    TrialBalanceQuery,
)
from markethall.payments.contract.statuses import PostingKind
from markethall.payments.domain.ledger import Posting
from markethall.payments.ports import DaySums
from markethall.payments.service.trial_balance import LedgerSums
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import AmountOutOfRange, Money
from markethall.shared.kernel.pagination import PageQuery
from tests.payments.conftest import STAFF, START, PaymentsApp, build_payments_app

DAY = 86_400


async def export(payments_app: PaymentsApp, **filters: Any) -> list[bytes]:
    chunks = payments_app.ledger.export_postings(STAFF, PostingFilters(**filters))
    return [chunk async for chunk in chunks]


async def exported_rows(payments_app: PaymentsApp, **filters: Any) -> list[dict[str, str]]:
    text = b"".join(await export(payments_app, **filters)).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def amounts_of(payments_app: PaymentsApp, **filters: Any) -> list[int]:
    query = PostingQuery(limit=100, **filters)
    page = await payments_app.ledger.list_postings(STAFF, query)
    return [posting.entries[0].amount.amount for posting in page.items]


async def trial_balance(payments_app: PaymentsApp, **period: Any) -> TrialBalance:
    return await payments_app.ledger.get_trial_balance(STAFF, TrialBalanceQuery(**period))


def rows_of(balance: TrialBalance) -> dict[str, tuple[int, int, int, int]]:
    return {
        f"{row.account} {row.opening.currency}": (
            row.opening.amount,
            row.debits.amount,
            row.credits.amount,
            row.closing.amount,
        )
        for row in balance.rows
    }


async def list_operations(
    payments_app: PaymentsApp, payment: PaymentView
) -> tuple[OperationView, ...]:
    page = await payments_app.payment_api.list_operations(STAFF, payment.payment_id, PageQuery())
    return page.items


# Filters


async def test_postings_are_filtered(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(100)
    await payments_app.refund(payment, 30)
    payments_app.clock.advance(60)
    later = payments_app.clock.now
    await payments_app.paid(200)

    assert await amounts_of(payments_app) == [200, 30, 100]
    assert await amounts_of(payments_app, kind=PostingKind.REFUND) == [30]
    assert await amounts_of(payments_app, payment_id=payment.payment_id) == [30, 100]
    assert await amounts_of(payments_app, created_after=later) == [200]
    assert await amounts_of(payments_app, created_before=later) == [30, 100]
    assert await amounts_of(payments_app, account="provider:sandbox") == [200, 30, 100]
    assert await amounts_of(payments_app, account="provider:none") == []
    customers = "customers:payments"
    assert await amounts_of(payments_app, account=customers, created_after=later) == [200]


async def test_filtered_postings_are_paginated(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(100)
    for amount in (1, 2, 3):
        await payments_app.refund(payment, amount)

    first = await payments_app.ledger.list_postings(
        STAFF, PostingQuery(limit=2, kind=PostingKind.REFUND)
    )
    second = await payments_app.ledger.list_postings(
        STAFF, PostingQuery(limit=2, kind=PostingKind.REFUND, cursor=first.next_cursor)
    )

    amounts = [one.entries[0].amount.amount for one in [*first.items, *second.items]]
    assert (amounts, second.next_cursor) == ([3, 2, 1], None)


# The CSV export


async def test_export_has_a_row_for_each_entry(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1999)
    await payments_app.refund(payment, 5)

    rows = await exported_rows(payments_app)

    assert [(row["kind"], row["account"], row["debit"], row["credit"]) for row in rows] == [
        ("capture", "provider:sandbox", "19.99", ""),
        ("capture", "customers:payments", "", "19.99"),
        ("refund", "customers:payments", "0.05", ""),
        ("refund", "provider:sandbox", "", "0.05"),
    ]
    assert {row["payment_id"] for row in rows} == {str(payment.payment_id)}
    assert {row["currency"] for row in rows} == {"EUR"}
    assert [row["sequence"] for row in rows] == ["1", "1", "2", "2"]
    assert rows[0]["created_at"].endswith("Z")


async def test_export_of_an_empty_ledger_has_the_header(payments_app: PaymentsApp) -> None:
    (chunk,) = await export(payments_app)

    assert chunk == (
        b"created_at,posting_id,kind,payment_id,operation_id,account,currency,debit,credit,"
        b"chain,sequence\r\n"
    )


async def test_export_reads_pages_and_holds_no_connection_between_them(
    payments_app: PaymentsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("markethall.payments.service.ledger.PAGE_SIZE", 2)
    payment = await payments_app.paid(100)
    for _ in range(4):
        await payments_app.refund(payment, 1)

    chunks = payments_app.ledger.export_postings(STAFF, PostingFilters())
    first = await anext(chunks)
    # in memory this would wait for ever if the export held its session
    await payments_app.refund(payment, 1)
    rest = [chunk async for chunk in chunks]

    assert first.count(b"\r\n") == 5
    assert b"".join([first, *rest]).count(b"\r\n") == 1 + 2 * 6


async def test_export_has_the_filters_of_the_list(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(100)
    await payments_app.refund(payment, 30)

    rows = await exported_rows(payments_app, kind=PostingKind.REFUND, account="provider:sandbox")

    assert [(row["account"], row["debit"] or row["credit"]) for row in rows] == [
        ("customers:payments", "0.30"),
        ("provider:sandbox", "0.30"),
    ]


async def test_exported_account_is_no_formula(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(100)
    posting = Posting(
        posting_id=new_id(),
        payment_id=payment.payment_id,
        operation_id=(await list_operations(payments_app, payment))[0].operation_id,
        kind=PostingKind.FEE,
        currency="EUR",
        entries=(('=HYPERLINK("x")', 1), ("@b", -1)),
        created_at=payments_app.clock(),
    )
    async with payments_app.container.database().transaction() as store:
        await store.add_posting(posting)

    rows = await exported_rows(payments_app, kind=PostingKind.FEE)

    assert [row["account"] for row in rows] == ['\'=HYPERLINK("x")', "'@b"]


async def test_export_uses_the_minor_units_of_the_currency(payments_app: PaymentsApp) -> None:
    for amount, currency in ((500, "JPY"), (1005, "KWD")):
        await payments_app.confirm(await payments_app.open(amount, currency))

    rows = await exported_rows(payments_app, account="provider:sandbox")

    assert [row["debit"] for row in rows if row["debit"]] == ["500", "1.005"]


# The trial balance


async def test_trial_balance_of_a_day_has_opening_and_closing(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1000)
    payments_app.clock.advance(DAY)
    await payments_app.refund(payment, 300)
    await payments_app.paid(50)
    payments_app.clock.advance(DAY)
    await payments_app.paid(7)
    second_day = (START + timedelta(days=1)).date()

    balance = await trial_balance(payments_app, start_date=second_day, end_date=second_day)

    assert rows_of(balance) == {
        "customers:payments EUR": (-1000, 300, 50, -750),
        "provider:sandbox EUR": (1000, 50, 300, 750),
    }
    (total,) = balance.totals
    assert (total.opening.amount, total.closing.amount) == (0, 0)
    assert total.debits == total.credits == Money(amount=350, currency="EUR")


async def test_closing_of_a_day_is_the_opening_of_the_next(payments_app: PaymentsApp) -> None:
    for _ in range(3):
        payment = await payments_app.paid(100)
        await payments_app.refund(payment, 10)
        payments_app.clock.advance(DAY)
    days = [(START + timedelta(days=day)).date() for day in range(4)]

    balances = [
        rows_of(await trial_balance(payments_app, start_date=day, end_date=day)) for day in days
    ]
    whole = rows_of(await trial_balance(payments_app, start_date=days[0], end_date=days[-1]))

    for account, (opening, debits, credits_, closing) in whole.items():
        found = [balance[account] for balance in balances]
        assert [day[0] for day in found[1:]] == [day[3] for day in found[:-1]]
        assert (found[0][0], found[-1][3]) == (opening, closing)
        assert (sum(day[1] for day in found), sum(day[2] for day in found)) == (debits, credits_)


async def test_day_ends_at_midnight_utc(payments_app: PaymentsApp) -> None:
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    payments_app.clock.now = midnight - timedelta(seconds=1)
    await payments_app.paid(1)
    payments_app.clock.now = midnight - timedelta(microseconds=1)
    payment = await payments_app.open(2)
    payments_app.clock.now = midnight
    await payments_app.confirm(payment)

    first = await trial_balance(payments_app, end_date=date(2026, 11, 21))
    second = await trial_balance(payments_app, end_date=date(2026, 11, 22))

    assert rows_of(first)["provider:sandbox EUR"] == (0, 1, 0, 1)
    assert rows_of(second)["provider:sandbox EUR"] == (1, 2, 0, 3)
    assert (first.starts_at, first.ends_at) == (midnight - timedelta(days=1), midnight)


async def test_each_currency_sums_to_zero(payments_app: PaymentsApp) -> None:
    for currency in ("EUR", "USD", "JPY"):
        await payments_app.confirm(await payments_app.open(100, currency))

    balance = await trial_balance(payments_app)

    assert [(total.closing.currency, total.closing.amount) for total in balance.totals] == [
        ("EUR", 0),
        ("JPY", 0),
        ("USD", 0),
    ]


async def test_period_defaults_to_today(payments_app: PaymentsApp) -> None:
    today = START.date()

    balance = await trial_balance(payments_app)
    since = await trial_balance(payments_app, start_date=date(2026, 11, 1))

    assert (balance.start_date, balance.end_date) == (today, today)
    assert (since.start_date, since.end_date) == (date(2026, 11, 1), today)
    assert not balance.rows
    assert not balance.totals


async def test_sum_above_the_largest_amount_is_refused(payments_app: PaymentsApp) -> None:
    for _ in range(2):
        await payments_app.paid(6 * 10**14)

    with pytest.raises(AmountOutOfRange):
        await trial_balance(payments_app)
    with pytest.raises(AmountOutOfRange):
        await payments_app.ledger.list_account_balances(STAFF)


# The sums of postings


class ObservedDatabase:
    """Counts the read sessions, and calls `act` once before the second session."""

    def __init__(self, payments_app: PaymentsApp) -> None:
        self.database: Any = payments_app.container.database()
        self.session_count = 0
        self.act: Callable[[], Awaitable[None]] | None = None

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[Any]:
        if self.session_count and self.act:
            act, self.act = self.act, None
            await act()
        self.session_count += 1
        async with self.database.read_session() as store:
            yield store


def balances_of(sums: Sequence[DaySums]) -> dict[str, int]:
    balances: dict[str, int] = {}
    for one in sums:
        balances[one.account] = balances.get(one.account, 0) + one.debits - one.credits
    return balances


async def test_sums_have_the_postings_of_one_point_in_time(payments_app: PaymentsApp) -> None:
    observed = ObservedDatabase(payments_app)
    await payments_app.paid(100)

    async def pay_with_a_slow_clock_and_refund() -> None:
        payments_app.clock.advance(-60)
        payment = await payments_app.paid(70)
        payments_app.clock.advance(120)
        await payments_app.refund(payment, 70)
        await payments_app.refund(await payments_app.paid(50), 20)

    observed.act = pay_with_a_slow_clock_and_refund
    sums = LedgerSums(observed)

    during = balances_of(await sums.read())
    after = balances_of(await sums.read())

    assert during == {"provider:sandbox": 100, "customers:payments": -100}
    assert after == {"provider:sandbox": 130, "customers:payments": -130}


async def test_each_posting_is_summed_once(
    payments_app: PaymentsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("markethall.payments.service.trial_balance._PAGE_SIZE", 2)
    observed = ObservedDatabase(payments_app)
    payment = await payments_app.paid(100)
    for _ in range(8):
        await payments_app.refund(payment, 1)
    sums = LedgerSums(observed)
    await sums.read()
    sessions_of_all = observed.session_count
    await payments_app.refund(payment, 1)

    found = balances_of(await sums.read())
    sessions_of_one = observed.session_count - sessions_of_all
    again = balances_of(await sums.read())

    # one session for the heads of the chains, and one for each page of two postings
    assert (sessions_of_all, sessions_of_one) == (1 + 5, 1 + 1)
    assert found == again == {"provider:sandbox": 91, "customers:payments": -91}


async def test_cancelled_reading_is_continued(
    payments_app: PaymentsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("markethall.payments.service.trial_balance._PAGE_SIZE", 1)
    observed = ObservedDatabase(payments_app)
    payment = await payments_app.paid(100)
    await payments_app.refund(payment, 30)
    sums = LedgerSums(observed)

    async def fail() -> None:
        raise TimeoutError

    async def fail_later() -> None:
        observed.act = fail

    observed.act = fail_later
    with pytest.raises(TimeoutError):
        await sums.read()

    found = balances_of(await sums.read())

    assert found == {"provider:sandbox": 70, "customers:payments": -70}


async def test_ledger_that_was_restored_is_summed_anew() -> None:
    before, restored = build_payments_app("memory", None), build_payments_app("memory", None)
    observed = ObservedDatabase(before)
    await before.paid(100)
    sums = LedgerSums(observed)
    await sums.read()
    for _ in range(60):
        await restored.paid(1)

    observed.database = restored.container.database()

    assert balances_of(await sums.read()) == {"provider:sandbox": 60, "customers:payments": -60}
