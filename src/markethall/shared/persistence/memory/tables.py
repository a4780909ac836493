"""Tables in memory, with undo, and those that every context has."""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from markethall.shared.idempotency.records import IdempotencyRecord
from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import Delivery, EventEnvelope

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S")


class Table(Generic[K, V]):
    """Rows by key, in the order they were added. Give and get copies.

    `copied` makes the copy of a row; the default is shallow, so rows hold immutable values. `rows`
    are there from the start.
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
        """False when the key is taken."""
        new = key not in self._rows
        if new:
            self.put(key, row)
        return new

    def remove(self, key: K) -> bool:
        if key not in self._rows:
            return False
        # put back at its place: the whole order is kept, since removing is rare
        rows = dict(self._rows)
        self._append_undo(lambda: self._restore(rows))
        del self._rows[key]
        return True

    def rows(self) -> Iterator[V]:
        return (self._copy_row(row) for row in self._rows.values())

    def where(self, predicate: Callable[[V], bool]) -> list[V]:
        """Copies of the rows that are wanted; `wanted` must only look."""
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


@dataclass(frozen=True)
class InboxRow:
    delivery: Delivery
    position: int
    received_at: datetime
    due_at: datetime
    state: str = "waiting"
    error: str = ""
    done_at: datetime | None = None


@dataclass(frozen=True)
class IdempotencyRow:
    record: IdempotencyRecord
    expires_at: datetime


class ContextTables:
    """What every context has. A context's own tables inherit and add theirs."""

    def __init__(self) -> None:
        self.outbox: Table[UUID, EventEnvelope] = Table()
        # published, and awaited by listeners in other processes
        self.awaiting_confirmation: Table[UUID, EventEnvelope] = Table()
        self.inbox: Table[tuple[str, UUID], InboxRow] = Table()
        self.idempotency_records: Table[str, IdempotencyRow] = Table()
        self.last_seq = 0

    def all_tables(self) -> "list[Table[Any, Any]]":
        return [table for table in vars(self).values() if isinstance(table, Table)]


T = TypeVar("T", bound=ContextTables)
T_contra = TypeVar("T_contra", bound=ContextTables, contravariant=True)
S_co = TypeVar("S_co", covariant=True)


class MemoryStoreFactory(Protocol[T_contra, S_co]):
    def __call__(self, tables: T_contra, clock: Clock) -> S_co: ...


def delivery_key(delivery: Delivery) -> tuple[str, UUID]:
    return delivery.handler, delivery.envelope.event_id
