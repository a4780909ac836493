"""Export postings as CSV: one row for each entry, the oldest first."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC
from typing import Final

from markethall.payments.domain import RecordedPosting
from markethall.payments.ports import PostingFilter, ReadStore, Store
from markethall.shared.kernel.csv_format import escape_formula, format_csv_row
from markethall.shared.kernel.money import format_major_units
from markethall.shared.kernel.pagination import TimeKeyset
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


async def export_postings(
    database: Database[ReadStore, Store], posting_filter: PostingFilter
) -> AsyncIterator[bytes]:
    """Yield the rows page by page. The first chunk begins with the header."""
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
