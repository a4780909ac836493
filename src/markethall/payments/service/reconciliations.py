"""Comparisons with the reports of providers: staff read them, and a job makes one each day."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from pydantic import TypeAdapter

from markethall.payments.contract.errors import ReconciliationNotFound
from markethall.payments.contract.reconciliation import (
    DifferenceQuery,
    DifferenceReason,
    DifferenceView,
    ReconciliationQuery,
    ReconciliationStatus,
    ReconciliationSummary,
    ReconciliationView,
)
from markethall.payments.ports import ReadStore, Reconciliation, Store
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.report_comparison import ReportComparison
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, TimeKeyset
from markethall.shared.observability.metrics import RECONCILIATION_DIFFERENCES
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.payments")

MAX_LISTED_DIFFERENCES: Final = 10_000
_POLL_SECONDS: Final = 60
_DAY: Final = timedelta(days=1)
# the maximum number of past days that are still compared if the job did not run
_MAX_DAYS: Final = 7
# after this time, another process continues a comparison whose process has died
_LEASE: Final = timedelta(minutes=15)
_RETRY_AFTER: Final = timedelta(minutes=15)
_POSITION: Final = TypeAdapter(int)


class DailyReconciliation:
    """Compares each UTC day with the reports of the providers. The leader runs it.

    A day is compared when `delay` has passed since its end. None switches the job off.
    """

    def __init__(
        self,
        database: Database[ReadStore, Store],
        provider: ProviderClient,
        comparison: ReportComparison,
        delay: timedelta | None,
        clock: Clock,
    ) -> None:
        self._database = database
        self._provider = provider
        self._comparison = comparison
        self._delay = delay
        self._clock = clock

    async def run(self) -> None:
        """Compare the days that are due, until this task is cancelled."""
        while True:
            await self.run_due()
            await asyncio.sleep(_POLL_SECONDS)

    async def run_due(self) -> None:
        """Compare the days that are due and not compared yet, the oldest first.

        An error of one provider does not stop the others.
        """
        if self._delay is None:
            return
        for provider in self._provider.list_report_providers():
            try:
                for start in await self._list_due_days(provider, self._delay):
                    await self._reconcile_day(provider, start)
            except Unavailable as error:
                log.warning(
                    "reconciliation.unavailable", provider=provider, error=repr(error.details)
                )
            except Exception:  # the code of one provider must not stop the other providers
                log.exception("reconciliation.failed", provider=provider)

    async def _list_due_days(self, provider: str, delay: timedelta) -> Sequence[datetime]:
        """Return the starts of the days that have not been compared, the oldest first.

        They begin with the day of the first operation. A day whose comparison has failed stays due,
        also after a later day has been compared.
        """
        last_end = _start_of_day(self._clock() - delay)
        earliest = last_end - _MAX_DAYS * _DAY
        async with self._database.read_session() as store:
            unfinished = await store.list_unfinished_starts(provider, earliest)
            start = await store.get_last_reconciled(provider)
            start = start or await store.get_first_creation(provider, earliest, last_end)
        start = last_end if start is None else max(_start_of_day(start), earliest)
        following = (start + number * _DAY for number in range((last_end - start).days))
        return sorted({*unfinished, *following})

    async def _reconcile_day(self, provider: str, start: datetime) -> None:
        now = self._clock()
        new = _new_reconciliation(provider, start, now)
        async with self._database.transaction() as store:
            claimed = await store.claim_reconciliation(new, now)
        if claimed:
            await _Run(self._database, self._comparison, self._clock, claimed).execute()


class _ClaimLost(Exception):
    """Another process has started the comparison again."""


class _Run:
    """One attempt of a stored comparison."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        comparison: ReportComparison,
        clock: Clock,
        view: ReconciliationView,
    ) -> None:
        self._database = database
        self._comparison = comparison
        self._clock = clock
        self._view = view
        self._listed = 0
        self._extend_at = view.started_at + _LEASE / 3

    async def execute(self) -> None:
        """Compare and store the result. Raises Unavailable, and the errors of the gateway."""
        view = self._view
        try:
            summary = await self._comparison.compare_period(
                view.provider,
                view.starts_at,
                view.ends_at,
                self._store_differences,
                record_fees=True,
            )
            await self._finish(summary)
        except _ClaimLost:
            log.warning("reconciliation.claim_lost", provider=view.provider)
        except Exception:  # store the failed run, then raise the error again
            await self._save(
                {"status": ReconciliationStatus.FAILED, "finished_at": self._clock()}, _RETRY_AFTER
            )
            raise

    async def _store_differences(self, differences: Sequence[DifferenceView]) -> None:
        """Store the first differences, and keep the claim. Raises _ClaimLost."""
        now = self._clock()
        listed = differences[: MAX_LISTED_DIFFERENCES - self._listed]
        if not listed and now < self._extend_at:
            return
        async with self._database.transaction() as store:
            if not await store.save_reconciliation(self._changed({}, now + _LEASE)):
                raise _ClaimLost
            await store.add_differences(self._view.reconciliation_id, self._listed, listed)
        self._listed += len(listed)
        self._extend_at = now + _LEASE / 3

    async def _finish(self, summary: ReconciliationSummary) -> None:
        status = {"status": ReconciliationStatus.COMPLETED, "finished_at": self._clock()}
        async with self._database.transaction() as store:
            is_saved = await store.save_reconciliation(
                self._changed(dict(summary) | status, self._clock() + _LEASE)
            )
            last_end = await store.get_last_reconciled(summary.provider)
        if not is_saved:
            raise _ClaimLost
        if last_end == self._view.ends_at:
            _set_gauge(summary)
        write = log.warning if summary.differences else log.info
        write(
            "reconciliation.completed",
            reconciliation_id=str(self._view.reconciliation_id),
            provider=summary.provider,
            day=summary.starts_at.date().isoformat(),
            matched=summary.matched,
            differences=summary.differences,
            recorded_fees=summary.recorded_fees,
            **{reason.value: count for reason, count in summary.differences_by_reason.items()},
        )

    async def _save(self, values: dict[str, object], due_after: timedelta) -> bool:
        async with self._database.transaction() as store:
            return await store.save_reconciliation(self._changed(values, self._clock() + due_after))

    def _changed(self, values: dict[str, object], due_at: datetime) -> Reconciliation:
        self._view = self._view.model_copy(update=values | {"listed_differences": self._listed})
        return Reconciliation(view=self._view, due_at=due_at)


def _new_reconciliation(provider: str, start: datetime, now: datetime) -> Reconciliation:
    view = ReconciliationView(
        reconciliation_id=new_id(),
        provider=provider,
        starts_at=start,
        ends_at=start + _DAY,
        status=ReconciliationStatus.RUNNING,
        attempts=1,
        listed_differences=0,
        started_at=now,
        matched=0,
        differences=0,
        differences_by_reason={},
        other_lines=0,
        edge_operations=0,
        sums=(),
    )
    return Reconciliation(view=view, due_at=now + _LEASE)


def _set_gauge(summary: ReconciliationSummary) -> None:
    for reason in DifferenceReason:
        count = summary.differences_by_reason.get(reason, 0)
        RECONCILIATION_DIFFERENCES.labels(summary.provider, reason.value).set(count)


def _start_of_day(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


class ReconciliationService:
    """Implementation of `Reconciliations`."""

    def __init__(self, database: Database[ReadStore, Store], cursors: Cursors) -> None:
        self._database = database
        self._cursors = cursors

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


def _keyset(view: ReconciliationView) -> TimeKeyset:
    return TimeKeyset(view.starts_at, view.reconciliation_id)
