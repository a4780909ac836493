"""Sorts more rows than fit into memory, with temporary files."""

import asyncio
import heapq
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import IO, Any, Final, Generic, Self, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")

# number of rows after which other tasks of the event loop may run
_YIELD_ROWS: Final = 200


class ExternalSorter(Generic[T]):
    """Collects rows, then returns them in the order of their keys.

    It keeps at most `max_rows` rows in memory. When it has that many, it sorts them and writes them
    to a temporary file. At the end it merges the files. The files are deleted at the end of the
    `with` block, and also if the process crashes.
    """

    def __init__(
        self, row_type: TypeAdapter[T], key: Callable[[T], Any], max_rows: int = 10_000
    ) -> None:
        self._row_type = row_type
        self._key = key
        self._max_rows = max_rows
        self._rows: list[T] = []
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    async def add(self, row: T) -> None:
        self._rows.append(row)
        if len(self._rows) >= self._max_rows:
            rows, self._rows = self._rows, []
            self._files.append(await asyncio.to_thread(self._write, rows))

    async def sorted_rows(self) -> AsyncIterator[T]:
        """Yield all rows in order, and let other tasks run in between."""
        self._rows.sort(key=self._key)
        sources = [self._rows, *map(self._read, self._files)]
        for count, row in enumerate(heapq.merge(*sources, key=self._key)):
            if count % _YIELD_ROWS == 0:
                await asyncio.sleep(0)
            yield row

    def _write(self, rows: list[T]) -> IO[bytes]:
        rows.sort(key=self._key)
        # closed by `__exit__`; the file has no name, so the system also deletes it when the process
        # ends
        file = tempfile.TemporaryFile()  # noqa: SIM115 - outlives this method
        for row in rows:
            file.write(self._row_type.dump_json(row) + b"\n")
        file.seek(0)
        return file

    def _read(self, file: IO[bytes]) -> Iterator[T]:
        return (self._row_type.validate_json(line) for line in file)
