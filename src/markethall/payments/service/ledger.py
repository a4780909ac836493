"""The use cases behind the HTTP API of the ledger."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Final

from markethall.payments.contract import (
    LedgerAccountBalance,
    LedgerReport,
    PostingFilters,
    PostingQuery,
    PostingView,
    TrialBalance,
    TrialBalanceQuery,
)
from markethall.payments.domain import account_kind
from markethall.payments.ports import PostingFilter, ReadStore, Store
from markethall.payments.service.export_postings import PAGE_SIZE, export_postings
from markethall.payments.service.ledger_sums import LedgerSums
from markethall.payments.service.trial_balance import (
    PeriodSums,
    build_trial_balance,
    resolve_period,
    sum_period,
)
from markethall.payments.service.verify_ledger import VerifyLedger
from markethall.payments.service.views import to_posting_view
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.money import money_in_range
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, TimeKeyset
from markethall.shared.kernel.shared_run import SharedRun
from markethall.shared.persistence.database import Database

# the share of the time until the deadline in which a verification has to finish
_DEADLINE_SHARE: Final = 0.8


class LedgerService:
    """Implementation of `LedgerApi`."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        sums: LedgerSums,
        verify_ledger: VerifyLedger,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._sums = sums
        self._verify_ledger = verify_ledger
        self._cursors = cursors
        self._clock = clock
        self._shared_runs = {rebuild: SharedRun[LedgerReport]() for rebuild in (True, False)}

    async def list_postings(self, ctx: CallContext, query: PostingQuery) -> Page[PostingView]:
        filters = query.model_dump(include=set(PostingFilters.model_fields))
        listing = f"postings {filters}"
        posting_filter = PostingFilter(
            limit=query.limit + 1,
            after=self._cursors.decode(listing, query.cursor, TIME_KEYSET),
            **filters,
        )
        async with self._database.read_session() as store:
            postings = await store.list_postings(posting_filter)
        views = [to_posting_view(posting) for posting in postings]
        return self._cursors.build_page(listing, views, query.limit, _posting_keyset)

    def export_postings(self, ctx: CallContext, filters: PostingFilters) -> AsyncIterator[bytes]:
        posting_filter = PostingFilter(limit=PAGE_SIZE, descending=False, **filters.model_dump())
        return export_postings(self._database, posting_filter)

    async def get_trial_balance(self, ctx: CallContext, query: TrialBalanceQuery) -> TrialBalance:
        start_date, end_date = resolve_period(query, self._clock())
        sums = sum_period(await self._sums.read(), start_date, end_date)
        return build_trial_balance(start_date, end_date, sums)

    async def list_account_balances(self, ctx: CallContext) -> tuple[LedgerAccountBalance, ...]:
        sums = sum_period(await self._sums.read(), date.max, date.max)
        return tuple(map(_to_account_balance, sums))

    async def verify(self, ctx: CallContext, *, rebuild: bool = True) -> LedgerReport:
        if ctx.deadline is None:
            return await self._verify_ledger.verify(rebuild=rebuild)
        seconds = _DEADLINE_SHARE * (ctx.deadline - self._clock()).total_seconds()
        return await self._shared_runs[rebuild].get(
            lambda: self._verify_ledger.verify(rebuild=rebuild, max_seconds=seconds)
        )


def _posting_keyset(posting: PostingView) -> TimeKeyset:
    return TimeKeyset(posting.created_at, posting.posting_id)


def _to_account_balance(sums: PeriodSums) -> LedgerAccountBalance:
    return LedgerAccountBalance(
        account=sums.account,
        kind=account_kind(sums.account),
        balance=money_in_range(sums.opening, sums.currency),
    )
