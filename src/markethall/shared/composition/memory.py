"""The in-memory storage of a context: common tables and unit of work.

The application can run with this storage, so it is transactional: transactions run one at a time, a
failed transaction is undone, and rows are copied when they are stored and read.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client import Counter

from markethall.shared.composition.context_persistence import (
    NO_COUNTERS,
    CommitCount,
    ContextPersistence,
    EventCounters,
    count_committed,
)
from markethall.shared.idempotency.memory import (
    IdempotencyTables,
    MemoryIdempotencyStore,
    complete_idempotency_record,
)
from markethall.shared.idempotency.records import IdempotentCommand, LeaseLost
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import Delivery, Event, wrap_event
from markethall.shared.messaging.memory import (
    MemoryInbox,
    MemoryOutbox,
    MessagingTables,
    delivery_key,
)
from markethall.shared.messaging.wake_signal import WakeSignal
from markethall.shared.persistence.memory import TransactionalTables


class ContextTables(MessagingTables, IdempotencyTables):
    """The tables that every context has. A context's own tables inherit from this class."""


class MemoryUnitOfWork:
    """The base class of a context's store. It writes the common tables in one transaction."""

    def __init__(self, tables: ContextTables, clock: Clock) -> None:
        self._context_tables = tables
        self._clock = clock
        self.published_events: list[Event] = []
        self.commit_counts: list[CommitCount] = []

    async def publish(self, event: Event, ctx: CallContext) -> None:
        """Write the event to the outbox. It is sent only if this transaction commits."""
        self._context_tables.last_seq += 1
        envelope = wrap_event(event, ctx, self._clock())
        envelope = envelope.model_copy(update={"seq": self._context_tables.last_seq})
        self._context_tables.outbox.put(envelope.event_id, envelope)
        self.published_events.append(event)

    def count_on_commit(self, counter: Counter, amount: int = 1) -> None:
        """Add the amount to a counter of the metrics if this transaction commits."""
        self.commit_counts.append((counter, amount))

    async def mark_processed(self, delivery: Delivery) -> bool:
        """Mark the inbox row as processed. Returns False if its state is not `waiting`."""
        key = delivery_key(delivery)
        row = self._context_tables.inbox.get(key)
        if row is None or row.state != "waiting":
            return False
        self._context_tables.inbox.put(key, replace(row, state="done", done_at=self._clock()))
        return True

    async def store_response(self, command: IdempotentCommand, result: Any) -> None:
        """Store the response if the command has an idempotency key.

        Raises LeaseLost if another attempt with the same key has finished first.
        """
        if command.has_key and not complete_idempotency_record(
            self._context_tables,
            command.scope,
            command.build_response(result),
            self._clock() + command.retention,
        ):
            raise LeaseLost


T = TypeVar("T", bound=ContextTables)
T_contra = TypeVar("T_contra", bound=ContextTables, contravariant=True)
S = TypeVar("S", bound=MemoryUnitOfWork)
S_co = TypeVar("S_co", bound=MemoryUnitOfWork, covariant=True)


class MemoryStoreFactory(Protocol[T_contra, S_co]):
    def __call__(self, tables: T_contra, clock: Clock) -> S_co: ...


class MemoryDatabase(TransactionalTables[T], Generic[T, S]):
    """The tables of one context. Calls `after_publish` after a commit that published an event.

    `event_counters` has the counters of published events. They count only events of committed
    transactions.
    """

    def __init__(
        self,
        tables: T,
        store_factory: MemoryStoreFactory[T, S],
        clock: Clock,
        after_publish: Callable[[], None] = lambda: None,
        event_counters: EventCounters = NO_COUNTERS,
    ) -> None:
        super().__init__(tables)
        self._store_factory = store_factory
        self._clock = clock
        self.after_publish = after_publish
        self._event_counters = event_counters
        self.write_count = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[S]:
        """Commit when the block ends; undo everything when it raises."""
        async with self.write_transaction() as tables:
            store = self._store_factory(tables, self._clock)
            yield store
        self.write_count += 1
        count_committed(store.published_events, self._event_counters, store.commit_counts)
        if store.published_events:
            self.after_publish()

    def autocommit(self) -> AbstractAsyncContextManager[S]:
        """Run the block as a transaction. A block with one statement has the same effect."""
        return self.transaction()

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[S]:
        """Yield a store for reads.

        It first waits for the running transaction, so that uncommitted rows are never read.
        """
        async with self._exclusive_access("reading"):
            yield self._store_factory(self.tables, self._clock)


R_co = TypeVar("R_co", covariant=True)


class MemorySnapshots(Generic[T, R_co]):
    """Implements `SnapshotDatabase`: nothing is written while a snapshot is open."""

    def __init__(self, database: TransactionalTables[T], build_reads: Callable[[T], R_co]) -> None:
        self._database = database
        self._build_reads = build_reads

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[R_co]:
        async with self._database.write_transaction() as tables:
            yield self._build_reads(tables)


def build_memory_persistence(
    tables: T,
    store_factory: MemoryStoreFactory[T, S],
    clock: Clock,
    event_counters: EventCounters = NO_COUNTERS,
) -> "ContextPersistence[MemoryDatabase[T, S]]":
    outbox_signal = WakeSignal()
    database = MemoryDatabase(tables, store_factory, clock, outbox_signal.set, event_counters)
    return ContextPersistence(
        database=database,
        outbox=MemoryOutbox(database),
        inbox=MemoryInbox(database, clock),
        idempotency_store=MemoryIdempotencyStore(database),
        outbox_signal=outbox_signal,
    )
