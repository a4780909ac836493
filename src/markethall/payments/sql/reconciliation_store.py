"""The Postgres store of comparisons with the reports of providers."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from markethall.payments.contract.reconciliation import (
    DifferenceReason,
    DifferenceView,
    ReconciliationQuery,
    ReconciliationSummary,
    ReconciliationView,
)
from markethall.payments.domain.reconciliation import RecordedOperation
from markethall.payments.ports import Reconciliation, ReportedIds
from markethall.payments.sql import reconciliation_statements as sql
from markethall.payments.sql.rows import to_operation
from markethall.payments.sql.statements import page_values
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.kernel.pagination import TimeKeyset

if TYPE_CHECKING:
    from asyncpg.protocol import Record


# the columns that a ReconciliationView has, but a ReconciliationSummary does not
_STORED_NAMES: Final = ReconciliationView.model_fields.keys() - (
    ReconciliationSummary.model_fields.keys()
)


class SqlReconciliationStore(SqlUnitOfWork):
    async def find_reported_operations(
        self, provider: str, ids: ReportedIds
    ) -> Sequence[RecordedOperation]:
        rows = await self._connection.fetch_all(
            sql.FIND_REPORTED_OPERATIONS,
            provider=provider,
            operation_ids=ids.operation_ids,
            references=ids.references,
        )
        return [RecordedOperation.of(to_operation(row)) for row in rows]

    async def list_settled_operations(
        self,
        provider: str,
        start: datetime,
        end: datetime,
        after: tuple[datetime, UUID] | None,
        limit: int,
    ) -> Sequence[RecordedOperation]:
        rows = await self._connection.fetch_all(
            sql.list_settled_operations(has_keyset=after is not None),
            provider=provider,
            starts_at=start,
            ends_at=end,
            **page_values(after, limit),
        )
        return [RecordedOperation.of(to_operation(row)) for row in rows]

    async def get_first_creation(
        self, provider: str, start: datetime, end: datetime
    ) -> datetime | None:
        first: datetime | None = await self._connection.fetch_value(
            sql.GET_FIRST_CREATION, provider=provider, starts_at=start, ends_at=end
        )
        return first

    async def get_last_reconciled(self, provider: str) -> datetime | None:
        last: datetime | None = await self._connection.fetch_value(
            sql.GET_LAST_RECONCILED, provider=provider
        )
        return last

    async def list_unfinished_starts(self, provider: str, earliest: datetime) -> Sequence[datetime]:
        rows = await self._connection.fetch_all(
            sql.LIST_UNFINISHED_STARTS, provider=provider, earliest=earliest
        )
        return [row["starts_at"] for row in rows]

    async def list_reconciliations(
        self, query: ReconciliationQuery, before: TimeKeyset | None
    ) -> Sequence[ReconciliationView]:
        values = {
            name: value
            for name in ("provider", "status")
            if (value := getattr(query, name)) is not None
        }
        rows = await self._connection.fetch_all(
            sql.list_reconciliations(filter_columns=tuple(values), has_keyset=before is not None),
            **values,
            **page_values(before, query.limit + 1),
        )
        return [_to_view(row) for row in rows]

    async def get_reconciliation(self, reconciliation_id: UUID) -> ReconciliationView | None:
        row = await self._connection.fetch_one(
            sql.GET_RECONCILIATION, reconciliation_id=reconciliation_id
        )
        return _to_view(row) if row else None

    async def list_differences(
        self, reconciliation_id: UUID, reason: DifferenceReason | None, after: int, limit: int
    ) -> Sequence[tuple[int, DifferenceView]]:
        rows = await self._connection.fetch_all(
            sql.list_differences(by_reason=reason is not None),
            reconciliation_id=reconciliation_id,
            reason=reason,
            after=after,
            limit=limit,
        )
        return [
            (row["position"], DifferenceView.model_validate_json(row["difference"])) for row in rows
        ]

    async def claim_reconciliation(
        self, reconciliation: Reconciliation, now: datetime
    ) -> ReconciliationView | None:
        row = await self._connection.fetch_one(
            sql.CLAIM_RECONCILIATION, **_row(reconciliation), now=now
        )
        if row is None:
            return None
        await self._connection.execute(
            sql.DELETE_DIFFERENCES, reconciliation_id=row["reconciliation_id"]
        )
        return _to_view(row)

    async def add_differences(
        self, reconciliation_id: UUID, first_position: int, differences: Sequence[DifferenceView]
    ) -> None:
        await self._connection.execute_many(
            sql.INSERT_DIFFERENCE,
            [
                {
                    "reconciliation_id": reconciliation_id,
                    "position": position,
                    "reason": difference.reason,
                    "difference": difference.model_dump_json(),
                }
                for position, difference in enumerate(differences, first_position)
            ],
        )

    async def save_reconciliation(self, reconciliation: Reconciliation) -> bool:
        return bool(
            await self._connection.execute(sql.UPDATE_RECONCILIATION, **_row(reconciliation))
        )


def _row(reconciliation: Reconciliation) -> dict[str, Any]:
    view = reconciliation.view
    summary = ReconciliationSummary(**dict(view))
    names = _STORED_NAMES | {"provider", "starts_at", "ends_at"}
    return {name: getattr(view, name) for name in names} | {
        "summary": summary.model_dump_json(),
        "due_at": reconciliation.due_at,
    }


def _to_view(row: "Record") -> ReconciliationView:
    summary = ReconciliationSummary.model_validate_json(row["summary"])
    return ReconciliationView(**dict(summary) | {name: row[name] for name in _STORED_NAMES})
