"""Rules for the comparison of our operations with the report of a provider.

Both sides arrive sorted, so the comparison holds only one operation in memory.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Self
from uuid import UUID

from markethall.payments.contract.reconciliation import (
    CurrencySums,
    DifferenceReason,
    DifferenceView,
    ReconciledEntry,
    ReportKind,
)
from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.payments.domain.operation import Operation
from markethall.shared.kernel.money import Money, money_in_range

_LAST: Final = datetime.max.replace(tzinfo=UTC)
_NO_ID: Final = UUID(int=0)
_KINDS: Final = {
    OperationKind.CHARGE: ReportKind.PAYMENT,
    OperationKind.CAPTURE: ReportKind.PAYMENT,
    OperationKind.REFUND: ReportKind.REFUND,
}
# the operations that move money
MONEY_KINDS: Final = frozenset(_KINDS)


@dataclass(frozen=True, kw_only=True)
class ReportLine:
    """A line in the report of a provider; `amount` is not negative.

    `reference` is the provider's id of the operation, or empty if the line has only our
    `operation_id`. `fee` may be in another currency. `line` is the number of the line in a file.
    """

    kind: ReportKind
    amount: Money
    occurred_at: datetime
    reference: str = ""
    operation_id: UUID | None = None
    fee: Money | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class RecordedOperation:
    """The fields of an operation of ours that the comparison needs. The operation moves money."""

    operation_id: UUID
    payment_id: UUID
    kind: OperationKind
    status: OperationStatus
    amount: Money
    reference: str | None
    created_at: datetime
    settled_at: datetime | None
    fee: Money | None = None

    @classmethod
    def of(cls, operation: Operation) -> Self:
        return cls(
            operation_id=operation.operation_id,
            payment_id=operation.payment_id,
            kind=operation.kind,
            status=operation.status,
            amount=operation.money,
            reference=operation.provider_reference,
            created_at=operation.created_at,
            settled_at=operation.settled_at,
            fee=operation.fee,
        )

    @property
    def report_kind(self) -> ReportKind:
        return _KINDS[self.kind]

    @property
    def is_open(self) -> bool:
        return self.settled_at is None

    @property
    def key(self) -> tuple[datetime, UUID]:
        """Return the sort key of operations: the time at which they were settled, and the id."""
        return self.settled_at or _LAST, self.operation_id


@dataclass(frozen=True)
class ResolvedLine:
    """A line of the report, and the operation of ours that it is about."""

    line: ReportLine
    operation: RecordedOperation | None = None

    @property
    def succeeded(self) -> RecordedOperation | None:
        """Return the operation if it has succeeded."""
        operation = self.operation
        return operation if operation and operation.status is OperationStatus.SUCCEEDED else None

    @property
    def group(self) -> tuple[datetime, UUID, str, str]:
        """Return the part of the sort key that lines of one operation share.

        Lines of succeeded operations have the key of their operation; all other lines come last.
        """
        if succeeded := self.succeeded:
            return *succeeded.key, "", ""
        operation_id = self.operation.operation_id if self.operation else _NO_ID
        name = self.line.reference or str(self.line.operation_id)
        return _LAST, operation_id, name, self.line.kind

    @property
    def sort_key(self) -> tuple[tuple[datetime, UUID, str, str], bool, str]:
        """Sort the lines of one operation by kind: first those that have its kind."""
        kind = self.line.kind
        is_other_kind = self.operation is not None and kind is not self.operation.report_kind
        return self.group, is_other_kind, kind


class OperationIndex:
    """Finds the operation of a line: by our id or, without one, by the provider's reference.

    Several operations may have one reference. One of the same kind and amount is preferred.
    """

    def __init__(self, operations: Iterable[RecordedOperation]) -> None:
        self._by_id: dict[UUID, RecordedOperation] = {}
        self._by_reference: defaultdict[str, list[RecordedOperation]] = defaultdict(list)
        for operation in operations:
            self._by_id[operation.operation_id] = operation
            if operation.reference:
                self._by_reference[operation.reference].append(operation)

    def resolve(self, line: ReportLine) -> ResolvedLine:
        operation = self._by_id.get(line.operation_id) if line.operation_id else None
        candidates = self._by_reference.get(line.reference, ())
        return ResolvedLine(
            line, operation or max(candidates, key=partial(_likeness, line), default=None)
        )


def _likeness(line: ReportLine, operation: RecordedOperation) -> tuple[bool, bool, bool, UUID]:
    is_payment = operation.report_kind is ReportKind.PAYMENT
    return (
        is_payment if line.kind is ReportKind.REVERSAL else operation.report_kind is line.kind,
        operation.status is OperationStatus.SUCCEEDED,
        operation.amount == line.amount,
        operation.operation_id,
    )


@dataclass(frozen=True)
class ReportPeriod:
    """The time from `start` until before `end`.

    Our clock and that of the provider differ, and an outcome is recorded some time after it took
    effect. So an operation of ours belongs to the period in which it was settled. The time of its
    line may be before the period, or less than `tolerance` after its end.
    """

    start: datetime
    end: datetime
    tolerance: timedelta
    # the report is a file, which has no lines beyond the period
    is_file: bool = False

    def has(self, time: datetime) -> bool:
        return self.start <= time < self.end

    def includes(self, resolved: ResolvedLine) -> bool:
        """Tell whether a line counts in this period.

        The line of an operation that was settled later counts in that later period. The line of
        one that was settled earlier counts here only if the earlier period has not read it.
        """
        occurred_at = resolved.line.occurred_at
        succeeded = resolved.succeeded
        if succeeded is None or succeeded.settled_at is None:
            return self.has(occurred_at)
        if succeeded.settled_at < self.start:
            return self.has(occurred_at) and occurred_at >= self.start + self.tolerance
        return succeeded.settled_at < self.end

    def is_at_edge(self, operation: RecordedOperation) -> bool:
        """Tell whether the file of a neighbouring period may have the line of an operation."""
        settled_at = operation.settled_at or self.end
        is_near = (
            min(settled_at, operation.created_at) < self.start + self.tolerance
            or settled_at >= self.end - self.tolerance
        )
        return self.is_file and is_near


@dataclass(frozen=True)
class Comparison:
    """The result for an operation, a line, or both. Without a reason they agree.

    `line` is the line after its reversals.
    """

    reason: DifferenceReason | None
    operation: RecordedOperation | None = None
    line: ReportLine | None = None
    is_at_edge: bool = False

    @property
    def new_fee(self) -> Money | None:
        """Return the fee in the report if both sides agree and we have recorded none."""
        if self.reason or self.operation is None or self.operation.fee or self.line is None:
            return None
        return self.line.fee

    def to_view(self) -> DifferenceView:
        """Return the difference. Raises ValueError if there is none."""
        if self.reason is None:
            raise ValueError("the operation and the line agree")
        ours, line = self.operation, self.line
        return DifferenceView(
            reason=self.reason,
            provider_reference=(line and line.reference) or (ours and ours.reference) or None,
            operation_id=ours.operation_id if ours else getattr(line, "operation_id", None),
            payment_id=ours.payment_id if ours else None,
            ours=_entry_of(ours) if ours else None,
            theirs=ReconciledEntry(
                kind=line.kind, amount=line.amount, fee=line.fee, occurred_at=line.occurred_at
            )
            if line
            else None,
            line=line.line if line else None,
        )


def _entry_of(operation: RecordedOperation) -> ReconciledEntry:
    return ReconciledEntry(
        kind=operation.report_kind,
        amount=operation.amount,
        fee=operation.fee,
        occurred_at=operation.settled_at or operation.created_at,
    )


async def compare_report(
    operations: AsyncIterator[RecordedOperation],
    lines: AsyncIterator[ResolvedLine],
    period: ReportPeriod,
) -> AsyncIterator[Comparison]:
    """Compare the operations that succeeded in the period with the lines of the report.

    `operations` are sorted by `key`, `lines` by `sort_key`.
    """
    operation = await anext(operations, None)
    group: _LineGroup | None = None
    async for resolved in lines:
        if not period.includes(resolved):
            continue
        if group and group.key == resolved.group:
            if (comparison := group.add(resolved.line)) is not None:
                yield comparison
            continue
        if group:
            yield group.compare()
        while operation and operation.key < resolved.group[:2]:
            yield _missing_there(operation, period)
            operation = await anext(operations, None)
        if operation and operation.key == resolved.group[:2]:
            operation = await anext(operations, None)
        group = _LineGroup(resolved)
    if group:
        yield group.compare()
    while operation:
        yield _missing_there(operation, period)
        operation = await anext(operations, None)


class _LineGroup:
    """The lines of one operation. Keeps only the first line, minus the reversals."""

    def __init__(self, first: ResolvedLine) -> None:
        self.key = first.group
        self._operation = first.operation
        self._is_succeeded = first.succeeded is not None
        self._line = first.line

    def add(self, line: ReportLine) -> Comparison | None:
        """Return the difference, or None for a reversal."""
        first = self._line
        is_reversal = line.kind is ReportKind.REVERSAL and first.kind is ReportKind.PAYMENT
        if is_reversal and line.amount.currency == first.amount.currency:
            self._line = _reversed(first, line)
            return None
        if line.kind is first.kind:
            return Comparison(DifferenceReason.DUPLICATE, self._operation, line)
        return Comparison(DifferenceReason.MISSING_HERE, None, line)

    def compare(self) -> Comparison:
        operation = self._operation
        if operation and operation.is_open:
            return Comparison(DifferenceReason.UNSETTLED, operation, self._line)
        if operation is None or not self._is_succeeded:
            return Comparison(DifferenceReason.MISSING_HERE, operation, self._line)
        return Comparison(_difference(operation, self._line), operation, self._line)


def _reversed(payment: ReportLine, reversal: ReportLine) -> ReportLine:
    amount = payment.amount.amount - reversal.amount.amount
    return replace(payment, amount=Money(amount=amount, currency=payment.amount.currency))


def _missing_there(operation: RecordedOperation, period: ReportPeriod) -> Comparison:
    if period.is_at_edge(operation):
        return Comparison(None, operation, is_at_edge=True)
    return Comparison(DifferenceReason.MISSING_THERE, operation)


def _difference(operation: RecordedOperation, line: ReportLine) -> DifferenceReason | None:
    if operation.report_kind is not line.kind:
        return DifferenceReason.KIND_DIFFERS
    if operation.amount.currency != line.amount.currency:
        return DifferenceReason.CURRENCY_DIFFERS
    if operation.amount != line.amount:
        return DifferenceReason.AMOUNT_DIFFERS
    if operation.fee and line.fee and operation.fee != line.fee:
        return DifferenceReason.FEE_DIFFERS
    return None


@dataclass
class ComparisonTotals:
    """The counts and sums of comparisons. Amounts are in minor units, by currency."""

    matched: int = 0
    other_lines: int = 0
    edge_operations: int = 0
    recorded_fees: int = 0
    differences: Counter[DifferenceReason] = field(default_factory=Counter)
    _ours: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _theirs: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _fees: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, comparison: Comparison) -> None:
        if comparison.is_at_edge:
            self.edge_operations += 1
            return
        if comparison.reason:
            self.differences[comparison.reason] += 1
        else:
            self.matched += 1
        operation, line = comparison.operation, comparison.line
        if operation and _counts(operation, comparison.reason):
            self._ours[operation.amount.currency] += _signed(
                operation.report_kind, operation.amount
            )
        if line:
            self._theirs[line.amount.currency] += _signed(line.kind, line.amount)
            if line.fee:
                self._fees[line.fee.currency] += line.fee.amount

    def sums(self) -> tuple[CurrencySums, ...]:
        """Return the sums, by currency. Raises AmountOutOfRange."""
        currencies = sorted({*self._ours, *self._theirs, *self._fees})
        return tuple(
            CurrencySums(
                ours=money_in_range(self._ours[currency], currency),
                theirs=money_in_range(self._theirs[currency], currency),
                difference=money_in_range(self._ours[currency] - self._theirs[currency], currency),
                fees=money_in_range(self._fees[currency], currency),
            )
            for currency in currencies
        )


def _counts(operation: RecordedOperation, reason: DifferenceReason | None) -> bool:
    """Tell whether the operation counts in our sum: once, and only if it has succeeded."""
    is_succeeded = operation.status is OperationStatus.SUCCEEDED
    return is_succeeded and reason is not DifferenceReason.DUPLICATE


def _signed(kind: ReportKind, amount: Money) -> int:
    return amount.amount if kind is ReportKind.PAYMENT else -amount.amount
