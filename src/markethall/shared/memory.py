"""The in-memory backend: tables with transactions, and the tables that every context has.

A supported backend, not a test double: one transaction at a time, a draft that is swapped in at
the end, and entities copied on their way in and out, so that nothing changes unsaved.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from markethall.shared.backend import Backend
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.db import IN_TRANSACTION
from markethall.shared.events import DeadLetter, Delivery, Envelope, Event, Lead, sealed
from markethall.shared.idempotency import Answer, Attempt, Claim, LeaseLost

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S")


class Table(Generic[K, V]):
    """Rows by key, in the order they were added. Give and get copies.

    `copied` makes the copy of a row; the default is shallow, so rows hold immutable values.
    """

    def __init__(self, copied: Callable[[V], V] = copy) -> None:
        self._rows: dict[K, V] = {}
        self._copied = copied
        self._undo: list[Callable[[], None]] | None = None

    def get(self, key: K) -> V | None:
        row = self._rows.get(key)
        return None if row is None else self._copied(row)

    def put(self, key: K, row: V) -> None:
        self._remember(key)
        self._rows[key] = self._copied(row)

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
        before = dict(self._rows)
        self._on_undo(lambda: self._restore(before))
        del self._rows[key]
        return True

    def rows(self) -> Iterator[V]:
        return (self._copied(row) for row in self._rows.values())

    def where(self, wanted: Callable[[V], bool]) -> list[V]:
        """Copies of the rows that are wanted; `wanted` must only look."""
        return [self._copied(row) for row in self._rows.values() if wanted(row)]

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: K) -> bool:
        return key in self._rows

    def begin(self, undo: list[Callable[[], None]]) -> None:
        self._undo = undo

    def end(self) -> None:
        self._undo = None

    def _remember(self, key: K) -> None:
        if key in self._rows:
            before = self._rows[key]
            self._on_undo(lambda: self._rows.__setitem__(key, before))
        else:
            self._on_undo(lambda: self._forget(key))

    def _forget(self, key: K) -> None:
        del self._rows[key]

    def _restore(self, rows: dict[K, V]) -> None:
        self._rows = rows

    def _on_undo(self, action: Callable[[], None]) -> None:
        if self._undo is None:
            raise RuntimeError("a memory table was written outside a transaction")
        self._undo.append(action)


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
class KeyRow:
    claim: Claim
    expires_at: datetime


class CommonTables:
    """What every context has. A context's own tables inherit and add theirs."""

    def __init__(self) -> None:
        self.outbox: Table[UUID, Envelope] = Table()
        self.inbox: Table[tuple[str, UUID], InboxRow] = Table()
        self.keys: Table[str, KeyRow] = Table()
        self.last_seq = 0

    def all(self) -> "list[Table[Any, Any]]":
        return [table for table in vars(self).values() if isinstance(table, Table)]


T = TypeVar("T", bound=CommonTables)
T_contra = TypeVar("T_contra", bound=CommonTables, contravariant=True)
S_co = TypeVar("S_co", covariant=True)


class StoreOf(Protocol[T_contra, S_co]):
    def __call__(self, tables: T_contra, clock: Clock) -> S_co: ...


class MemoryStore:
    """The part of a context's store that every context has. One transaction long."""

    def __init__(self, tables: CommonTables, clock: Clock) -> None:
        self._common = tables
        self._clock = clock
        self.published = False

    async def publish(self, event: Event, call: Call) -> None:
        """Write the event to the outbox; it leaves only if this transaction commits."""
        self._common.last_seq += 1
        envelope = sealed(event, call, self._clock())
        envelope = envelope.model_copy(update={"seq": self._common.last_seq})
        self._common.outbox.put(envelope.event_id, envelope)
        self.published = True

    async def handled(self, delivery: Delivery) -> bool:
        """Tick an inbox row off; False when its effect has happened already."""
        key = _key(delivery)
        row = self._common.inbox.get(key)
        if row is None or row.state != "waiting":
            return False
        self._common.inbox.put(key, replace(row, state="done", done_at=self._clock()))
        return True

    async def finish(self, attempt: Attempt, result: Any) -> None:
        """Keep the answer under the attempt's key. Raises LeaseLost."""
        if not attempt.keyed:
            return
        expires_at = self._clock() + attempt.kept_for
        if not _finish(self._common, attempt.scope, attempt.present(result), expires_at):
            raise LeaseLost


