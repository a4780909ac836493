"""Compare our operations with the report of a provider.

The lines of the report are matched with our operations in batches, and sorted; then both sides are
read in the same sequence. So the memory does not grow with the report.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import structlog
from pydantic import TypeAdapter

from markethall.payments.contract.errors import ReportFileInvalid
from markethall.payments.contract.reconciliation import (
    DifferenceView,
    OnDifferences,
    ReconciliationSummary,
    ReportKind,
)
from markethall.payments.contract.statuses import OperationStatus
from markethall.payments.domain.ledger import fee_postings_of
from markethall.payments.domain.operation import Operation
from markethall.payments.domain.reconciliation import (
    Comparison,
    ComparisonTotals,
    OperationIndex,
    RecordedOperation,
    ReportLine,
    ReportPeriod,
    ResolvedLine,
    compare_report,
)
from markethall.payments.domain.report_files import ReportFile
from markethall.payments.ports import ReadStore, ReportedIds, Store
from markethall.payments.service.apply_outcome import add_postings
from markethall.payments.service.provider_client import ProviderClient
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.database import Database, ReadDatabase
from markethall.shared.persistence.external_sort import ExternalSorter

log = structlog.get_logger("markethall.payments")

_BATCH_SIZE: Final = 500
# An outcome may be recorded long after it took effect, for example after an outage. For such
# operations, the report is read from at most this time before the period on.
_MAX_LOOK_BACK: Final = timedelta(days=7)
_RESOLVED_LINES: Final = TypeAdapter(ResolvedLine)

SettleOperation = Callable[[UUID], Awaitable[None]]


class FeeResult(StrEnum):
    RECORDED = "recorded"
    # the same fee was recorded before
    UNCHANGED = "unchanged"
    # another fee was recorded before; it stays, because postings are never changed
    DIFFERS = "differs"
    # there is no such operation, or it has not succeeded
    NO_SUCCEEDED_OPERATION = "no_succeeded_operation"


class RecordFee:
    """Records the fee of an operation that becomes known after the operation has succeeded."""

    def __init__(self, database: Database[ReadStore, Store], clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record_fee(self, operation_id: UUID, fee: Money) -> FeeResult:
        """Record the fee and add its posting. A repetition changes nothing.

        The fee may be in another currency than the operation. A negative fee is one that the
        provider returns. A fee of zero has no posting.
        """
        async with self._database.transaction() as store:
            locked = await store.get_payment_and_operation_for_update(operation_id)
            if locked is None or locked[1].status is not OperationStatus.SUCCEEDED:
                return FeeResult.NO_SUCCEEDED_OPERATION
            operation = locked[1]
            if operation.fee is not None:
                return _compare_fees(operation, fee)
            operation.record_fee(fee, self._clock())
            await store.save_fee(operation)
            await add_postings(store, fee_postings_of(operation))
        return FeeResult.RECORDED


class ReportComparison:
    """The use case of a comparison. `settle` looks up an open operation at its provider."""

    def __init__(
        self,
        database: ReadDatabase[ReadStore],
        provider: ProviderClient,
        settle: SettleOperation,
        record_fee: RecordFee,
        tolerance: timedelta,
    ) -> None:
        self._database = database
        self._provider = provider
        self._settle = settle
        self._record_fee = record_fee
        self._tolerance = tolerance

    async def compare_period(
        self,
        provider: str,
        start: datetime,
        end: datetime,
        on_differences: OnDifferences,
        *,
        record_fees: bool = False,
    ) -> ReconciliationSummary:
        """Compare with the report that the provider gives.

        `record_fees`: record the fee of each operation that agrees and has no fee yet.

        Raises UnknownReportProvider, UnsupportedByProvider, Unavailable, AmountOutOfRange.
        """
        self._provider.check_enabled(provider)
        async with self._database.read_session() as store:
            first = await store.get_first_creation(provider, start, end)
        read_from = max(min(first or start, start), start - _MAX_LOOK_BACK) - self._tolerance
        lines = self._provider.report(provider, read_from, end + self._tolerance)
        period = ReportPeriod(start, end, self._tolerance)
        return await self._compare(provider, lines, period, on_differences, record_fees=record_fees)

    async def compare_file(
        self,
        provider: str,
        file_lines: AsyncIterable[bytes],
        period: tuple[datetime, datetime] | None,
        on_differences: OnDifferences,
    ) -> ReconciliationSummary:
        """Compare with a CSV file. Without a period, compare the UTC days of its lines.

        Raises UnknownReportProvider, ReportFileInvalid, AmountOutOfRange.
        """
        self._provider.check_enabled(provider)
        lines = ReportFile(self._provider.report_row_parser(provider)).read(file_lines)
        file_period = ReportPeriod(*period, self._tolerance, is_file=True) if period else None
        return await self._compare(provider, lines, file_period, on_differences)

    async def _compare(
        self,
        provider: str,
        lines: AsyncIterator[ReportLine],
        period: ReportPeriod | None,
        on_differences: OnDifferences,
        *,
        record_fees: bool = False,
    ) -> ReconciliationSummary:
        totals = ComparisonTotals()
        with ExternalSorter(_RESOLVED_LINES, lambda resolved: resolved.sort_key) as sorter:
            collected = _Collected()
            async for batch in _batches(lines):
                collected.add(batch, period)
                for resolved in await self._resolve(provider, batch):
                    await sorter.add(resolved)
                await on_differences(())
            period = period or collected.whole_days(self._tolerance)
            totals.other_lines = collected.other_lines
            operations = self._list_operations(provider, period)
            comparisons = compare_report(operations, sorter.sorted_rows(), period)
            if record_fees:
                comparisons = self._record_fees(comparisons, totals)
            await _deliver(comparisons, totals, on_differences)
        return _to_summary(provider, period, totals)

    async def _resolve(self, provider: str, batch: Sequence[ReportLine]) -> Sequence[ResolvedLine]:
        """Find the operations of the lines. Open ones are looked up at the provider first."""
        lines = [line for line in batch if line.kind is not ReportKind.OTHER]
        operations = await self._find_operations(provider, lines)
        if open_ids := [one.operation_id for one in operations if one.is_open]:
            for operation_id in open_ids:
                await self._settle(operation_id)
            operations = await self._find_operations(provider, lines)
        index = OperationIndex(operations)
        return [index.resolve(line) for line in lines]

    async def _find_operations(
        self, provider: str, lines: Sequence[ReportLine]
    ) -> Sequence[RecordedOperation]:
        operation_ids = [line.operation_id for line in lines if line.operation_id]
        references = [line.reference for line in lines if line.reference]
        async with self._database.read_session() as store:
            return await store.find_reported_operations(
                provider, ReportedIds(operation_ids, references)
            )

    async def _list_operations(
        self, provider: str, period: ReportPeriod
    ) -> AsyncIterator[RecordedOperation]:
        after: tuple[datetime, UUID] | None = None
        while True:
            async with self._database.read_session() as store:
                page = await store.list_settled_operations(
                    provider, period.start, period.end, after, _BATCH_SIZE
                )
            for operation in page:
                yield operation
            if len(page) < _BATCH_SIZE:
                return
            after = page[-1].key

    async def _record_fees(
        self, comparisons: AsyncIterator[Comparison], totals: ComparisonTotals
    ) -> AsyncIterator[Comparison]:
        async for comparison in comparisons:
            operation, fee = comparison.operation, comparison.new_fee
            if operation and fee:
                result = await self._record_fee.record_fee(operation.operation_id, fee)
                totals.recorded_fees += result is FeeResult.RECORDED
            yield comparison


@dataclass
class _Collected:
    """The first and last time of the lines read, and the number of those of kind OTHER."""

    other_lines: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, batch: Sequence[ReportLine], period: ReportPeriod | None) -> None:
        times = [line.occurred_at for line in batch]
        self.first = min([*times, self.first or times[0]])
        self.last = max([*times, self.last or times[0]])
        self.other_lines += sum(
            line.kind is ReportKind.OTHER and (period is None or period.has(line.occurred_at))
            for line in batch
        )

    def whole_days(self, tolerance: timedelta) -> ReportPeriod:
        """Return the UTC days of the lines. Raises ReportFileInvalid if there are none."""
        if self.first is None or self.last is None:
            error = {"line": 1, "column": "", "message": "the file has no lines; give a period"}
            raise ReportFileInvalid(errors=[error])
        try:
            end = _start_of_day(self.last) + timedelta(days=1)
            return ReportPeriod(_start_of_day(self.first), end, tolerance, is_file=True)
        except OverflowError:
            error = {"line": 1, "column": "", "message": "a time is in the year 9999"}
            raise ReportFileInvalid(errors=[error]) from None


def _start_of_day(time: datetime) -> datetime:
    return time.replace(hour=0, minute=0, second=0, microsecond=0)


async def _batches(lines: AsyncIterator[ReportLine]) -> AsyncIterator[Sequence[ReportLine]]:
    batch: list[ReportLine] = []
    async for line in lines:
        batch.append(line)
        if len(batch) == _BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


async def _deliver(
    comparisons: AsyncIterator[Comparison], totals: ComparisonTotals, on_differences: OnDifferences
) -> None:
    batch: list[DifferenceView] = []
    async for comparison in comparisons:
        totals.add(comparison)
        if comparison.reason:
            batch.append(comparison.to_view())
        if len(batch) == _BATCH_SIZE:
            await on_differences(batch)
            batch = []
    await on_differences(batch)


def _to_summary(
    provider: str, period: ReportPeriod, totals: ComparisonTotals
) -> ReconciliationSummary:
    return ReconciliationSummary(
        provider=provider,
        starts_at=period.start,
        ends_at=period.end,
        matched=totals.matched,
        differences=totals.differences.total(),
        differences_by_reason=dict(sorted(totals.differences.items())),
        other_lines=totals.other_lines,
        edge_operations=totals.edge_operations,
        recorded_fees=totals.recorded_fees,
        sums=totals.sums(),
    )


def _compare_fees(operation: Operation, fee: Money) -> FeeResult:
    if operation.fee == fee:
        return FeeResult.UNCHANGED
    log.error(
        "ledger.fee_differs",
        operation_id=str(operation.operation_id),
        recorded=operation.fee_amount,
        recorded_currency=operation.fee_currency,
        reported=fee.amount,
        reported_currency=fee.currency,
    )
    return FeeResult.DIFFERS
