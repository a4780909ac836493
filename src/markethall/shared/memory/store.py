"""The part of a context's store that every context has, and its transactions."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Generic

from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.db import IN_TRANSACTION
from markethall.shared.events import Delivery, Event, sealed
from markethall.shared.idempotency import Answer, Attempt, LeaseLost
from markethall.shared.memory.tables import CommonTables, KeyRow, S, StoreOf, T, key_of


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
        key = key_of(delivery)
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
        if not finish_key(self._common, attempt.scope, attempt.present(result), expires_at):
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
            token = IN_TRANSACTION.set("reading")
            try:
                yield self._store(self.tables, self._clock)
            finally:
                IN_TRANSACTION.reset(token)

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


def finish_key(tables: CommonTables, scope: str, answer: Answer, expires_at: datetime) -> bool:
    row = tables.keys.get(scope)
    if row is None or row.claim.answer is not None:
        return False
    claim = row.claim.model_copy(update={"answer": answer})
    tables.keys.put(scope, KeyRow(claim, expires_at))
    return True
