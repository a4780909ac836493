"""Reports of Stripe: the balance transactions of its API, and the files of its dashboard.

A balance transaction has the currency of the shop's bank account. Its source, a charge or refund,
has the amount and currency that the customer sees; the fee is that of the balance transaction.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog
from pydantic import ValidationError

from markethall.payments.domain.report_files import (
    parse_amount,
    parse_currency,
    parse_id,
    parse_reference,
    parse_time,
)
from markethall.payments.gateway.stripe.amounts import AmountNotSupported, from_stripe_amount
from markethall.payments.gateway.stripe.api import StripeApi
from markethall.payments.gateway.stripe.objects import (
    OPERATION_KEY,
    BalanceSource,
    BalanceTransaction,
)
from markethall.payments.ports import (
    InvalidReportCell,
    PaymentGatewayTimeout,
    ReportKind,
    ReportLine,
)
from markethall.shared.kernel.ids import parse_uuid
from markethall.shared.kernel.money import Money

log = structlog.get_logger("markethall.payments")

_PAGE_SIZE: Final = 100
# Source: https://docs.stripe.com/reports/reporting-categories. Categories such as payouts, fees and
# disputes are no operations of ours.
_CATEGORIES: Final = {
    "charge": ReportKind.PAYMENT,
    "refund": ReportKind.REFUND,
    # An authorization that was captured in part is reported with its whole amount. This line takes
    # the rest back.
    "partial_capture_reversal": ReportKind.REVERSAL,
}


async def list_report(api: StripeApi, start: datetime, end: datetime) -> AsyncIterator[ReportLine]:
    """Yield the balance transactions of a period, page by page, the newest first.

    Raises PaymentGatewayTimeout.
    """
    parameters: dict[str, Any] = {
        "created": {"gte": int(start.timestamp()), "lt": int(end.timestamp())},
        "limit": _PAGE_SIZE,
        "expand": ["data.source"],
    }
    while True:
        page = await api.list_balance_transactions(parameters)
        for transaction in page.data:
            yield to_report_line(transaction)
        if not page.has_more or not page.data:
            return
        parameters["starting_after"] = page.data[-1].id


def to_report_line(transaction: BalanceTransaction) -> ReportLine:
    """Convert a balance transaction. Raises PaymentGatewayTimeout if it cannot be read."""
    kind = _CATEGORIES.get(transaction.reporting_category)
    if kind is None or kind is ReportKind.REVERSAL:
        # the charge itself has the captured amount, so a reversal counts nothing
        return _other_line(transaction)
    source = _source_of(transaction)
    try:
        return ReportLine(
            kind=kind,
            amount=from_stripe_amount(source.moved_amount, source.currency),
            fee=from_stripe_amount(transaction.fee, transaction.currency),
            reference=_reference_of(source),
            operation_id=_operation_id_of(source),
            occurred_at=transaction.created_at,
        )
    except AmountNotSupported:
        # the gateway never sends such an amount, so the line is no operation of ours
        return _other_line(transaction)


def _source_of(transaction: BalanceTransaction) -> BalanceSource:
    try:
        return BalanceSource.model_validate(transaction.source)
    except ValidationError:
        log.warning("stripe.answer_unreadable", path="/v1/balance_transactions", id=transaction.id)
        raise PaymentGatewayTimeout from None


def _reference_of(source: BalanceSource) -> str:
    """Return the id that the gateway returns as its reference: of the intent, or of the refund."""
    intent_id = source.payment_intent if source.object == "charge" else None
    return intent_id or source.id


def _operation_id_of(source: BalanceSource) -> UUID | None:
    """Return our id of the charge, authorization or refund; None if the metadata has none."""
    return parse_uuid((source.metadata or {}).get(OPERATION_KEY, ""))


def _other_line(transaction: BalanceTransaction) -> ReportLine:
    return ReportLine(
        kind=ReportKind.OTHER,
        amount=Money.zero("USD"),
        reference=transaction.id,
        occurred_at=transaction.created_at,
    )


def parse_dashboard_row(row: Mapping[str, str]) -> ReportLine:
    """Parse a row of the report "Balance change from activity", itemized. Raises InvalidReportCell.

    Source: https://docs.stripe.com/reports/report-types/balance. Amounts are decimal numbers.
    """
    kind = _CATEGORIES.get(_cell(row, "reporting_category"), ReportKind.OTHER)
    amount_column, currency_column = "customer_facing_amount", "customer_facing_currency"
    if not row.get(amount_column):
        amount_column, currency_column = "gross", "currency"
    currency = parse_currency(currency_column, _cell(row, currency_column))
    return ReportLine(
        kind=kind,
        amount=parse_amount(amount_column, _cell(row, amount_column), currency, kind),
        fee=_parse_fee(row),
        reference=parse_reference("reference", _reference_in(row, kind)),
        operation_id=_operation_id_in(row, kind),
        occurred_at=parse_time("created_utc", _cell(row, "created_utc")),
    )


def _cell(row: Mapping[str, str], column: str) -> str:
    if not row.get(column):
        message = "is empty" if column in row else "is missing; export the report with this column"
        raise InvalidReportCell(column, message)
    return row[column]


def _parse_fee(row: Mapping[str, str]) -> Money | None:
    if not (text := row.get("fee")):
        return None
    currency = parse_currency("currency", _cell(row, "currency"))
    fee = parse_amount("fee", text, currency, ReportKind.OTHER)
    return Money(amount=-fee.amount, currency=currency) if text.startswith("-") else fee


def _reference_in(row: Mapping[str, str], kind: ReportKind) -> str:
    if kind is ReportKind.REFUND:
        return _cell(row, "source_id")
    if kind is ReportKind.OTHER:
        return row.get("source_id", "")
    if "payment_intent_id" not in row:
        _cell(row, "payment_intent_id")
    # a charge without an intent was not made by this gateway
    return row["payment_intent_id"] or _cell(row, "source_id")


def _operation_id_in(row: Mapping[str, str], kind: ReportKind) -> UUID | None:
    """Return the id in the metadata of a refund, if the file was exported with this column.

    Without the column, the reference identifies the refund.
    """
    if kind is not ReportKind.REFUND:
        # the operation of the metadata is the authorization, also for a capture
        return None
    column = f"refund_metadata[{OPERATION_KEY}]"
    return parse_id(column, row.get(column, ""))
