"""The Postgres storage of a context: common tables, statements and unit of work."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy as sa
from prometheus_client import Counter

from markethall.shared.composition.context_persistence import (
    NO_COUNTERS,
    CommitCount,
    ContextPersistence,
    EventCounters,
    count_committed,
)
from markethall.shared.idempotency.records import IdempotentCommand, LeaseLost
from markethall.shared.idempotency.sql import (
    IdempotencyStatements,
    SqlIdempotencyStore,
    add_idempotency_table,
    complete_idempotency_record,
    record_values,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import Delivery, Event, EventEnvelope, wrap_event
from markethall.shared.messaging.sql.inbox import InboxStatements, SqlInbox, delivery_binds
from markethall.shared.messaging.sql.outbox import OutboxStatements, SqlOutbox
from markethall.shared.messaging.sql.tables import add_inbox_table, add_outbox_table
from markethall.shared.messaging.wake_signal import WakeSignal
from markethall.shared.persistence.postgres import Connection, Postgres, Statement
from markethall.shared.persistence.postgres.session import PooledSession
from markethall.shared.persistence.sql import NAMING_CONVENTION


def context_metadata(schema: str) -> sa.MetaData:
    """Return the metadata of a schema with the tables outbox, inbox and idempotency_record."""
    metadata = sa.MetaData(schema=schema, naming_convention=NAMING_CONVENTION)
    add_outbox_table(metadata)
    add_inbox_table(metadata)
    add_idempotency_table(metadata)
    return metadata


class ContextStatements:
    """The statements on the common tables of one context."""

    def __init__(self, metadata: sa.MetaData) -> None:
        tables = {table.name: table for table in metadata.tables.values()}
        self.outbox = OutboxStatements(tables["outbox"])
        self.inbox = InboxStatements(tables["inbox"])
        self.idempotency = IdempotencyStatements(tables["idempotency_record"])


class SqlUnitOfWork:
    """The base class of a context's store. It writes the common tables in one transaction."""

    def __init__(self, connection: Connection, statements: ContextStatements, clock: Clock) -> None:
        self._connection = connection
        self._statements = statements
        self._clock = clock
        self.published_events: list[Event] = []
        self.commit_counts: list[CommitCount] = []

    def _wrap_events(self, events: Sequence[Event], ctx: CallContext) -> list[EventEnvelope]:
        """Return the envelopes for a statement that writes its effect and its events together.

        Call `_note_published` if the statement has written them.
        """
        return [wrap_event(event, ctx, self._clock()) for event in events]

    def _note_published(self, events: Iterable[Event]) -> None:
        self.published_events.extend(events)

    async def _has_effect(self, statement: Statement, **values: Any) -> bool:
        """Execute the statement, and tell whether it has changed a row."""
        return await self._connection.execute(statement, **values) > 0

    async def _fetch_bool(self, statement: Statement, **values: Any) -> bool:
        """Tell whether the only value of the statement is true. Without a row, it is false."""
        return bool(await self._connection.fetch_value(statement, **values))

    async def publish(self, event: Event, ctx: CallContext) -> None:
        """Write the event to the outbox. It is sent only if this transaction commits."""
        row = wrap_event(event, ctx, self._clock()).model_dump(exclude={"seq"})
        await self._connection.execute(self._statements.outbox.insert, **row)
        self.published_events.append(event)

    def count_on_commit(self, counter: Counter, amount: int = 1) -> None:
        """Add the amount to a counter of the metrics if this transaction commits."""
        self.commit_counts.append((counter, amount))

    async def mark_processed(self, delivery: Delivery) -> bool:
        """Mark the inbox row as processed. Returns False if its state is not `waiting`."""
        return bool(
            await self._connection.execute(
                self._statements.inbox.mark_processed,
                **delivery_binds(delivery),
                now=self._clock(),
            )
        )

    def _record_values(self, command: IdempotentCommand, result: Any) -> dict[str, Any]:
        """Return the values of a statement that stores the response, or none without a key."""
        if not command.has_key:
            return {}
        expires_at = self._clock() + command.retention
        return record_values(command.scope, command.build_response(result), expires_at)

    async def store_response(self, command: IdempotentCommand, result: Any) -> None:
        """Store the response if the command has an idempotency key.

        Raises LeaseLost if another attempt with the same key has finished first.
        """
        if command.has_key and not await complete_idempotency_record(
            self._connection,
            self._statements.idempotency,
            command.scope,
            command.build_response(result),
            self._clock() + command.retention,
        ):
            raise LeaseLost


