"""The Postgres store of comparisons with the reports of providers, and its statements."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.payments.contract.reconciliation import (
    DifferenceReason,
    DifferenceView,
    ReconciliationQuery,
    ReconciliationSummary,
    ReconciliationView,
)
from markethall.payments.domain.reconciliation import MONEY_KINDS, RecordedOperation
from markethall.payments.ports import Reconciliation, ReportedIds
from markethall.payments.sql.reconciliation_tables import differences, reconciliations
from markethall.payments.sql.rows import to_operation
from markethall.payments.sql.statements import LIMIT, column_binds, one_page, page_values
from markethall.payments.sql.tables import operations
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.persistence.postgres import Statement, sql_literal

_moves_money = operations.c.kind.in_([sql_literal(kind.value) for kind in sorted(MONEY_KINDS)])
_of_provider = operations.c.provider == bindparam("provider")
_is_settled = sa.and_(
    _of_provider,
    _moves_money,
    operations.c.status == sql_literal("succeeded"),
    operations.c.settled_at >= bindparam("starts_at", type_=operations.c.settled_at.type),
    operations.c.settled_at < bindparam("ends_at", type_=operations.c.settled_at.type),
)

FIND_REPORTED_OPERATIONS = Statement(
    sa.select(operations).where(
        _of_provider,
        _moves_money,
        sa.or_(
            operations.c.operation_id == sa.any_(bindparam("operation_ids", type_=ARRAY(sa.Uuid))),
            operations.c.provider_reference
            == sa.any_(bindparam("references", type_=ARRAY(sa.Text))),
        ),
    )
)
GET_FIRST_CREATION = Statement(sa.select(sa.func.min(operations.c.created_at)).where(_is_settled))
GET_LAST_RECONCILED = Statement(
    sa.select(sa.func.max(reconciliations.c.ends_at)).where(
        reconciliations.c.provider == bindparam("provider"),
        reconciliations.c.status == sql_literal("completed"),
    )
)
LIST_UNFINISHED_STARTS = Statement(
    sa.select(reconciliations.c.starts_at)
    .where(
        reconciliations.c.provider == bindparam("provider"),
        reconciliations.c.status != sql_literal("completed"),
        reconciliations.c.starts_at >= bindparam("earliest"),
    )
    .order_by(reconciliations.c.starts_at)
)


@cache
def list_settled_operations(*, has_keyset: bool) -> Statement:
    select = sa.select(operations).where(_is_settled)
    keyset = (operations.c.settled_at, operations.c.operation_id)
    return Statement(one_page(select, *keyset, has_keyset=has_keyset))


@lru_cache(maxsize=128)
def list_reconciliations(*, filter_columns: tuple[str, ...], has_keyset: bool) -> Statement:
    conditions = [reconciliations.c[name] == bindparam(name) for name in filter_columns]
    return Statement(
        one_page(
            sa.select(reconciliations).where(*conditions),
            reconciliations.c.starts_at,
            reconciliations.c.reconciliation_id,
            has_keyset=has_keyset,
            descending=True,
        )
    )


GET_RECONCILIATION = Statement(
    sa.select(reconciliations).where(
        reconciliations.c.reconciliation_id == bindparam("reconciliation_id")
    )
)


def _claim() -> Statement:
    """Insert a comparison, or start the existing one of the period again if it is due."""
    new = insert(reconciliations).values(column_binds(reconciliations))
    restarted = ("status", "listed_differences", "summary", "started_at", "finished_at", "due_at")
    return Statement(
        new.on_conflict_do_update(
            index_elements=["provider", "starts_at", "ends_at"],
            set_={name: new.excluded[name] for name in restarted}
            | {"attempts": reconciliations.c.attempts + 1},
            where=sa.and_(
                reconciliations.c.status != sql_literal("completed"),
                reconciliations.c.due_at <= bindparam("now", type_=reconciliations.c.due_at.type),
            ),
        ).returning(reconciliations)
    )


CLAIM_RECONCILIATION = _claim()
_UPDATED = ("status", "listed_differences", "summary", "finished_at", "due_at")
UPDATE_RECONCILIATION = Statement(
    sa.update(reconciliations)
    .where(
        reconciliations.c.reconciliation_id == bindparam("reconciliation_id"),
        reconciliations.c.attempts == bindparam("attempts"),
        reconciliations.c.status == sql_literal("running"),
    )
    .values({name: bindparam(name, type_=reconciliations.c[name].type) for name in _UPDATED})
)

_of_reconciliation = differences.c.reconciliation_id == bindparam("reconciliation_id")
DELETE_DIFFERENCES = Statement(sa.delete(differences).where(_of_reconciliation))
INSERT_DIFFERENCE = Statement(sa.insert(differences).values(column_binds(differences)))


@cache
def list_differences(*, by_reason: bool) -> Statement:
    conditions = [_of_reconciliation, differences.c.position > bindparam("after")]
    if by_reason:
        conditions.append(differences.c.reason == bindparam("reason"))
    return Statement(
        sa.select(differences).where(*conditions).order_by(differences.c.position).limit(LIMIT)
    )


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
            FIND_REPORTED_OPERATIONS,
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
            list_settled_operations(has_keyset=after is not None),
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
            GET_FIRST_CREATION, provider=provider, starts_at=start, ends_at=end
        )
        return first

    async def get_last_reconciled(self, provider: str) -> datetime | None:
        last: datetime | None = await self._connection.fetch_value(
            GET_LAST_RECONCILED, provider=provider
        )
        return last

    async def list_unfinished_starts(self, provider: str, earliest: datetime) -> Sequence[datetime]:
        rows = await self._connection.fetch_all(
            LIST_UNFINISHED_STARTS, provider=provider, earliest=earliest
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
            list_reconciliations(filter_columns=tuple(values), has_keyset=before is not None),
            **values,
            **page_values(before, query.limit + 1),
        )
        return [_to_view(row) for row in rows]

    async def get_reconciliation(self, reconciliation_id: UUID) -> ReconciliationView | None:
        row = await self._connection.fetch_one(
            GET_RECONCILIATION, reconciliation_id=reconciliation_id
        )
        return _to_view(row) if row else None

    async def list_differences(
        self, reconciliation_id: UUID, reason: DifferenceReason | None, after: int, limit: int
    ) -> Sequence[tuple[int, DifferenceView]]:
        rows = await self._connection.fetch_all(
            list_differences(by_reason=reason is not None),
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
            CLAIM_RECONCILIATION, **_row(reconciliation), now=now
        )
        if row is None:
            return None
        await self._connection.execute(
            DELETE_DIFFERENCES, reconciliation_id=row["reconciliation_id"]
        )
        return _to_view(row)

    async def add_differences(
        self, reconciliation_id: UUID, first_position: int, differences: Sequence[DifferenceView]
    ) -> None:
        await self._connection.execute_many(
            INSERT_DIFFERENCE,
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
        return bool(await self._connection.execute(UPDATE_RECONCILIATION, **_row(reconciliation)))


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
