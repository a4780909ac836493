import asyncio
from typing import Final

from markethall.inventory.imports.domain.file_records import (
    MAX_RECORD_BYTES,
    FileChunk,
    FilePosition,
)
from markethall.inventory.imports.domain.formats import RowReader, open_reader
from markethall.inventory.imports.domain.jobs import ImportJob
from markethall.inventory.imports.domain.row_validation import ReadStep, RowResult, StepReader
from markethall.inventory.imports.ports import ReadStore
from markethall.shared.persistence.database import ReadDatabase

# the size of a stored part of an upload; the last part is shorter
PART_BYTES: Final = 256 * 1024
# a batch ends at this size, even if it has fewer rows than requested
_MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
# The reader yields to other tasks after this many bytes or rows, which take a few milliseconds.
# Bytes count too, because blank lines give no rows.
_BYTES_BETWEEN_YIELDS: Final = 4096
_ROWS_BETWEEN_YIELDS: Final = 20


class ImportReader:
    """Reader of an upload.

    A buffer keeps the loaded bytes until they are parsed, so that each part is loaded only once.
    """

    def __init__(self, database: ReadDatabase[ReadStore], job: ImportJob) -> None:
        self._database = database
        self._job = job
        self._buffer = b""
        self._buffer_offset = 0

    async def open(self) -> tuple[RowReader, FilePosition]:
        """Return the reader of the format and the position of the first row.

        Raises UnreadableFile.
        """
        await self._fill_buffer(MAX_RECORD_BYTES + 1)
        job = self._job
        return open_reader(
            job.format, job.currency, self._buffer, is_whole_file=self._reaches_end_of_file
        )

    async def read_batch(
        self, row_reader: StepReader, position: FilePosition, max_rows: int
    ) -> ReadStep:
        """Read about `max_rows` rows. Return an empty batch only at the end of the file."""
        start = position
        rows: list[RowResult] = []
        read = rows_since_yield = bytes_since_yield = 0
        end = min(self._job.size, position.offset + _MAX_BATCH_BYTES)
        await self._seek(position)
        while len(rows) < max_rows and position.offset < end:
            unread = self._buffer[position.offset - self._buffer_offset :]
            chunk = FileChunk(unread, position, self._reaches_end_of_file)
            previous_position = position
            for step in row_reader.read_steps(chunk):
                rows += step.rows
                read += step.record_count
                position = step.next_position
                rows_since_yield += len(step.rows)
                bytes_since_yield += step.size
                if (
                    rows_since_yield >= _ROWS_BETWEEN_YIELDS
                    or bytes_since_yield >= _BYTES_BETWEEN_YIELDS
                ):
                    rows_since_yield = bytes_since_yield = 0
                    await asyncio.sleep(0)
                if len(rows) >= max_rows or position.offset >= end:
                    break
            if position == previous_position and chunk.is_last:
                position = FilePosition(self._job.size, position.line)
            elif len(rows) < max_rows and not chunk.is_last:
                self._discard_before(position)
                # If the position has not changed, the record is longer than the buffer. Double the
                # buffer in this case. If it grew by one part at a time, the record would be parsed
                # again after each part.
                await self._fill_buffer(
                    max(PART_BYTES, 2 * len(self._buffer))
                    if position == previous_position
                    else PART_BYTES
                )
        return ReadStep(tuple(rows), read, position, position.offset - start.offset)

    @property
    def _reaches_end_of_file(self) -> bool:
        return self._buffer_offset + len(self._buffer) >= self._job.size

    async def _seek(self, position: FilePosition) -> None:
        if position.offset < self._buffer_offset or position.offset > self._buffer_offset + len(
            self._buffer
        ):
            self._buffer, self._buffer_offset = b"", position.offset
        self._discard_before(position)
        await self._fill_buffer(PART_BYTES)

    def _discard_before(self, position: FilePosition) -> None:
        self._buffer = self._buffer[position.offset - self._buffer_offset :]
        self._buffer_offset = position.offset

    async def _fill_buffer(self, min_bytes: int) -> None:
        """Load parts until the buffer has `min_bytes`, or until the file ends."""
        parts = [self._buffer]
        buffered = len(self._buffer)
        async with self._database.read_session() as store:
            while buffered < min_bytes and self._buffer_offset + buffered < self._job.size:
                number, skipped = divmod(self._buffer_offset + buffered, PART_BYTES)
                part = await store.get_upload_part(self._job.upload_id, number)
                if part is None:
                    raise LookupError(f"upload {self._job.upload_id} has no part {number}")
                parts.append(part[skipped:])
                buffered += len(part) - skipped
        self._buffer = b"".join(parts)


class Prefetcher:
    """Read the next batch while the database writes the previous one."""

    def __init__(self, import_reader: ImportReader, row_reader: RowReader) -> None:
        self._import_reader = import_reader
        self._row_reader = row_reader
        self._pending: tuple[FilePosition, asyncio.Task[ReadStep]] | None = None

    def start(self, position: FilePosition, max_rows: int) -> None:
        """Start a task that reads the batch; `get_batch` returns its result."""
        read_task = asyncio.create_task(
            self._import_reader.read_batch(self._row_reader, position, max_rows)
        )
        self._pending = position, read_task

    async def get_batch(self, position: FilePosition, max_rows: int) -> ReadStep:
        if self._pending and self._pending[0] == position:
            (_, read_task), self._pending = self._pending, None
            return await read_task
        # the previous batch failed and is read again, so the batch that was read ahead is useless
        await self.cancel()
        return await self._import_reader.read_batch(self._row_reader, position, max_rows)

    async def cancel(self) -> None:
        """Stop reading ahead, and discard the batch."""
        if self._pending:
            (_, read_task), self._pending = self._pending, None
            read_task.cancel()
            # also retrieves the exception, because asyncio logs one that is never retrieved
            await asyncio.gather(read_task, return_exceptions=True)
