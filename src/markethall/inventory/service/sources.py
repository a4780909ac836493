"""The file of an import, read from where it is kept, a window at a time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markethall.inventory.domain.importing import LONGEST, Job, Place, Reader, Row, Window, opened
from markethall.inventory.ports import Database

# of an upload, as it is kept
PART: Final = 256 * 1024
# of a batch: few rows may be long ones
_MOST_BYTES: Final = 8 * 1024 * 1024
# rows that are looked at before others get a turn: a millisecond, for who applies the batch before
# is one of them, and the database waits for them
_SLICE: Final = 20


@dataclass(frozen=True)
class Batch:
    """Rows to be applied together, and where the reading stands then."""

    rows: Sequence[Row]
    read: int
    after: Place


class Source:
    """What was read stays until it is passed, so that each part is read once."""

    def __init__(self, database: Database, job: Job) -> None:
        self._database = database
        self._job = job
        self._data = b""
        self._at = 0

    async def open(self) -> tuple[Reader, Place]:
        """The reader, and the place of the first row. Raises Unreadable."""
        await self._grow(LONGEST + 1)
        job = self._job
        return opened(job.format, job.currency, self._data, last=self._has_all)

    async def batch(self, reader: Reader, place: Place, most: int) -> Batch:
        """At most about so many rows; none only at the end of the file."""
        rows: list[Row] = []
        read = looked_at = 0
        end = min(self._job.size, place.offset + _MOST_BYTES)
        await self._go_to(place)
        while len(rows) < most and place.offset < end:
            window = self._window(place)
            before = place
            for step in reader.steps(window):
                rows += step.rows
                read += step.read
                place = step.after
                if len(rows) >= looked_at + _SLICE:
                    looked_at = len(rows)
                    await asyncio.sleep(0)
                if len(rows) >= most or place.offset >= end:
                    break
            if place == before and window.last:
                place = Place(self._job.size, place.line)
            elif len(rows) < most and not window.last:
                self._drop_to(place)
                # twice as much: a long record is not looked at over and over
                await self._grow(max(PART, 2 * len(self._data)) if place == before else PART)
        return Batch(rows, read, place)

    @property
    def _has_all(self) -> bool:
        return self._at + len(self._data) >= self._job.size

    def _window(self, place: Place) -> Window:
        return Window(self._data[place.offset - self._at :], place, self._has_all)

    async def _go_to(self, place: Place) -> None:
        if place.offset < self._at or place.offset > self._at + len(self._data):
            self._data, self._at = b"", place.offset
        self._drop_to(place)
        await self._grow(PART)

    def _drop_to(self, place: Place) -> None:
        self._data = self._data[place.offset - self._at :]
        self._at = place.offset

    async def _grow(self, least: int) -> None:
        """Until there are so many bytes, or the file ends."""
        pieces = [self._data]
        have = len(self._data)
        async with self._database.reading() as store:
            while have < least and self._at + have < self._job.size:
                number, skipped = divmod(self._at + have, PART)
                part = await store.part(self._job.upload_id, number)
                if part is None:
                    raise LookupError(f"upload {self._job.upload_id} has no part {number}")
                pieces.append(part[skipped:])
                have += len(part) - skipped
        self._data = b"".join(pieces)


class Ahead:
    """Reads the next batch while the last one is applied."""

    def __init__(self, source: Source, reader: Reader) -> None:
        self._source = source
        self._reader = reader
        self._next: tuple[Place, asyncio.Task[Batch]] | None = None

    def begin(self, place: Place, most: int) -> None:
        """Somebody will want the batch at this place."""
        reading = asyncio.create_task(self._source.batch(self._reader, place, most))
        self._next = place, reading

    async def batch(self, place: Place, most: int) -> Batch:
        if self._next and self._next[0] == place:
            (_, reading), self._next = self._next, None
            return await reading
        # the last one was not applied whole: its rows are wanted again
        await self.end()
        return await self._source.batch(self._reader, place, most)

    async def end(self) -> None:
        """What was read ahead is not wanted."""
        if self._next:
            (_, reading), self._next = self._next, None
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                # it may have failed too, which nobody needs to know
                reading.exception()