class MemoryDatabase(Generic[T, S]):
    """Tables behind one lock."""

    def __init__(self, tables: T, store: StoreOf[T, S], clock: Clock) -> None:
        self.tables = tables
        self._store = store
        self._clock = clock
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None
        self.on_publish: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[S]:
        """Commits when the block ends; when it raises, everything is as before."""
        async with self.changing() as tables:
            store = self._store(tables, self._clock)
            token = IN_TRANSACTION.set("memory")
            try:
                yield store
            finally:
                IN_TRANSACTION.reset(token)
        if getattr(store, "published", False):
            self.on_publish()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[S]:
        """Waits for the running transaction, so that its draft is never seen."""
        async with self._alone():
            yield self._store(self.tables, self._clock)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[T]:
        async with self._alone():
            undo: list[Callable[[], None]] = []
            for table in self.tables.all():
                table.begin(undo)
            try:
                yield self.tables
            except BaseException:
                for action in reversed(undo):
                    action()
                raise
            finally:
                for table in self.tables.all():
                    table.end()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """A task that waits for itself would wait for ever; say so instead."""
        task = asyncio.current_task()
        if self._holder is task:
            raise RuntimeError("this task is inside a block of the same memory database already")
        async with self._lock:
            self._holder = task
            try:
                yield
            finally:
                self._holder = None


def memory_backend(
    tables: T, store: StoreOf[T, S], clock: Clock
) -> "Backend[MemoryDatabase[T, S]]":
    database = MemoryDatabase(tables, store, clock)
    return Backend(
        database=database,
        outbox=MemoryOutbox(database),
        inbox=MemoryInbox(database, clock),
        claims=MemoryClaims(database),
    )


class MemoryOutbox:
    """One process: whoever asks first leads."""

    def __init__(self, database: "MemoryDatabase[Any, Any]") -> None:
        self._database = database
        self._led = False

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[Lead | None]:
        if self._led:
            yield None
            return
        self._led = True
        try:
            yield MemoryLead(self._database)
        finally:
            self._led = False

    async def purge(self, before: datetime) -> int:  # noqa: ARG002 - what is relayed is gone already
        return 0


class MemoryLead:
    def __init__(self, database: "MemoryDatabase[Any, Any]") -> None:
        self._database = database

    async def unpublished(self, limit: int) -> Sequence[Envelope]:
        async with self._database.changing() as tables:
            return list(tables.outbox.rows())[:limit]

    async def mark_published(self, envelopes: Sequence[Envelope], now: datetime) -> None:  # noqa: ARG002 - memory keeps no history
        async with self._database.changing() as tables:
            for envelope in envelopes:
                tables.outbox.remove(envelope.event_id)