S_co = TypeVar("S_co", bound=SqlUnitOfWork, covariant=True)


class SqlStoreFactory(Protocol[S_co]):
    def __call__(
        self, connection: Connection, statements: ContextStatements, clock: Clock
    ) -> S_co: ...


class SqlDatabase(Generic[S_co]):
    """The schema of one context. Calls `after_publish` after a commit that published an event.

    `event_counters` has the counters of published events. They count only events of committed
    transactions.
    """

    def __init__(
        self,
        postgres: Postgres,
        statements: ContextStatements,
        store_factory: SqlStoreFactory[S_co],
        clock: Clock,
        after_publish: Callable[[], None] = lambda: None,
        event_counters: EventCounters = NO_COUNTERS,
    ) -> None:
        self._postgres = postgres
        self._statements = statements
        self._store_factory = store_factory
        self._clock = clock
        self.after_publish = after_publish
        self._event_counters = event_counters
        self.write_count = 0

    def transaction(self) -> "StoreSession[S_co]":
        """Commit when the block ends; roll back when it raises. Raises Unavailable."""
        return StoreSession(self._postgres.transaction(), self._build_store, self._after_write)

    def autocommit(self) -> "StoreSession[S_co]":
        """Commit each statement by itself. Raises Unavailable."""
        return StoreSession(self._postgres.read_session(), self._build_store, self._after_write)

    def read_session(self) -> "StoreSession[S_co]":
        """Return a store for reads without a transaction: each statement sees the latest commits.

        Raises Unavailable.
        """
        return StoreSession(self._postgres.read_session(), self._build_store)

    def _build_store(self, connection: Connection) -> S_co:
        return self._store_factory(connection, self._statements, self._clock)

    def _after_write(self, store: SqlUnitOfWork) -> None:
        self.write_count += 1
        count_committed(store.published_events, self._event_counters, store.commit_counts)
        if store.published_events:
            self.after_publish()


class StoreSession(Generic[S_co]):
    """A context manager: a session of Postgres with the store of a context.

    It is a class for the same reason as PooledSession. `after_write` is called at the end of a
    block that has raised no error.
    """

    __slots__ = ("_after_write", "_build_store", "_session", "_store")

    def __init__(
        self,
        session: PooledSession,
        build_store: Callable[[Connection], S_co],
        after_write: Callable[[SqlUnitOfWork], None] | None = None,
    ) -> None:
        self._session = session
        self._build_store = build_store
        self._after_write = after_write

    async def __aenter__(self) -> S_co:
        self._store = self._build_store(await self._session.__aenter__())
        return self._store

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.__aexit__(kind, error, traceback)
        if error is None and self._after_write is not None:
            self._after_write(self._store)


R_co = TypeVar("R_co", covariant=True)


class SqlSnapshots(Generic[R_co]):
    """Implements `SnapshotDatabase`: each snapshot is a read-only transaction."""

    def __init__(self, postgres: Postgres, build_reads: Callable[[Connection], R_co]) -> None:
        self._postgres = postgres
        self._build_reads = build_reads

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[R_co]:
        async with self._postgres.snapshot() as connection:
            yield self._build_reads(connection)


def build_sql_persistence(
    postgres: Postgres,
    statements: ContextStatements,
    store_factory: SqlStoreFactory[S_co],
    clock: Clock,
    event_counters: EventCounters = NO_COUNTERS,
) -> ContextPersistence[SqlDatabase[S_co]]:
    outbox_signal = WakeSignal()
    return ContextPersistence(
        database=SqlDatabase(
            postgres, statements, store_factory, clock, outbox_signal.set, event_counters
        ),
        outbox=SqlOutbox(postgres, statements.outbox),
        inbox=SqlInbox(postgres, statements.inbox, clock),
        idempotency_store=SqlIdempotencyStore(postgres, statements.idempotency),
        outbox_signal=outbox_signal,
    )
