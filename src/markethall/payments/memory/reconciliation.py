"""The in-memory store of comparisons with the reports of providers."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.payments.contract.reconciliation import (
    DifferenceReason,
    DifferenceView,
    ReconciliationQuery,
    ReconciliationStatus,
    ReconciliationView,
)
from markethall.payments.contract.statuses import OperationStatus
from markethall.payments.domain.reconciliation import MONEY_KINDS, RecordedOperation
from markethall.payments.memory.tables import Tables
from markethall.payments.ports import Reconciliation, ReportedIds
from markethall.shared.composition.memory import MemoryUnitOfWork
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import TimeKeyset


class MemoryReconciliationStore(MemoryUnitOfWork):
    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def find_reported_operations(
        self, provider: str, ids: ReportedIds
    ) -> Sequence[RecordedOperation]:
        operation_ids, references = set(ids.operation_ids), set(ids.references)
        found = self._tables.operations.where(
            lambda one: (
                one.provider == provider
                and one.kind in MONEY_KINDS
                and (one.operation_id in operation_ids or one.provider_reference in references)
            )
        )
        return [RecordedOperation.of(operation) for operation in found]

    async def list_settled_operations(
        self,
        provider: str,
        start: datetime,
        end: datetime,
        after: tuple[datetime, UUID] | None,
        limit: int,
    ) -> Sequence[RecordedOperation]:
        found = self._settled_operations(provider, start, end)
        found.sort(key=lambda one: one.key)
        return [one for one in found if after is None or one.key > after][:limit]

    async def get_first_creation(
        self, provider: str, start: datetime, end: datetime
    ) -> datetime | None:
        found = self._settled_operations(provider, start, end)
        return min((one.created_at for one in found), default=None)

    async def get_last_reconciled(self, provider: str) -> datetime | None:
        completed = self._tables.reconciliations.where(
            lambda one: (
                one.view.provider == provider and one.view.status is ReconciliationStatus.COMPLETED
            )
        )
        return max((one.view.ends_at for one in completed), default=None)

    async def list_unfinished_starts(self, provider: str, earliest: datetime) -> Sequence[datetime]:
        unfinished = self._tables.reconciliations.where(
            lambda one: (
                one.view.provider == provider
                and one.view.status is not ReconciliationStatus.COMPLETED
                and one.view.starts_at >= earliest
            )
        )
        return sorted(one.view.starts_at for one in unfinished)

    async def list_reconciliations(
        self, query: ReconciliationQuery, before: TimeKeyset | None
    ) -> Sequence[ReconciliationView]:
        rows = self._tables.reconciliations.rows()
        found = [
            row.view
            for row in rows
            if query.provider in {None, row.view.provider}
            and query.status in {None, row.view.status}
            and (before is None or _position(row.view) < before)
        ]
        found.sort(key=_position, reverse=True)
        return found[: query.limit + 1]

    async def get_reconciliation(self, reconciliation_id: UUID) -> ReconciliationView | None:
        found = self._tables.reconciliations.get(reconciliation_id)
        return found.view if found else None

    async def list_differences(
        self, reconciliation_id: UUID, reason: DifferenceReason | None, after: int, limit: int
    ) -> Sequence[tuple[int, DifferenceView]]:
        view = await self.get_reconciliation(reconciliation_id)
        positions = range(after + 1, view.listed_differences if view else 0)
        found = (
            (position, self._tables.differences.get((reconciliation_id, position)))
            for position in positions
        )
        return [
            (position, difference)
            for position, difference in found
            if difference and reason in {None, difference.reason}
        ][:limit]

    async def claim_reconciliation(
        self, reconciliation: Reconciliation, now: datetime
    ) -> ReconciliationView | None:
        rows = self._tables.reconciliations
        period = _period_of(reconciliation.view)
        view = reconciliation.view
        if same := rows.where(lambda one: _period_of(one.view) == period):
            (stored,) = same
            if stored.view.status is ReconciliationStatus.COMPLETED or stored.due_at > now:
                return None
            attempts, reconciliation_id = stored.view.attempts + 1, stored.view.reconciliation_id
            identity = {"attempts": attempts, "reconciliation_id": reconciliation_id}
            view = view.model_copy(update=identity)
        rows.put(view.reconciliation_id, replace(reconciliation, view=view))
        return view

    async def add_differences(
        self, reconciliation_id: UUID, first_position: int, differences: Sequence[DifferenceView]
    ) -> None:
        for position, difference in enumerate(differences, first_position):
            key = reconciliation_id, position
            self._tables.differences.put(key, difference)

    async def save_reconciliation(self, reconciliation: Reconciliation) -> bool:
        view, rows = reconciliation.view, self._tables.reconciliations
        stored = rows.get(view.reconciliation_id)
        if stored is None or stored.view.status is not ReconciliationStatus.RUNNING:
            return False
        if stored.view.attempts != view.attempts:
            return False
        rows.put(view.reconciliation_id, reconciliation)
        return True

    def _settled_operations(
        self, provider: str, start: datetime, end: datetime
    ) -> list[RecordedOperation]:
        found = self._tables.operations.where(
            lambda one: (
                one.provider == provider
                and one.kind in MONEY_KINDS
                and one.status is OperationStatus.SUCCEEDED
                and one.settled_at is not None
                and start <= one.settled_at < end
            )
        )
        return [RecordedOperation.of(operation) for operation in found]


def _position(view: ReconciliationView) -> TimeKeyset:
    return TimeKeyset(view.starts_at, view.reconciliation_id)


def _period_of(view: ReconciliationView) -> tuple[str, datetime, datetime]:
    return view.provider, view.starts_at, view.ends_at
