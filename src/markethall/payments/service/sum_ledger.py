"""Sum the entries of the ledger by account and currency."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from markethall.payments.ports import EntrySums, ReadStore, Store, add_sums
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.persistence.database import Database

# postings in one statement, which takes some 50 ms
_PAGE_SIZE: Final = 10_000


async def sum_ledger(
    database: Database[ReadStore, Store], start: datetime, end: datetime
) -> Sequence[EntrySums]:
    """Return the sums of all postings before `end`, by account and currency.

    The postings before `start` count to the opening balance. They are read in pages, each in one
    short statement.
    """
    pages: list[Sequence[EntrySums]] = []
    after: TimeKeyset | None = None
    while True:
        async with database.read_session() as store:
            page = await store.sum_entries(start, end, after, _PAGE_SIZE)
        pages = [add_sums([*pages, page.sums])]
        if page.last is None:
            return pages[0]
        after = page.last
