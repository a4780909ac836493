"""Products on their way into their table, some at a time: COPY, then one statement for them all.

Some are rendered while the database writes those before.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final

from markethall.inventory.domain import MAIN_WAREHOUSE, Item
from markethall.inventory.sql import imports
from markethall.inventory.sql.product_rows import row_of
from markethall.shared.db import Session

# rendered in some milliseconds, for then others of this process get their turn, and so that the
# database does not wait long for the first; each costs it a round trip
_PIECE: Final = 250
_NAMES: Final = [*imports.STAGED, "piece", "place"]

Record = list[Any]


class Staging:
    """Of one transaction, and used once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._words: set[str] = set()
        self._writing: asyncio.Task[int] | None = None
        self._added = 0

    async def put(self, fresh: Sequence[Item], changed: Sequence[Item]) -> int:
        """How many of the fresh ones are new indeed."""
        # by what may clash: two who add the same must wait for each other in one order
        fresh = sorted(fresh, key=lambda item: item.sku.lower())
        try:
            await self._begin(self._stage())
            for piece, (items, is_fresh) in enumerate(_pieces(fresh, changed)):
                records = self._rendered(items, piece)
                await self._written()
                await self._session.copy(imports.STAGING, _NAMES, records)
                await self._begin(self._write(piece, fresh=is_fresh))
            await self._written()
        finally:
            await self._end()
        await self._session.run(imports.LEARN, vocabulary=list(self._words))
        return self._added

    def _rendered(self, items: Sequence[Item], piece: int) -> list[Record]:
        records = []
        for place, item in enumerate(items):
            row = row_of(item)
            self._words.update(row["vocabulary"])
            records.append([*(row[name] for name in imports.STAGED), piece, place])
        return records

    async def _stage(self) -> int:
        await self._session.value(imports.STAGE)
        return 0

    async def _write(self, piece: int, *, fresh: bool) -> int:
        """How many were added."""
        if fresh:
            return await self._session.run(imports.ADD_STAGED, piece=piece, main=MAIN_WAREHOUSE)
        await self._session.run(imports.SAVE_STAGED, piece=piece)
        return 0

    async def _begin(self, writing: Coroutine[Any, Any, int]) -> None:
        self._writing = asyncio.create_task(writing)
        # now it goes out, before we are busy again
        await asyncio.sleep(0)

    async def _written(self) -> None:
        if self._writing:
            self._added += await self._writing
            self._writing = None

    async def _end(self) -> None:
        """Whatever went wrong: nobody uses the connection any more."""
        if self._writing:
            self._writing.cancel()
            await asyncio.wait([self._writing])
            if not self._writing.cancelled():
                # it may have failed too, which nobody needs to know
                self._writing.exception()


def _pieces(
    fresh: Sequence[Item], changed: Sequence[Item]
) -> Iterator[tuple[Sequence[Item], bool]]:
    for items in (changed, fresh):
        for at in range(0, len(items), _PIECE):
            yield items[at : at + _PIECE], items is fresh
