"""The comparison of our operations with the report of a payment provider."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from typing_extensions import TypeAliasType

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto, Text
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import Page, PageQuery


class ReportKind(StrEnum):
    """The kind of a line in the report of a provider."""

    PAYMENT = "payment"
    REFUND = "refund"
    # a part of the payment with the same reference that the provider in the end has not taken, for
    # example because it was not captured
    REVERSAL = "reversal"
    # a line that is no operation of the shop, such as a payout or a dispute; it is only counted
    OTHER = "other"


class DifferenceReason(StrEnum):
    """The reason why a line of the report and our operation do not agree.

    If several reasons apply, the first in this sequence is given.
    """

    # the report has a line, but no operation of ours has succeeded
    MISSING_HERE = "missing_here"
    # our operation has succeeded, but the report has no line
    MISSING_THERE = "missing_there"
    # the report has a second line of the same operation
    DUPLICATE = "duplicate"
    # the report has a line, but the outcome of our operation is not known yet
    UNSETTLED = "unsettled"
    KIND_DIFFERS = "kind_differs"
    CURRENCY_DIFFERS = "currency_differs"
    AMOUNT_DIFFERS = "amount_differs"
    FEE_DIFFERS = "fee_differs"


class ReconciliationStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    # the provider gave no report; the job tries again
    FAILED = "failed"


class ReconciledEntry(Dto):
    """One side of a comparison: our operation, or the line of the report."""

    kind: ReportKind
    amount: Money
    fee: Money | None = None
    occurred_at: datetime


class DifferenceView(Dto):
    """A difference. `ours` is null if we have no operation, `theirs` if the report has no line.

    `line` is the number of the line if the report was a file.
    """

    reason: DifferenceReason
    provider_reference: str | None = None
    operation_id: UUID | None = None
    payment_id: UUID | None = None
    ours: ReconciledEntry | None = None
    theirs: ReconciledEntry | None = None
    line: int | None = None


class CurrencySums(Dto):
    """The sums of one currency: payments minus refunds. `fees` are those in the report.

    `difference` is ours minus theirs.
    """

    ours: Money
    theirs: Money
    difference: Money
    fees: Money


class ReconciliationSummary(Dto):
    """The result of a comparison for the time from `starts_at` until before `ends_at`.

    `other_lines` counts the lines that are no operation of ours, such as payouts. `edge_operations`
    counts operations near the start or end that a file does not have: the file of the period before
    or after may have them. They are neither differences nor in the sums. `recorded_fees` counts
    fees that only the report had, and that the daily job has recorded.
    """

    provider: str
    starts_at: datetime
    ends_at: datetime
    matched: int
    differences: int
    differences_by_reason: dict[DifferenceReason, int]
    other_lines: int
    edge_operations: int
    recorded_fees: int = 0
    sums: tuple[CurrencySums, ...]

    @property
    def last_day(self) -> date:
        """Return the UTC day in which the compared time ends."""
        return (self.ends_at - timedelta.resolution).date()


class ReconciliationView(ReconciliationSummary):
    """A stored comparison. Only the first `listed_differences` differences are stored."""

    reconciliation_id: UUID
    status: ReconciliationStatus
    attempts: int
    listed_differences: int
    started_at: datetime
    finished_at: datetime | None = None


class ReconciliationQuery(PageQuery):
    """Filters of the list of comparisons."""

    provider: Text | None = None
    status: ReconciliationStatus | None = None


class DifferenceQuery(PageQuery):
    """Filters of the list of differences."""

    reason: DifferenceReason | None = None


OnDifferences = TypeAliasType(
    "OnDifferences", Callable[[Sequence[DifferenceView]], Awaitable[None]]
)


class Reconciliations(Protocol):
    """Comparisons with the reports of providers. Staff only."""

    async def list_reconciliations(
        self, ctx: CallContext, query: ReconciliationQuery
    ) -> Page[ReconciliationView]:
        """Return the stored comparisons, the newest period first. Raises CursorInvalid."""

    async def get_reconciliation(
        self, ctx: CallContext, reconciliation_id: UUID
    ) -> ReconciliationView:
        """Raises ReconciliationNotFound."""

    async def list_differences(
        self, ctx: CallContext, reconciliation_id: UUID, query: DifferenceQuery
    ) -> Page[DifferenceView]:
        """Return the stored differences of a comparison.

        Raises ReconciliationNotFound, CursorInvalid.
        """
