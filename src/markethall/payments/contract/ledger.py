"""The ledger: its postings, balances and verification."""

import re
from collections.abc import AsyncIterator
from datetime import date, datetime
from typing import Annotated, Any, Final, Protocol, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from markethall.payments.contract.statuses import (
    LedgerAccountKind,
    LedgerCheck,
    LedgerProblem,
    PostingKind,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto, Id, QueryModel, Text, UtcDatetime
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import Page, PageQuery


def _require_iso_date(value: Any) -> Any:
    if not isinstance(value, date) and not _ISO_DATE.fullmatch(str(value)):
        # Pydantic would read a number as seconds since 1970
        raise ValueError("must be a day in ISO 8601, for example 2026-11-30")
    return value


_ISO_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# a day of UTC; the last year is left out, because the end of its last day is not a valid time
LedgerDate = Annotated[
    date,
    BeforeValidator(_require_iso_date),
    Field(ge=date(1970, 1, 1), le=date(9998, 12, 31)),
    # the schema states no limits, because JSON Schema has none for dates
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-11-30"]}),
]


class PostingEntryView(Dto):
    """One entry of a posting. The amount of a debit is positive, that of a credit negative."""

    account: str
    amount: Money


class PostingView(Dto):
    """A double-entry posting. The entries of each currency sum to zero.

    `sequence` is the place of the posting in its hash chain `chain`. `hash` is the SHA-256 of the
    previous hash of the chain and of the content of this posting.
    """

    posting_id: UUID
    payment_id: UUID
    operation_id: UUID
    kind: PostingKind
    entries: tuple[PostingEntryView, ...]
    created_at: datetime
    chain: int
    sequence: int
    hash: str


class PostingFilters(QueryModel):
    """Filters of postings. `created_after` and `created_before` exclude the time itself."""

    payment_id: Id | None = None
    account: Annotated[Text, Field(max_length=200, examples=["provider:stripe"])] | None = None
    kind: PostingKind | None = None
    created_after: UtcDatetime | None = None
    created_before: UtcDatetime | None = None


class PostingQuery(PageQuery, PostingFilters):
    """Filters of the list of postings."""


class LedgerAccountBalance(Dto):
    """The balance of one account in one currency: the debits minus the credits."""

    account: str
    kind: LedgerAccountKind
    balance: Money


class TrialBalanceRow(Dto):
    """One account in one currency. A balance is the debits minus the credits.

    `closing` is `opening` plus `debits` minus `credits`. Debits and credits are not negative.
    """

    account: str
    kind: LedgerAccountKind
    opening: Money
    debits: Money
    credits: Money
    closing: Money


class TrialBalanceTotal(Dto):
    """The sums of all accounts in one currency.

    `opening` and `closing` are zero, and `debits` equals `credits`.
    """

    opening: Money
    debits: Money
    credits: Money
    closing: Money


class TrialBalance(Dto):
    """The balances of all accounts in a period.

    The days are days of UTC. The period has the postings from `starts_at` until before `ends_at`.
    """

    start_date: date
    end_date: date
    starts_at: datetime
    ends_at: datetime
    rows: tuple[TrialBalanceRow, ...]
    totals: tuple[TrialBalanceTotal, ...]


class TrialBalanceQuery(QueryModel):
    """The first and the last day of a period, both included.

    Without `end_date`, the period ends today. Without `start_date`, it is one day.
    """

    start_date: LedgerDate | None = None
    end_date: LedgerDate | None = None

    @model_validator(mode="after")
    def _require_order(self) -> Self:
        if self.start_date and self.end_date and self.start_date > self.end_date:
            raise PydanticCustomError("period_reversed", "start_date must not be after end_date")
        return self


class LedgerFinding(Dto):
    """A row that contradicts the rest of the ledger. A field that does not apply is null."""

    problem: LedgerProblem
    chain: int | None = None
    sequence: int | None = None
    posting_id: UUID | None = None
    payment_id: UUID | None = None
    operation_id: UUID | None = None


class LedgerChainHead(Dto):
    """The last posting of a hash chain. Later postings do not change its hash."""

    chain: int
    sequence: int
    hash: str


class LedgerReport(Dto):
    """The result of a verification of the ledger.

    `balanced`: each posting sums to zero, and the ledger agrees with the amounts of the payments.
    `intact`: in addition, the hash chains are unbroken, and the ledger equals the ledger that is
    built again from the operations. `findings` lists at most 100 rows; those of a chain are in the
    order of the chain. `finding_count` is the number of all findings. Each list of ids has at most
    100 entries.

    `unfinished_checks` are the checks that did not finish before the deadline of the request. Then
    `balanced` and `intact` are false, and the findings cover only the checked part: `posting_count`
    of `posting_total` postings.
    """

    balanced: bool
    intact: bool
    unfinished_checks: tuple[LedgerCheck, ...]
    posting_count: int
    posting_total: int
    unbalanced_postings: tuple[UUID, ...]
    mismatched_payments: tuple[UUID, ...]
    finding_count: int
    findings: tuple[LedgerFinding, ...]
    chains: tuple[LedgerChainHead, ...]


class LedgerApi(Protocol):
    """The API of the ledger. Staff only."""

    async def list_postings(self, ctx: CallContext, query: PostingQuery) -> Page[PostingView]:
        """Return postings, the newest first. Raises CursorInvalid."""

    def export_postings(self, ctx: CallContext, filters: PostingFilters) -> AsyncIterator[bytes]:
        """Yield a CSV file of all postings that match, the oldest first.

        A row is one entry. Amounts are in major units, and debits and credits have columns of their
        own.
        """

    async def list_account_balances(self, ctx: CallContext) -> tuple[LedgerAccountBalance, ...]:
        """Return the balances of all accounts. Raises AmountOutOfRange."""

    async def get_trial_balance(self, ctx: CallContext, query: TrialBalanceQuery) -> TrialBalance:
        """Return the balances of all accounts in a period, by currency. Raises AmountOutOfRange."""

    async def verify(self, ctx: CallContext, *, rebuild: bool = True) -> LedgerReport:
        """Check sums, hash chains and the amounts of payments, in pages.

        With `rebuild`, also build the ledger from the operations and compare. A verification with a
        deadline ends before it, and concurrent calls with a deadline share one verification.
        """
