"""Reports of Stripe: its balance transactions over HTTP, and the files of its dashboard."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from markethall.payments.contract.api import OperationView, PaymentView
from markethall.payments.contract.reconciliation import (
    DifferenceView,
    ReconciliationSummary,
    ReportKind,
)
from markethall.payments.ports import InvalidReportCell, ReportLine
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import STAFF, START
from tests.payments.stripe_app import StripeApp, stripe_app
from tests.payments.stripe_server import Fault, StripeServer

DAY = START.replace(hour=0)
NEXT_DAY = DAY + timedelta(days=1)
COLUMNS = (
    "balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,source_id,"
    "customer_facing_amount,customer_facing_currency,charge_id,payment_intent_id,"
    "refund_metadata[markethall_operation_id]\n"
)


@pytest.fixture
async def app(storage: tuple[str, Postgres | None]) -> AsyncIterator[StripeApp]:
    async with StripeServer() as server, stripe_app(*storage, server) as payments_app:
        # the server then leaves fees out of its answers, so the shop reads them from the reports
        payments_app.stripe.books_late = True
        yield payments_app


async def compare(
    app: StripeApp, text: str | None = None
) -> tuple[ReconciliationSummary, list[DifferenceView]]:
    found: list[DifferenceView] = []

    async def collect(batch: Sequence[DifferenceView]) -> None:
        found.extend(batch)

    async def lines(content: str) -> AsyncIterator[bytes]:
        for line in content.encode().splitlines(keepends=True):
            yield line

    comparison = app.container.report_comparison()
    period = (DAY, NEXT_DAY)
    if text is not None:
        summary = await comparison.compare_file("stripe", lines(text), period, collect)
    else:
        summary = await comparison.compare_period("stripe", *period, collect)
    return summary, found


async def report(app: StripeApp) -> list[ReportLine]:
    (gateway,) = app.container.gateways()
    return [line async for line in gateway.report(DAY, NEXT_DAY)]


async def operations(app: StripeApp, payment: PaymentView) -> Sequence[OperationView]:
    page = await app.payment_api.list_operations(STAFF, payment.payment_id, PageQuery())
    return page.items


def reasons(differences: Sequence[DifferenceView]) -> list[str]:
    return sorted(difference.reason for difference in differences)


async def test_charges_and_refunds_agree_over_several_pages(app: StripeApp) -> None:
    for _ in range(4):
        await app.refund(await app.paid(), 500)

    summary, differences = await compare(app)

    assert differences == []
    assert summary.matched == 8
    (euro,) = summary.sums
    assert (euro.ours, euro.fees) == (
        Money(amount=4 * 1499, currency="EUR"),
        Money(amount=4 * 30, currency="EUR"),
    )
    # two transactions on a page
    assert app.stripe.requests["list_balance"] == 4


async def test_job_posts_the_fees_of_the_report_once(app: StripeApp) -> None:
    payment = await app.paid()
    await app.refund(payment, 500)
    app.clock.now = NEXT_DAY + timedelta(hours=3)

    with capture_logs() as logs:
        await app.container.daily_reconciliation().run_due()
    again, differences = await compare(app)

    charge, refund = await operations(app, payment)
    assert charge.fee == Money(amount=30, currency="EUR")
    assert refund.fee == Money(amount=0, currency="EUR")
    assert [line["recorded_fees"] for line in logs if "recorded_fees" in line] == [2]
    assert (again.matched, differences) == (2, [])
    report = await app.container.ledger().verify(STAFF)
    assert report.balanced


async def test_fee_that_differs_is_shown_and_not_posted(app: StripeApp) -> None:
    payment = await app.paid()
    (charge,) = await operations(app, payment)
    await app.container.record_fee().record_fee(
        charge.operation_id, Money(amount=29, currency="EUR")
    )
    app.clock.now = NEXT_DAY + timedelta(hours=3)

    await app.container.daily_reconciliation().run_due()
    _, differences = await compare(app)

    (charge,) = await operations(app, payment)
    assert charge.fee == Money(amount=29, currency="EUR")
    assert reasons(differences) == ["fee_differs"]


async def test_refund_in_the_dashboard_is_missing_here(app: StripeApp) -> None:
    await app.paid()
    (intent,) = app.stripe.intents.values()
    app.stripe._refund("", {"payment_intent": intent["id"], "amount": "700", "metadata": {}})

    _, differences = await compare(app)

    assert reasons(differences) == ["missing_here"]
    assert differences[0].provider_reference in app.stripe.refunds


async def test_charge_that_stripe_does_not_have_is_missing_there(app: StripeApp) -> None:
    await app.paid()
    app.stripe.intents.clear()

    _, differences = await compare(app)

    assert reasons(differences) == ["missing_there"]


async def test_amounts_are_those_of_the_customer_and_fees_those_of_the_account(
    app: StripeApp,
) -> None:
    await app.paid()
    (transaction,) = app.stripe.transactions()
    app.stripe.intents.clear()
    # the bank account of the shop is in dollars
    app.stripe.other_transactions = [transaction | {"amount": 2150, "currency": "usd", "fee": 92}]

    (line,) = await report(app)
    _, differences = await compare(app)

    assert line.amount == Money(amount=1999, currency="EUR")
    assert line.fee == Money(amount=92, currency="USD")
    assert differences == []


async def test_partial_capture_has_the_captured_amount(app: StripeApp) -> None:
    await app.paid()
    (intent,) = app.stripe.intents.values()
    intent["amount_received"] = 1500
    reversal = {"id": "re_reversal", "object": "refund", "amount": 499, "currency": "eur"}
    app.stripe.other_transactions = [
        app.stripe.build_transaction("partial_capture_reversal", reversal)
    ]

    lines = await report(app)

    assert sorted((line.kind, line.amount.amount) for line in lines) == [
        (ReportKind.OTHER, 0),
        (ReportKind.PAYMENT, 1500),
    ]


@pytest.mark.parametrize("category", ["payout", "fee", "dispute", "a category of tomorrow"])
async def test_other_transactions_are_only_counted(app: StripeApp, category: str) -> None:
    payout = {"id": "po_1", "object": "payout", "metadata": None}
    app.stripe.other_transactions = [app.stripe.build_transaction(category, payout)]

    summary, differences = await compare(app)

    assert (summary.other_lines, differences) == (1, [])


async def test_currency_that_the_gateway_never_sends_is_only_counted(app: StripeApp) -> None:
    charge = {"id": "ch_1", "object": "charge", "amount": 1, "currency": "clf"}
    app.stripe.other_transactions = [app.stripe.build_transaction("charge", charge)]

    summary, differences = await compare(app)

    assert (summary.other_lines, differences) == (1, [])


@pytest.mark.parametrize(
    "fault",
    [
        Fault.LOST_AFTER,
        Fault.RATE_LIMITED,
        Fault.SERVER_ERROR_AFTER,
        Fault.GATEWAY_ERROR_AFTER,
        Fault.GARBAGE,
        Fault.NO_OBJECT,
    ],
)
async def test_unreadable_page_ends_the_comparison(app: StripeApp, fault: Fault) -> None:
    for _ in range(3):
        await app.paid()
    app.stripe.fail("list_balance", fault)

    with pytest.raises(Unavailable):
        await compare(app)

    assert (await compare(app))[1] == []


async def test_charge_without_readable_source_ends_the_comparison(app: StripeApp) -> None:
    app.stripe.other_transactions = [app.stripe.build_transaction("charge", {"id": "ch_1"})]

    with pytest.raises(Unavailable):
        await compare(app)


async def test_rejected_key_ends_the_comparison(app: StripeApp) -> None:
    app.stripe.rejects_key = True

    with pytest.raises(Unavailable):
        await compare(app)


# Files of the dashboard


def dashboard_row(**values: str) -> str:
    row = {
        "balance_transaction_id": "txn_1",
        "created_utc": "2026-11-21 12:00:00",
        "currency": "usd",
        "gross": "21.50",
        "fee": "0.92",
        "net": "20.58",
        "reporting_category": "charge",
        "source_id": "ch_1",
        "customer_facing_amount": "19.99",
        "customer_facing_currency": "eur",
        "charge_id": "ch_1",
        "payment_intent_id": "",
        "refund_metadata": "",
    } | values
    return ",".join(row.values()) + "\n"


async def test_file_of_the_dashboard_agrees(app: StripeApp) -> None:
    payment = await app.paid()
    refund = await app.refund(payment, 500)
    (intent,) = app.stripe.intents
    (refund_reference,) = app.stripe.refunds
    text = (
        COLUMNS
        + dashboard_row(payment_intent_id=intent)
        + dashboard_row(
            reporting_category="refund",
            source_id=refund_reference,
            gross="-5.38",
            fee="0.00",
            customer_facing_amount="-5.00",
            payment_intent_id=intent,
            refund_metadata=str(refund.refund_id),
        )
        + dashboard_row(
            reporting_category="payout",
            gross="-20.00",
            customer_facing_amount="",
            customer_facing_currency="",
        )
    )

    summary, differences = await compare(app, text)

    assert differences == []
    assert (summary.matched, summary.other_lines) == (2, 1)


async def test_reversal_in_a_file_reduces_the_payment(app: StripeApp) -> None:
    await app.paid(1500)
    (intent,) = app.stripe.intents
    reversal = {"reporting_category": "partial_capture_reversal", "payment_intent_id": intent}
    text = (
        COLUMNS
        + dashboard_row(**reversal, customer_facing_amount="-4.99")
        + dashboard_row(payment_intent_id=intent)
    )

    _, differences = await compare(app, text)

    assert differences == []


async def test_charge_without_intent_is_missing_here(app: StripeApp) -> None:
    _, differences = await compare(app, COLUMNS + dashboard_row())

    assert [(one.reason, one.provider_reference) for one in differences] == [
        ("missing_here", "ch_1")
    ]


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"payment_intent_id": None}, "payment_intent_id"),
        ({"reporting_category": None}, "reporting_category"),
        ({"created_utc": ""}, "created_utc"),
        ({"customer_facing_currency": "euro"}, "customer_facing_currency"),
        ({"customer_facing_amount": "-1"}, "customer_facing_amount"),
        ({"reporting_category": "refund", "source_id": ""}, "source_id"),
        ({"fee": "?"}, "fee"),
    ],
)
async def test_invalid_row_of_the_dashboard_names_its_column(
    app: StripeApp, changes: dict[str, Any], column: str
) -> None:
    names = COLUMNS.strip().split(",")
    row: dict[str, str] = dict(zip(names, dashboard_row().strip().split(","), strict=True))
    for name, value in changes.items():
        row.pop(name)
        if value is not None:
            row[name] = value
    (gateway,) = app.container.gateways()

    with pytest.raises(InvalidReportCell) as raised:
        gateway.parse_report_row(row)

    assert raised.value.column == column
