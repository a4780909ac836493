"""The use cases behind the HTTP API of the ledger."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, date
from typing import Final

from markethall.payments.contract.ledger import (
    LedgerAccountBalance,
    LedgerReport,
    PostingFilters,
    PostingQuery,
    PostingView,
    TrialBalance,
    TrialBalanceQuery,
)
from markethall.payments.domain.ledger import RecordedPosting, account_kind
from markethall.payments.ports import PostingFilter, ReadStore, Store
from markethall.payments.service.trial_balance import (
    LedgerSums,
    PeriodSums,
    build_trial_balance,
    resolve_period,
    sum_period,
)
from markethall.payments.service.verify_ledger import VerifyLedger
from markethall.payments.service.views import to_posting_view
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.csv_format import escape_formula, format_csv_row
from markethall.shared.kernel.money import format_major_units, money_in_range
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, TimeKeyset
from markethall.shared.kernel.shared_run import SharedRun
from markethall.shared.persistence.database import Database

CSV_HEADER: Final = (
    "created_at",
    "posting_id",
    "kind",
    "payment_id",
    "operation_id",
    "account",
    "currency",
    "debit",
    "credit",
    "chain",
    "sequence",
)
PAGE_SIZE: Final = 1000
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


async def export_postings(
    database: Database[ReadStore, Store], posting_filter: PostingFilter
) -> AsyncIterator[bytes]:
    """Yield CSV rows page by page: one row for each entry, the oldest first.

    The first chunk begins with the header.
    """
    header = format_csv_row(CSV_HEADER)
    while True:
        # one session per page, so that a slow client does not hold a connection
        async with database.read_session() as store:
            page = await store.list_postings(posting_filter)
        yield "".join([header, *(row for posting in page for row in _format(posting))]).encode()
        if len(page) < posting_filter.limit:
            return
        last = page[-1].posting
        keyset = TimeKeyset(last.created_at, last.posting_id)
        header, posting_filter = "", replace(posting_filter, after=keyset)


def _format(recorded: RecordedPosting) -> Iterator[str]:
    posting, position = recorded.posting, recorded.position
    for account, amount in posting.entries:
        absolute = format_major_units(abs(amount), posting.currency)
        yield format_csv_row(
            (
                posting.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
                str(posting.posting_id),
                posting.kind.value,
                str(posting.payment_id),
                str(posting.operation_id),
                escape_formula(account),
                posting.currency,
                absolute if amount > 0 else "",
                "" if amount > 0 else absolute,
                str(position.chain),
                str(position.sequence),
            )
        )
