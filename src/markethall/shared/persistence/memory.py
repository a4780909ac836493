"""Tables in memory, with one transaction at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from copy import copy
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from markethall.shared.persistence.database import HOLDS_CONNECTION

K = TypeVar("K")
V = TypeVar("V")


class Table(Generic[K, V]):
    """Rows by key, in insertion order. Rows are copied when they are stored and when they are read.

    `copy_row` makes a shallow copy by default, so the fields of a row must be immutable.
    """

    def __init__(
        self, copy_row: Callable[[V], V] = copy, rows: Mapping[K, V] = MappingProxyType({})
    ) -> None:
        self._rows: dict[K, V] = dict(rows)
        self._copy_row = copy_row
        self._undo_log: list[Callable[[], None]] | None = None

    def get(self, key: K) -> V | None:
        row = self._rows.get(key)
        return None if row is None else self._copy_row(row)

    def put(self, key: K, row: V) -> None:
        self._log_undo(key)
        self._rows[key] = self._copy_row(row)

    def add(self, key: K, row: V) -> bool:
        """Insert the row; return False if the key exists."""
        is_new = key not in self._rows
        if is_new:
            self.put(key, row)
        return is_new

    def remove(self, key: K) -> bool:
        """Delete the row; return False if there is none."""
        if key not in self._rows:
            return False
        # the undo restores all rows, because a row that is inserted again would be the last one
        rows = dict(self._rows)
        self._append_undo(lambda: self._restore(rows))
        del self._rows[key]
        return True

    def rows(self) -> Iterator[V]:
        return (self._copy_row(row) for row in self._rows.values())

    def where(self, predicate: Callable[[V], bool]) -> list[V]:
        """Return copies of the matching rows.

        For speed, `predicate` gets the stored row, not a copy, so it must not change the row.
        """
        return [self._copy_row(row) for row in self._rows.values() if predicate(row)]

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: K) -> bool:
        return key in self._rows

    def start_undo_log(self, undo_log: list[Callable[[], None]]) -> None:
        self._undo_log = undo_log

    def stop_undo_log(self) -> None:
        self._undo_log = None

    def _log_undo(self, key: K) -> None:
        if key in self._rows:
            row = self._rows[key]
            self._append_undo(lambda: self._rows.__setitem__(key, row))
        else:
            self._append_undo(lambda: self._delete(key))

    def _delete(self, key: K) -> None:
        del self._rows[key]

    def _restore(self, rows: dict[K, V]) -> None:
        self._rows = rows

    def _append_undo(self, action: Callable[[], None]) -> None:
        if self._undo_log is None:
            raise RuntimeError("a memory table was written outside a transaction")
        self._undo_log.append(action)


class TableSet:
    """Tables that share one lock and one transaction."""

    def all_tables(self) -> "list[Table[Any, Any]]":
        return [table for table in vars(self).values() if isinstance(table, Table)]


T_co = TypeVar("T_co", bound=TableSet, covariant=True)


class TransactionalTables(Generic[T_co]):
    """A set of tables behind one lock."""

    def __init__(self, tables: T_co) -> None:
        self.tables = tables
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None

    @asynccontextmanager
    async def write_transaction(self) -> AsyncIterator[T_co]:
        """Keep the changes when the block ends; undo them when it raises."""
        async with self._exclusive_access("memory"):
            undo_log: list[Callable[[], None]] = []
            for table in self.tables.all_tables():
                table.start_undo_log(undo_log)
            try:
                yield self.tables
            except BaseException:
                for action in reversed(undo_log):
                    action()
                raise
            finally:
                for table in self.tables.all_tables():
                    table.stop_undo_log()

    @asynccontextmanager
    async def _exclusive_access(self, held: str) -> AsyncIterator[None]:
        """Hold the lock, and set HOLDS_CONNECTION to `held`.

        Raises RuntimeError, not a deadlock, if this task already holds the lock.
        """
        task = asyncio.current_task()
        if self._holder is task:
            raise RuntimeError("this task already holds the lock of this memory database")
        async with self._lock:
            self._holder = task
            token = HOLDS_CONNECTION.set(held)
            try:
                yield
            finally:
                HOLDS_CONNECTION.reset(token)
                self._holder = None