class MemoryInbox:
    def __init__(self, database: "MemoryDatabase[Any, Any]", clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._position = 0

    async def accept(self, handlers: Sequence[str], envelopes: Sequence[Envelope]) -> None:
        now = self._clock()
        async with self._database.changing() as tables:
            for envelope in envelopes:
                for handler in handlers:
                    self._position += 1
                    delivery = Delivery(handler=handler, envelope=envelope, attempts=0)
                    row = InboxRow(delivery, self._position, received_at=now, due_at=now)
                    tables.inbox.add(_key(delivery), row)

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        async with self._database.changing() as tables:
            heads: dict[UUID, InboxRow] = {}
            for row in tables.inbox.where(lambda row: row.state == "waiting"):
                heads.setdefault(row.delivery.envelope.key, row)
            due = [row for row in heads.values() if row.due_at <= now][:limit]
            claimed = [_claimed(row, now + lease) for row in due]
            for row in claimed:
                tables.inbox.put(_key(row.delivery), row)
            return [row.delivery for row in claimed]

    async def postpone(
        self, delivery: Delivery, error: str, due_at: datetime, *, excused: bool = False
    ) -> None:
        attempts = delivery.attempts - int(excused)
        tried = delivery.model_copy(update={"attempts": attempts})
        await self._change(delivery, delivery=tried, error=error, due_at=due_at)

    async def bury(self, delivery: Delivery, error: str) -> None:
        await self._change(delivery, error=error, state="dead")

    async def dead(self, limit: int = 100) -> Sequence[DeadLetter]:
        async with self._database.changing() as tables:
            rows = tables.inbox.where(lambda row: row.state == "dead")[:limit]
        return [_dead_letter(row) for row in rows]

    async def retry_dead(self, event_id: UUID | None = None) -> int:
        return await self._again(
            lambda row: row.state == "dead" and event_id in {None, row.delivery.envelope.event_id}
        )

    async def replay(self, event_id: UUID) -> int:
        return await self._again(
            lambda row: row.state != "waiting" and row.delivery.envelope.event_id == event_id
        )

    async def purge(self, before: datetime) -> int:
        async with self._database.changing() as tables:
            old = tables.inbox.where(lambda row: row.done_at is not None and row.done_at < before)
            for row in old:
                tables.inbox.remove(_key(row.delivery))
            return len(old)

    async def _again(self, wanted: Callable[[InboxRow], bool]) -> int:
        async with self._database.changing() as tables:
            rows = tables.inbox.where(wanted)
            for row in rows:
                fresh = row.delivery.model_copy(update={"attempts": 0})
                again = replace(row, delivery=fresh, state="waiting", done_at=None)
                tables.inbox.put(_key(fresh), replace(again, due_at=row.received_at))
            return len(rows)

    async def _change(self, delivery: Delivery, /, **changes: Any) -> None:
        async with self._database.changing() as tables:
            row = tables.inbox.get(_key(delivery))
            if row and row.state == "waiting":
                tables.inbox.put(_key(delivery), replace(row, **changes))


class MemoryClaims:
    def __init__(self, database: "MemoryDatabase[Any, Any]") -> None:
        self._database = database

    async def claim(self, claim: Claim, expires_at: datetime) -> Claim | None:
        async with self._database.changing() as tables:
            if tables.keys.add(claim.scope, KeyRow(claim, expires_at)):
                return None
            standing: KeyRow = tables.keys.get(claim.scope)
            return standing.claim

    async def take_over(self, standing: Claim, lease_until: datetime) -> bool:
        async with self._database.changing() as tables:
            row: KeyRow | None = tables.keys.get(standing.scope)
            if row is None or row.claim != standing:
                return False
            tables.keys.put(standing.scope, _leased(row, lease_until))
            return True

    async def finish(self, scope: str, answer: Answer, expires_at: datetime) -> None:
        async with self._database.changing() as tables:
            _finish(tables, scope, answer, expires_at)

    async def hand_back(self, claim: Claim, now: datetime) -> None:
        async with self._database.changing() as tables:
            row: KeyRow | None = tables.keys.get(claim.scope)
            if row and row.claim == claim:
                tables.keys.put(claim.scope, _leased(row, now))

    async def purge(self, now: datetime) -> int:
        async with self._database.changing() as tables:
            old = tables.keys.where(lambda row: row.expires_at < now)
            for row in old:
                tables.keys.remove(row.claim.scope)
            return len(old)


def _finish(tables: CommonTables, scope: str, answer: Answer, expires_at: datetime) -> bool:
    row = tables.keys.get(scope)
    if row is None or row.claim.answer is not None:
        return False
    claim = row.claim.model_copy(update={"answer": answer})
    tables.keys.put(scope, KeyRow(claim, expires_at))
    return True


def _leased(row: KeyRow, until: datetime) -> KeyRow:
    return replace(row, claim=row.claim.model_copy(update={"lease_until": until}))


def _key(delivery: Delivery) -> tuple[str, UUID]:
    return delivery.handler, delivery.envelope.event_id


def _claimed(row: InboxRow, due_at: datetime) -> InboxRow:
    attempts = row.delivery.attempts + 1
    delivery = row.delivery.model_copy(update={"attempts": attempts})
    return replace(row, delivery=delivery, due_at=due_at)


def _dead_letter(row: InboxRow) -> DeadLetter:
    envelope = row.delivery.envelope
    return DeadLetter(
        handler=row.delivery.handler,
        event_id=envelope.event_id,
        type=envelope.type,
        attempts=row.delivery.attempts,
        error=row.error,
        received_at=row.received_at,
    )
