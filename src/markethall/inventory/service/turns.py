"""Who waits in line for what everybody wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

AT_ONCE: Final = 10
PATIENCE: Final = 0.2


class Turns:
    """Some at a time take of one product; the others of this process come after them, in order.

    They wait without a connection: the crowd around one product leaves half of the pool to who
    wants something else, and twenty that wait for one row make Postgres work more than ten do. A
    turn is a courtesy and no lock: who has waited `patience` seconds goes ahead.
    """

    def __init__(self, at_once: int = AT_ONCE, patience: float = PATIENCE) -> None:
        self._at_once = at_once
        self._patience = patience
        self._lines: dict[UUID, _Line] = {}

    @asynccontextmanager
    async def on(self, product_id: UUID) -> AsyncIterator[None]:
        line = self._lines.get(product_id)
        if line is None:
            line = self._lines[product_id] = _Line(self._at_once)
        line.people += 1
        try:
            has_turn = await line.wait(self._patience)
            try:
                yield
            finally:
                if has_turn:
                    line.places.release()
        finally:
            line.people -= 1
            if not line.people:
                del self._lines[product_id]


class _Line:
    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.people = 0

    async def wait(self, seconds: float) -> bool:
        """Whether it is our turn; if not, we have waited long enough."""
        if not self.places.locked():
            return await self.places.acquire()
        try:
            async with asyncio.timeout(seconds):
                return await self.places.acquire()
        except TimeoutError:
            return False
