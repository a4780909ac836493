"""Stored and unstored comparisons with the reports of providers, for staff."""

from collections.abc import AsyncIterable
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.payments.contract.errors import ReconciliationNotFound
from markethall.payments.contract.reconciliation import (
    DifferenceQuery,
    DifferenceView,
    OnDifferences,
    ReconciliationQuery,
    ReconciliationSummary,
    ReconciliationView,
)
from markethall.payments.ports import ReadStore, Store
from markethall.payments.service.report_comparison import ReportComparison
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, TimeKeyset
from markethall.shared.persistence.database import Database

_POSITION: Final = TypeAdapter(int)


class ReconciliationService:
    """Implementation of `Reconciliations`."""

    def __init__(
        self, database: Database[ReadStore, Store], comparison: ReportComparison, cursors: Cursors
    ) -> None:
        self._database = database
        self._cursors = cursors
        self._comparison = comparison

    async def list_reconciliations(
        self, ctx: CallContext, query: ReconciliationQuery
    ) -> Page[ReconciliationView]:
        listing = f"reconciliations {query.provider!r} {query.status}"
        before = self._cursors.decode(listing, query.cursor, TIME_KEYSET)
        async with self._database.read_session() as store:
            views = await store.list_reconciliations(query, before)
        return self._cursors.build_page(listing, views, query.limit, _keyset)

    async def get_reconciliation(
        self, ctx: CallContext, reconciliation_id: UUID
    ) -> ReconciliationView:
        async with self._database.read_session() as store:
            view = await store.get_reconciliation(reconciliation_id)
        if view is None:
            raise ReconciliationNotFound(reconciliation_id=str(reconciliation_id))
        return view

    async def list_differences(
        self, ctx: CallContext, reconciliation_id: UUID, query: DifferenceQuery
    ) -> Page[DifferenceView]:
        await self.get_reconciliation(ctx, reconciliation_id)
        listing = f"differences {reconciliation_id} {query.reason}"
        position = self._cursors.decode(listing, query.cursor, _POSITION)
        async with self._database.read_session() as store:
            rows = await store.list_differences(
                reconciliation_id,
                query.reason,
                -1 if position is None else position,
                query.limit + 1,
            )
        page = self._cursors.build_page(listing, rows, query.limit, lambda row: row[0])
        views = tuple(view for _, view in page.items)
        return Page(items=views, next_cursor=page.next_cursor)

    async def compare_period(
        self, provider: str, starts_at: datetime, ends_at: datetime, on_differences: OnDifferences
    ) -> ReconciliationSummary:
        return await self._comparison.compare_period(provider, starts_at, ends_at, on_differences)

    async def compare_file(
        self,
        provider: str,
        lines: AsyncIterable[bytes],
        period: tuple[datetime, datetime] | None,
        on_differences: OnDifferences,
    ) -> ReconciliationSummary:
        return await self._comparison.compare_file(provider, lines, period, on_differences)


def _keyset(view: ReconciliationView) -> TimeKeyset:
    return TimeKeyset(view.starts_at, view.reconciliation_id)
