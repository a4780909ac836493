"""Sum the entries of the ledger by day, account and currency."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

from markethall.payments.domain import ChainPosition
from markethall.payments.ports import DaySums, ReadStore
from markethall.shared.persistence.database import ReadDatabase

# the number of postings that one statement sums, which takes about 50 ms
_PAGE_SIZE: Final = 10_000


class LedgerSums:
    """Sums the postings, and keeps the sums of those that it has read.

    `read` first reads the heads of the chains, and then sums the postings up to these heads. A
    chain has no gaps, so the sums contain all postings that were committed when it read the heads.
    Postings are never changed, so the next `read` only adds the later postings. The kept sums are
    dropped if the ledger lacks the last posting in them, for example after a backup was restored.
    """

    def __init__(self, database: ReadDatabase[ReadStore]) -> None:
        self._database = database
        # one `read` at a time, so that concurrent calls do not add the same postings twice
        self._lock = asyncio.Lock()
        self._ends: dict[int, ChainPosition] = {}
        self._totals: dict[tuple[date, str, str], tuple[int, int]] = {}

    async def read(self) -> Sequence[DaySums]:
        """Return the sums of all postings, by day, account and currency. Raises Unavailable."""
        async with self._lock:
            async with self._database.read_session() as store:
                heads = await store.list_chain_heads()
                if not await self._has_ends(store, heads):
                    self._ends, self._totals = {}, {}
            for head in heads:
                await self._advance(head)
            return [DaySums(*key, *amounts) for key, amounts in sorted(self._totals.items())]

    async def _has_ends(self, store: ReadStore, heads: Sequence[ChainPosition]) -> bool:
        """Tell whether the ledger has the last posting of each chain in the kept sums."""
        for end in self._ends.values():
            if end not in heads and await _find_position(store, end.chain, end.sequence) != end:
                return False
        return True

    async def _advance(self, head: ChainPosition) -> None:
        """Add the postings of a chain up to its head. A cancelled call keeps what it has added."""
        end = self._ends.get(head.chain)
        sequence = end.sequence if end else 0
        while sequence < head.sequence:
            until = min(sequence + _PAGE_SIZE, head.sequence)
            async with self._database.read_session() as store:
                sums = await store.sum_entries(head.chain, sequence, until)
                position = await _find_position(store, head.chain, until)
            self._add(sums)
            # an empty hash never matches, so the next reading drops the sums
            self._ends[head.chain] = position or ChainPosition(head.chain, until, b"")
            sequence = until

    def _add(self, sums: Iterable[DaySums]) -> None:
        for one in sums:
            key = one.day, one.account, one.currency
            debits, credits_ = self._totals.get(key, (0, 0))
            self._totals[key] = debits + one.debits, credits_ + one.credits


async def _find_position(store: ReadStore, chain: int, sequence: int) -> ChainPosition | None:
    found = await store.list_chain(chain, sequence - 1, 1)
    return found[0].position if found and found[0].position.sequence == sequence else None
