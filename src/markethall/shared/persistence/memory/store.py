"""The part of a context's store that every context has, and its transactions."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Generic

from markethall.shared.idempotency.records import IdempotentCommand, LeaseLost, StoredResponse
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import Delivery, Event, wrap_event
from markethall.shared.persistence.memory.tables import (
    ContextTables,
    IdempotencyRow,
    MemoryStoreFactory,
    S,
    T,
    delivery_key,
)
from markethall.shared.persistence.postgres import HOLDS_CONNECTION


class MemoryStore:
    """The part of a context's store that every context has. One transaction long."""

    def __init__(self, tables: ContextTables, clock: Clock) -> None:
        self._context_tables = tables
        self._clock = clock
        self.has_published = False

    async def publish(self, event: Event, ctx: CallContext) -> None:
        """Write the event to the outbox; it leaves only if this transaction commits."""
        self._context_tables.last_seq += 1
        envelope = wrap_event(event, ctx, self._clock())
        envelope = envelope.model_copy(update={"seq": self._context_tables.last_seq})
        self._context_tables.outbox.put(envelope.event_id, envelope)
        self.has_published = True

    async def mark_processed(self, delivery: Delivery) -> bool:
        """Tick an inbox row off; False when its effect has happened already."""
        key = delivery_key(delivery)
        row = self._context_tables.inbox.get(key)
        if row is None or row.state != "waiting":
            return False
        self._context_tables.inbox.put(key, replace(row, state="done", done_at=self._clock()))
        return True

    async def store_response(self, attempt: IdempotentCommand, result: Any) -> None:
        """Keep the answer under the attempt's key. Raises LeaseLost."""
        if not attempt.has_key:
            return
        expires_at = self._clock() + attempt.retention
        if not complete_idempotency_record(
            self._context_tables, attempt.scope, attempt.to_response(result), expires_at
        ):
            raise LeaseLost


class MemoryDatabase(Generic[T, S]):
    """Tables behind one lock."""

    def __init__(self, tables: T, store_factory: MemoryStoreFactory[T, S], clock: Clock) -> None:
        self.tables = tables
        self._store_factory = store_factory
        self._clock = clock
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None
        self.after_publish: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[S]:
        """Commits when the block ends; when it raises, everything is as before."""
        async with self.write_transaction() as tables:
            store = self._store_factory(tables, self._clock)
            token = HOLDS_CONNECTION.set("memory")
            try:
                yield store
            finally:
                HOLDS_CONNECTION.reset(token)
        if getattr(store, "has_published", False):
            self.after_publish()

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[S]:
        """Waits for the running transaction, so that its draft is never seen."""
        async with self._exclusive():
            token = HOLDS_CONNECTION.set("reading")
            try:
                yield self._store_factory(self.tables, self._clock)
            finally:
                HOLDS_CONNECTION.reset(token)

    @asynccontextmanager
    async def write_transaction(self) -> AsyncIterator[T]:
        async with self._exclusive():
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
    async def _exclusive(self) -> AsyncIterator[None]:
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


def complete_idempotency_record(
    tables: ContextTables, scope: str, response: StoredResponse, expires_at: datetime
) -> bool:
    row = tables.idempotency_records.get(scope)
    if row is None or row.record.response is not None:
        return False
    record = row.record.model_copy(update={"response": response})
    tables.idempotency_records.put(scope, IdempotencyRow(record, expires_at))
    return True
