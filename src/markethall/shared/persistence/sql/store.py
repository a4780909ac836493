"""The part of a context's store that every context has, and its transactions."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

from markethall.shared.idempotency.records import IdempotentCommand, LeaseLost
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import Delivery, Event, wrap_event
from markethall.shared.persistence.postgres import Connection, Postgres
from markethall.shared.persistence.sql.statements import ContextStatements


class SqlStore:
    """The part of a context's store that every context has. One transaction long."""

    def __init__(self, connection: Connection, statements: ContextStatements, clock: Clock) -> None:
        self._connection = connection
        self._statements = statements
        self._clock = clock
        self.has_published = False

    async def publish(self, event: Event, ctx: CallContext) -> None:
        """Write the event to the outbox; it leaves only if this transaction commits."""
        row = wrap_event(event, ctx, self._clock()).model_dump(exclude={"seq"})
        await self._connection.execute(self._statements.insert_event, **row)
        self.has_published = True

    async def mark_processed(self, delivery: Delivery) -> bool:
        """Tick an inbox row off; False when its effect has happened already."""
        now = self._clock()
        return bool(
            await self._connection.execute(
                self._statements.mark_processed, **delivery_binds(delivery), now=now
            )
        )

    async def store_response(self, attempt: IdempotentCommand, result: Any) -> None:
        """Keep the answer under the attempt's key. Raises LeaseLost."""
        if not attempt.has_key:
            return
        is_stored = await self._connection.execute(
            self._statements.complete_idempotency_record,
            scope=attempt.scope,
            response=attempt.to_response(result).model_dump_json(),
            expires_at=self._clock() + attempt.retention,
        )
        if not is_stored:
            raise LeaseLost


S_co = TypeVar("S_co", bound=SqlStore, covariant=True)


class SqlStoreFactory(Protocol[S_co]):
    def __call__(
        self, connection: Connection, statements: ContextStatements, clock: Clock
    ) -> S_co: ...


class SqlDatabase(Generic[S_co]):
    """A context's own schema: transactions that give its own store."""

    def __init__(
        self,
        postgres: Postgres,
        statements: ContextStatements,
        store_factory: SqlStoreFactory[S_co],
        clock: Clock,
    ) -> None:
        self._postgres = postgres
        self._statements = statements
        self._store_factory = store_factory
        self._clock = clock
        self.after_publish: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[S_co]:
        """Commits when the block ends, rolls back when it raises. Raises Unavailable."""
        async with self._postgres.transaction() as connection:
            store = self._store_factory(connection, self._statements, self._clock)
            yield store
        if store.has_published:
            self.after_publish()

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[S_co]:
        """Takes no locks; each statement sees its own snapshot. Raises Unavailable."""
        async with self._postgres.read_session() as connection:
            yield self._store_factory(connection, self._statements, self._clock)


def delivery_binds(delivery: Delivery) -> dict[str, Any]:
    return {"handler": delivery.handler, "event_id": delivery.envelope.event_id}
