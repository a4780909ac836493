"""The port to the storage of comparisons with the reports of providers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.payments.contract.reconciliation import (
    DifferenceReason,
    DifferenceView,
    ReconciliationQuery,
    ReconciliationView,
)
from markethall.payments.domain.reconciliation import RecordedOperation
from markethall.shared.kernel.pagination import TimeKeyset


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """A stored comparison of our operations with a provider's report.

    If it has not completed, the job may start it again at `due_at`. Each start increments
    `view.attempts`; a write with an earlier number changes nothing.
    """

    view: ReconciliationView
    due_at: datetime


@dataclass(frozen=True)
class ReportedIds:
    """The ids of one batch of lines: our operation ids, and the references of the provider."""

    operation_ids: Sequence[UUID]
    references: Sequence[str]


class ReconciliationReadStore(Protocol):
    """Reads without locks."""

    async def find_reported_operations(
        self, provider: str, ids: ReportedIds
    ) -> Sequence[RecordedOperation]:
        """Return the operations with one of the ids or references that move money."""

    async def list_settled_operations(
        self,
        provider: str,
        start: datetime,
        end: datetime,
        after: tuple[datetime, UUID] | None,
        limit: int,
    ) -> Sequence[RecordedOperation]:
        """Return operations that move money and have succeeded from `start` until before `end`.

        They are sorted by their `key`, and begin after the key `after`.
        """

    async def get_first_creation(
        self, provider: str, start: datetime, end: datetime
    ) -> datetime | None:
        """Return the earliest `created_at` of the operations of `list_settled_operations`."""

    async def get_last_reconciled(self, provider: str) -> datetime | None:
        """Return the latest end of a completed comparison."""

    async def list_unfinished_starts(self, provider: str, earliest: datetime) -> Sequence[datetime]:
        """Return the starts, from `earliest` on, of comparisons that have not completed."""

    async def list_reconciliations(
        self, query: ReconciliationQuery, before: TimeKeyset | None
    ) -> Sequence[ReconciliationView]:
        """Return `query.limit` + 1 comparisons by the start of their period, the newest first."""

    async def get_reconciliation(self, reconciliation_id: UUID) -> ReconciliationView | None: ...
    async def list_differences(
        self, reconciliation_id: UUID, reason: DifferenceReason | None, after: int, limit: int
    ) -> Sequence[tuple[int, DifferenceView]]:
        """Return the differences behind the position `after`, each with its position."""


class ReconciliationStore(ReconciliationReadStore, Protocol):
    async def claim_reconciliation(
        self, reconciliation: Reconciliation, now: datetime
    ) -> ReconciliationView | None:
        """Insert the comparison. If one of its provider and period exists, start that one again.

        A restart deletes the stored differences. Return None if the existing one has completed, or
        is not due yet.
        """

    async def add_differences(
        self, reconciliation_id: UUID, first_position: int, differences: Sequence[DifferenceView]
    ) -> None: ...
    async def save_reconciliation(self, reconciliation: Reconciliation) -> bool:
        """Update a running comparison. Return False if another process has restarted it.

        The attempts of the stored row must be those of the comparison.
        """
