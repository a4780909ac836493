"""The ledger: its postings, balances and verification."""

from datetime import date, datetime
from typing import Annotated, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from markethall.payments.contract.statuses import LedgerAccountKind, LedgerProblem, PostingKind
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto, Id, Text, UtcDatetime
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import Page, PageQuery


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


class PostingFilters(BaseModel):
    """Filters of postings. `created_after` and `created_before` exclude the time itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class LedgerFinding(Dto):
    """A row that does not fit the rest of the ledger. A field that does not apply is null."""

    problem: LedgerProblem
    chain: int | None = None
    sequence: int | None = None
    posting_id: UUID | None = None
    payment_id: UUID | None = None
    operation_id: UUID | None = None


class LedgerChainHead(Dto):
    """The last posting of a hash chain. Later postings change no hash of an earlier one."""

    chain: int
    sequence: int
    hash: str


class LedgerReport(Dto):
    """The result of verifying the ledger.

    `balanced`: each posting sums to zero, and the ledger agrees with the amounts of the payments.
    `intact`: in addition, the hash chains are unbroken, and the ledger is the one that the
    operations give. `findings` lists at most 100 rows, those of a chain in the order of the chain;
    `finding_count` counts all. Each list of ids has at most 100.
    """

    balanced: bool
    intact: bool
    posting_count: int
    unbalanced_postings: tuple[UUID, ...]
    mismatched_payments: tuple[UUID, ...]
    finding_count: int
    findings: tuple[LedgerFinding, ...]
    chains: tuple[LedgerChainHead, ...]


class LedgerApi(Protocol):
    """The API of the ledger. Staff only."""

    async def list_postings(self, ctx: CallContext, query: PostingQuery) -> Page[PostingView]:
        """Return postings, the newest first. Raises CursorInvalid."""

    async def list_account_balances(self, ctx: CallContext) -> tuple[LedgerAccountBalance, ...]: ...

    async def verify(self, ctx: CallContext, *, rebuild: bool = True) -> LedgerReport:
        """Check sums, hash chains and the amounts of payments, in pages.

        With `rebuild`, also build the ledger from the operations and compare.
        """
