"""Operations and report lines for the tests of the reconciliation."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from markethall.payments.contract.reconciliation import ReportKind
from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.payments.domain.reconciliation import (
    Comparison,
    OperationIndex,
    RecordedOperation,
    ReportLine,
    ReportPeriod,
    compare_report,
)
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money

T = TypeVar("T")

DAY: Final = datetime(2026, 11, 20, tzinfo=UTC)
NOON: Final = DAY + timedelta(hours=12)
TOLERANCE: Final = timedelta(minutes=15)
PERIOD: Final = ReportPeriod(DAY, DAY + timedelta(days=1), TOLERANCE)
MOMENT: Final = timedelta(milliseconds=1)


def money(amount: int, currency: str = "EUR") -> Money:
    return Money(amount=amount, currency=currency)


def operation(
    kind: OperationKind = OperationKind.CHARGE, amount: int = 1999, **values: Any
) -> RecordedOperation:
    operation_id = new_id()
    fields: dict[str, Any] = {
        "operation_id": operation_id,
        "payment_id": new_id(),
        "status": OperationStatus.SUCCEEDED,
        "amount": money(amount),
        "reference": f"ref_{operation_id.hex}",
        "created_at": NOON,
        "settled_at": NOON,
    }
    return RecordedOperation(kind=kind, **fields | values)


def line_of(recorded: RecordedOperation, **changes: Any) -> ReportLine:
    line = ReportLine(
        kind=recorded.report_kind,
        amount=recorded.amount,
        reference=recorded.reference or "",
        operation_id=recorded.operation_id,
        occurred_at=recorded.settled_at or recorded.created_at,
        fee=recorded.fee,
    )
    return replace(line, **changes)


def foreign_line(**changes: Any) -> ReportLine:
    line = ReportLine(
        kind=ReportKind.PAYMENT, amount=money(500), reference="ref_foreign", occurred_at=NOON
    )
    return replace(line, **changes)


async def compare(
    operations: Iterable[RecordedOperation],
    lines: Iterable[ReportLine],
    period: ReportPeriod = PERIOD,
) -> list[Comparison]:
    """Compare like the service: the operations settled in the period with the lines, sorted."""
    known = list(operations)
    index = OperationIndex(known)
    of_period = [
        one
        for one in known
        if one.status is OperationStatus.SUCCEEDED and one.settled_at and period.has(one.settled_at)
    ]
    resolved = sorted(map(index.resolve, lines), key=lambda one: one.sort_key)
    settled = sorted(of_period, key=lambda one: one.key)
    return [one async for one in compare_report(stream(settled), stream(resolved), period)]


def differences(comparisons: Sequence[Comparison]) -> list[str]:
    return sorted(one.reason for one in comparisons if one.reason)


async def stream(rows: Iterable[T]) -> AsyncIterator[T]:
    for row in rows:
        yield row
