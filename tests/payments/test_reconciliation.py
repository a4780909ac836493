"""The comparison with the report of a provider, in memory and on Postgres."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from markethall.payments.contract import PaymentStatus
from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.errors import (
    ReportFileInvalid,
    UnknownReportProvider,
    UnsupportedByProvider,
)
from markethall.payments.contract.reconciliation import (
    DifferenceQuery,
    DifferenceReason,
    DifferenceView,
    ReconciliationQuery,
    ReconciliationStatus,
    ReconciliationSummary,
    ReconciliationView,
)
from markethall.payments.contract.statuses import OperationStatus
from markethall.payments.domain.operation import Operation
from markethall.payments.ports import PaymentGatewayTimeout, ReportKind, ReportLine
from markethall.payments.service.reconciliations import DailyReconciliation
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.money import Money
from markethall.shared.observability.metrics import REGISTRY
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import STAFF, START, PaymentsApp, build_payments_app

DAY = START.replace(hour=0)
NEXT_DAY = DAY + timedelta(days=1)
ONE_DAY = timedelta(days=1)


@pytest.fixture
def payments_app(storage: tuple[str, Postgres | None]) -> PaymentsApp:
    return build_payments_app(*storage)


class ScriptedReport:
    """Replaces the report of the sandbox: `lines`, then `error`."""

    def __init__(self, payments_app: PaymentsApp) -> None:
        self.lines: list[ReportLine] = []
        self.error: BaseException | None = None
        self.requests: list[tuple[datetime, datetime]] = []
        payments_app.gateway.report = self.report  # type: ignore[method-assign]  # the report of the provider

    async def report(self, start: datetime, end: datetime) -> AsyncIterator[ReportLine]:
        self.requests.append((start, end))
        for line in self.lines:
            if start <= line.occurred_at < end:
                yield line
        if self.error:
            raise self.error


async def compare(
    payments_app: PaymentsApp, day: datetime = DAY, provider: str = "sandbox"
) -> tuple[ReconciliationSummary, list[DifferenceView]]:
    found: list[DifferenceView] = []

    async def collect(batch: Sequence[DifferenceView]) -> None:
        found.extend(batch)

    comparison = payments_app.container.report_comparison()
    summary = await comparison.compare_period(provider, day, day + ONE_DAY, collect)
    assert summary.differences == len(found)
    return summary, found


async def compare_file(
    payments_app: PaymentsApp, text: str, period: tuple[datetime, datetime] | None = None
) -> tuple[ReconciliationSummary, list[DifferenceView]]:
    found: list[DifferenceView] = []

    async def collect(batch: Sequence[DifferenceView]) -> None:
        found.extend(batch)

    summary = await payments_app.container.report_comparison().compare_file(
        "manual", lines_of(text), period, collect
    )
    return summary, found


async def lines_of(text: str) -> AsyncIterator[bytes]:
    for line in text.encode().splitlines(keepends=True):
        yield line


async def operations_of(payments_app: PaymentsApp, payment: PaymentView) -> list[Operation]:
    async with payments_app.container.database().read_session() as store:
        return list(await store.list_operations(payment.payment_id, None, None, 100))


def line_of(operation: Operation, **changes: Any) -> ReportLine:
    line = ReportLine(
        kind=ReportKind.REFUND if operation.kind == "refund" else ReportKind.PAYMENT,
        amount=operation.money,
        reference=operation.provider_reference or "",
        operation_id=operation.operation_id,
        occurred_at=operation.settled_at or operation.created_at,
    )
    return replace(line, **changes)


def reasons(differences: Iterable[DifferenceView]) -> list[str]:
    return sorted(difference.reason for difference in differences)


# One period


async def test_sandbox_agrees_after_charges_refunds_and_lost_answers(
    payments_app: PaymentsApp,
) -> None:
    paid = await payments_app.paid()
    await payments_app.refund(paid, 500)
    await payments_app.confirm(await payments_app.open(), "sandbox_declined")
    await payments_app.confirm(await payments_app.open(), "sandbox_timeout_before")
    await payments_app.confirm(await payments_app.open(700), "sandbox_timeout_after")
    await payments_app.confirm(await payments_app.open(0), "sandbox_ok")
    await payments_app.reconcile()

    summary, differences = await compare(payments_app)

    assert differences == []
    assert summary.matched == 3
    (euro,) = summary.sums
    assert euro.ours == euro.theirs == Money(amount=1999 - 500 + 700, currency="EUR")


async def test_captures_agree_and_authorizations_do_not_count(
    storage: tuple[str, Postgres | None],
) -> None:
    payments_app = build_payments_app(*storage, payments_capture="on_fulfilment")
    authorized = await payments_app.authorized()
    await payments_app.capture(authorized, 500)
    await payments_app.capture(authorized, 700)
    await payments_app.authorized()

    summary, differences = await compare(payments_app)

    assert differences == []
    assert summary.matched == 2
    (euro,) = summary.sums
    assert euro.ours == euro.theirs == Money(amount=1200, currency="EUR")


async def test_each_kind_of_difference_is_found(payments_app: PaymentsApp) -> None:
    report = ScriptedReport(payments_app)
    charges = []
    for _ in range(6):
        charges += await operations_of(payments_app, await payments_app.paid())
    match, missing, duplicate, amount, currency, kind = charges
    report.lines = [
        line_of(match, operation_id=None),
        line_of(duplicate),
        line_of(duplicate),
        line_of(amount, amount=Money(amount=1, currency="EUR")),
        line_of(currency, amount=Money(amount=1999, currency="USD")),
        line_of(kind, kind=ReportKind.REFUND),
        line_of(match, operation_id=None, reference="foreign"),
        line_of(match, kind=ReportKind.OTHER),
    ]

    summary, differences = await compare(payments_app)

    assert reasons(differences) == [
        "amount_differs",
        "currency_differs",
        "duplicate",
        "kind_differs",
        "missing_here",
        "missing_there",
    ]
    by_reason = {difference.reason: difference.operation_id for difference in differences}
    assert by_reason[DifferenceReason.MISSING_THERE] == missing.operation_id
    assert by_reason[DifferenceReason.AMOUNT_DIFFERS] == amount.operation_id
    assert (summary.matched, summary.other_lines) == (2, 1)


async def test_report_never_changes_a_payment(payments_app: PaymentsApp) -> None:
    report = ScriptedReport(payments_app)
    declined = await payments_app.confirm(await payments_app.open(), "sandbox_declined")
    (operation,) = await operations_of(payments_app, declined)
    report.lines = [line_of(operation)]

    _, differences = await compare(payments_app)

    assert reasons(differences) == ["missing_here"]
    assert (await payments_app.current(declined)).status is PaymentStatus.FAILED
    assert await payments_app.posting_count() == 0


async def test_open_operation_in_the_report_is_looked_up_at_the_provider(
    payments_app: PaymentsApp,
) -> None:
    unknown = await payments_app.confirm(await payments_app.open(), "sandbox_timeout_after")
    assert unknown.status is PaymentStatus.UNKNOWN

    summary, differences = await compare(payments_app)

    assert differences == []
    assert summary.matched == 1
    assert (await payments_app.current(unknown)).status is PaymentStatus.CAPTURED


async def test_open_operation_stays_open_if_the_provider_gives_no_answer(
    payments_app: PaymentsApp,
) -> None:
    report = ScriptedReport(payments_app)
    unknown = await payments_app.confirm(await payments_app.open(), "sandbox_timeout_after")
    (operation,) = await operations_of(payments_app, unknown)
    report.lines = [line_of(operation)]
    payments_app.gateway.before = PaymentGatewayTimeout()

    _, differences = await compare(payments_app)

    assert reasons(differences) == ["unsettled"]
    (operation,) = await operations_of(payments_app, unknown)
    assert operation.status is OperationStatus.UNKNOWN


async def test_operation_settled_on_the_next_day_counts_there(payments_app: PaymentsApp) -> None:
    payments_app.clock.now = NEXT_DAY - timedelta(seconds=1)
    unknown = await payments_app.confirm(await payments_app.open(), "sandbox_timeout_after")
    payments_app.clock.now = NEXT_DAY + timedelta(hours=2)
    await payments_app.reconcile()
    (operation,) = await operations_of(payments_app, unknown)
    assert operation.settled_at is not None
    assert operation.settled_at > NEXT_DAY

    first, differences_of_first = await compare(payments_app)
    second, differences_of_second = await compare(payments_app, NEXT_DAY)

    assert (differences_of_first, differences_of_second) == ([], [])
    assert (first.matched, second.matched) == (0, 1)


async def test_provider_that_books_after_midnight_agrees(payments_app: PaymentsApp) -> None:
    report = ScriptedReport(payments_app)
    payments_app.clock.now = NEXT_DAY - timedelta(milliseconds=1)
    (charge,) = await operations_of(payments_app, await payments_app.paid())
    assert charge.settled_at is not None
    assert charge.settled_at < NEXT_DAY
    report.lines = [line_of(charge, occurred_at=NEXT_DAY)]

    first, differences_of_first = await compare(payments_app)
    second, differences_of_second = await compare(payments_app, NEXT_DAY)

    assert (differences_of_first, differences_of_second) == ([], [])
    assert (first.matched, second.matched) == (1, 0)


async def test_lost_page_of_the_report_ends_the_comparison(payments_app: PaymentsApp) -> None:
    report = ScriptedReport(payments_app)
    report.error = PaymentGatewayTimeout()

    with pytest.raises(Unavailable):
        await compare(payments_app)


async def test_unknown_provider_and_provider_without_report_are_refused(
    payments_app: PaymentsApp,
) -> None:
    with pytest.raises(UnknownReportProvider):
        await compare(payments_app, provider="free")
    with pytest.raises(UnsupportedByProvider):
        await compare(payments_app, provider="manual")


# A file


async def test_bank_statement_matches_what_staff_marked_as_paid(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "manual:bank_transfer")
    await payments_app.mark_paid(payment, 1999)
    text = (
        "kind;amount;currency;occurred_at;reference\n"
        "payment;19.99;EUR;2026-11-21;2026-11-30/17\n"
        "other;-3.50;EUR;2026-11-21;monthly fee\n"
    )

    summary, differences = await compare_file(payments_app, text)

    assert differences == []
    assert (summary.matched, summary.other_lines) == (1, 1)
    assert (summary.starts_at, summary.ends_at) == (DAY, NEXT_DAY)


async def test_file_that_lacks_a_payment_shows_it(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "manual:bank_transfer")
    await payments_app.mark_paid(payment, 1999)
    text = "kind,amount,currency,occurred_at,reference\npayment,5,EUR,2026-11-21T10:00Z,x\n"

    summary, differences = await compare_file(payments_app, text)

    assert reasons(differences) == ["missing_here", "missing_there"]
    assert differences[-1].line == 2
    (euro,) = summary.sums
    assert euro.difference.amount == 1999 - 500


async def test_file_without_lines_needs_a_period(payments_app: PaymentsApp) -> None:
    header = "kind,amount,currency,occurred_at,reference\n"

    with pytest.raises(ReportFileInvalid):
        await compare_file(payments_app, header)
    summary, _ = await compare_file(payments_app, header, (DAY, NEXT_DAY))

    assert summary.matched == 0


# The job of each day


def daily(payments_app: PaymentsApp) -> DailyReconciliation:
    return payments_app.container.daily_reconciliation()


async def stored(payments_app: PaymentsApp, **query: Any) -> tuple[ReconciliationView, ...]:
    reconciliations = payments_app.container.reconciliations()
    page = await reconciliations.list_reconciliations(STAFF, ReconciliationQuery(**query))
    return page.items


async def test_job_compares_the_previous_day_once(payments_app: PaymentsApp) -> None:
    await payments_app.paid()
    payments_app.clock.now = NEXT_DAY + timedelta(hours=2, minutes=59)
    await daily(payments_app).run_due()
    assert await stored(payments_app) == ()

    payments_app.clock.now = NEXT_DAY + timedelta(hours=3)
    with capture_logs() as logs:
        await daily(payments_app).run_due()
        await daily(payments_app).run_due()

    (view,) = await stored(payments_app)
    assert (view.provider, view.starts_at, view.status) == ("sandbox", DAY, "completed")
    assert (view.matched, view.differences, view.attempts) == (1, 0, 1)
    completed = [line for line in logs if line["event"] == "reconciliation.completed"]
    assert [line["matched"] for line in completed] == [1]


async def test_job_stores_the_differences_and_counts_them(payments_app: PaymentsApp) -> None:
    report = ScriptedReport(payments_app)
    for _ in range(3):
        await payments_app.paid()
    (charge,) = await operations_of(payments_app, await payments_app.paid())
    report.lines = [line_of(charge, amount=Money(amount=1, currency="EUR"))]
    payments_app.clock.now = NEXT_DAY + timedelta(hours=3)

    await daily(payments_app).run_due()

    (view,) = await stored(payments_app)
    assert view.differences_by_reason == {"missing_there": 3, "amount_differs": 1}
    assert (view.differences, view.listed_differences) == (4, 4)
    labels = {"provider": "sandbox", "reason": "missing_there"}
    assert REGISTRY.get_sample_value("markethall_reconciliation_differences", labels) == 3
    reconciliations = payments_app.container.reconciliations()
    first = await reconciliations.list_differences(
        STAFF, view.reconciliation_id, DifferenceQuery(limit=3)
    )
    rest = await reconciliations.list_differences(
        STAFF, view.reconciliation_id, DifferenceQuery(limit=3, cursor=first.next_cursor)
    )
    filtered = await reconciliations.list_differences(
        STAFF, view.reconciliation_id, DifferenceQuery(reason=DifferenceReason.AMOUNT_DIFFERS)
    )
    assert (len(first.items), len(rest.items), rest.next_cursor) == (3, 1, None)
    assert [one.operation_id for one in filtered.items] == [charge.operation_id]


async def test_several_processes_compare_a_day_once(
    storage: tuple[str, Postgres | None], payments_app: PaymentsApp
) -> None:
    report = ScriptedReport(payments_app)
    await payments_app.paid()
    payments_app.clock.now = NEXT_DAY + timedelta(hours=3)
    jobs = [daily(payments_app)] * 4
    if storage[0] == "sql":
        others = [build_payments_app(*storage) for _ in range(3)]
        for other in others:
            other.clock.now = payments_app.clock.now
            other.gateway.report = report.report  # type: ignore[method-assign]  # the report of the provider
        jobs = [daily(payments_app), *map(daily, others)]

    await asyncio.gather(*(job.run_due() for job in jobs))

    assert len(report.requests) == 1
    assert [view.attempts for view in await stored(payments_app)] == [1]


async def test_job_tries_again_after_the_provider_was_down(payments_app: PaymentsApp) -> None:
    report = ScriptedReport(payments_app)
    (charge,) = await operations_of(payments_app, await payments_app.paid())
    payments_app.clock.now = NEXT_DAY + timedelta(hours=3)
    report.error = PaymentGatewayTimeout()

    with capture_logs() as logs:
        await daily(payments_app).run_due()
        await daily(payments_app).run_due()

    assert [line["event"] for line in logs] == ["reconciliation.unavailable"]
    (failed,) = await stored(payments_app)
    assert failed.status is ReconciliationStatus.FAILED
    report.error, report.lines = None, [line_of(charge)]
    payments_app.clock.advance(15 * 60)
    await daily(payments_app).run_due()

    (completed,) = await stored(payments_app)
    assert (completed.status, completed.attempts) == (ReconciliationStatus.COMPLETED, 2)
    assert (completed.matched, completed.differences) == (1, 0)


async def test_gauge_shows_the_latest_day_after_an_older_one_is_retried(
    payments_app: PaymentsApp,
) -> None:
    report, labels = (
        ScriptedReport(payments_app),
        {"provider": "sandbox", "reason": "missing_there"},
    )
    await payments_app.paid()
    payments_app.clock.now = NEXT_DAY + timedelta(hours=1)
    for _ in range(2):
        await payments_app.paid()
    end = NEXT_DAY + ONE_DAY
    report.error = PaymentGatewayTimeout()
    payments_app.clock.now = end + timedelta(hours=2, minutes=55)
    await daily(payments_app).run_due()
    report.error = None

    payments_app.clock.now = end + timedelta(hours=3)
    await daily(payments_app).run_due()
    before = REGISTRY.get_sample_value("markethall_reconciliation_differences", labels)
    payments_app.clock.advance(15 * 60)
    await daily(payments_app).run_due()

    assert [(one.starts_at, one.status) for one in await stored(payments_app)] == [
        (NEXT_DAY, "completed"),
        (DAY, "completed"),
    ]
    assert before == 2
    assert REGISTRY.get_sample_value("markethall_reconciliation_differences", labels) == 2


async def test_comparison_of_a_killed_process_is_started_again(payments_app: PaymentsApp) -> None:
    report = ScriptedReport(payments_app)
    await payments_app.paid()
    report.error = asyncio.CancelledError()
    payments_app.clock.now = NEXT_DAY + timedelta(hours=3)
    with pytest.raises(asyncio.CancelledError):
        await daily(payments_app).run_due()
    report.error = None

    await daily(payments_app).run_due()
    assert [view.status for view in await stored(payments_app)] == ["running"]
    payments_app.clock.advance(16 * 60)
    await daily(payments_app).run_due()

    (view,) = await stored(payments_app)
    assert (view.status, view.attempts) == ("completed", 2)
    assert view.differences_by_reason == {"missing_there": 1}


async def test_process_whose_comparison_was_taken_over_stores_nothing(
    payments_app: PaymentsApp,
) -> None:
    await payments_app.paid()
    payments_app.clock.now = NEXT_DAY + timedelta(hours=3)

    class SlowReport(ScriptedReport):
        async def report(self, start: datetime, end: datetime) -> AsyncIterator[ReportLine]:
            self.requests.append((start, end))
            if len(self.requests) == 1:
                # the first process is suspended, and another one takes over meanwhile
                payments_app.clock.advance(16 * 60)
                await daily(payments_app).run_due()
            return
            yield

    SlowReport(payments_app)
    with capture_logs() as logs:
        await daily(payments_app).run_due()

    assert [line["event"] for line in logs] == [
        "reconciliation.completed",
        "reconciliation.claim_lost",
    ]
    (view,) = await stored(payments_app)
    assert (view.attempts, view.listed_differences) == (2, 1)


async def test_job_makes_up_for_the_days_on_which_it_did_not_run(payments_app: PaymentsApp) -> None:
    await payments_app.paid()
    payments_app.clock.now = NEXT_DAY + timedelta(hours=3)
    await daily(payments_app).run_due()
    payments_app.clock.now = NEXT_DAY + timedelta(days=3, hours=3)
    await daily(payments_app).run_due()
    payments_app.clock.now = NEXT_DAY + timedelta(days=30, hours=3)

    await daily(payments_app).run_due()

    views = await stored(payments_app, limit=100)
    days = [(view.starts_at - DAY).days for view in views]
    assert days == [30, 29, 28, 27, 26, 25, 24, 3, 2, 1, 0]


async def test_day_that_failed_is_compared_although_later_days_agree(
    payments_app: PaymentsApp,
) -> None:
    report = ScriptedReport(payments_app)
    (charge,) = await operations_of(payments_app, await payments_app.paid())
    report.error = PaymentGatewayTimeout()
    payments_app.clock.now = NEXT_DAY + timedelta(days=1, hours=3)
    await daily(payments_app).run_due()
    report.error, report.lines = None, [line_of(charge)]

    await daily(payments_app).run_due()
    later_day = [view.starts_at for view in await stored(payments_app, status="completed")]
    payments_app.clock.advance(15 * 60)
    await daily(payments_app).run_due()

    assert later_day == [NEXT_DAY]
    completed = await stored(payments_app, status="completed")
    assert [view.starts_at for view in completed] == [NEXT_DAY, DAY]


async def test_shop_without_operations_is_not_compared(payments_app: PaymentsApp) -> None:
    await daily(payments_app).run_due()

    assert await stored(payments_app) == ()


async def test_error_of_the_report_is_logged_and_tried_again(payments_app: PaymentsApp) -> None:
    report = ScriptedReport(payments_app)
    await payments_app.paid()
    report.error = ZeroDivisionError()
    payments_app.clock.now = NEXT_DAY + timedelta(hours=3)

    with capture_logs() as logs:
        await daily(payments_app).run_due()

    assert [line["event"] for line in logs] == [
        "provider.call_failed",
        "reconciliation.unavailable",
    ]
    assert [view.status for view in await stored(payments_app, status="failed")] == ["failed"]


async def test_list_is_paged_and_filtered(payments_app: PaymentsApp) -> None:
    await payments_app.paid()
    payments_app.clock.now = NEXT_DAY + timedelta(days=2, hours=3)
    await daily(payments_app).run_due()
    reconciliations = payments_app.container.reconciliations()

    first = await reconciliations.list_reconciliations(STAFF, ReconciliationQuery(limit=2))
    rest = await reconciliations.list_reconciliations(
        STAFF, ReconciliationQuery(limit=2, cursor=first.next_cursor)
    )

    days = [view.starts_at for view in (*first.items, *rest.items)]
    assert days == [DAY + timedelta(days=2), DAY + timedelta(days=1), DAY]
    assert await stored(payments_app, provider="stripe") == ()
    assert len(await stored(payments_app, provider="sandbox", status="completed")) == 3
