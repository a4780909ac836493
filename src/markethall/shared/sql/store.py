"""The part of a context's store that every context has, and its transactions."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.db import Postgres, Session
from markethall.shared.events import Delivery, Event, sealed
from markethall.shared.idempotency import Attempt, LeaseLost
from markethall.shared.sql.statements import ContextStatements


class SqlStore:
    """The part of a context's store that every context has. One transaction long."""

    def __init__(self, session: Session, statements: ContextStatements, clock: Clock) -> None:
        self._session = session
        self._statements = statements
        self._clock = clock
        self.published = False

    async def publish(self, event: Event, call: Call) -> None:
        """Write the event to the outbox; it leaves only if this transaction commits."""
        row = sealed(event, call, self._clock()).model_dump(exclude={"seq"})
        await self._session.run(self._statements.publish, **row)
        self.published = True

    async def handled(self, delivery: Delivery) -> bool:
        """Tick an inbox row off; False when its effect has happened already."""
        now = self._clock()
        return bool(await self._session.run(self._statements.handled, **key_of(delivery), now=now))

    async def finish(self, attempt: Attempt, result: Any) -> None:
        """Keep the answer under the attempt's key. Raises LeaseLost."""
        if not attempt.keyed:
            return
        finished = await self._session.run(
            self._statements.finish_key,
            of=attempt.scope,
            text=attempt.present(result).model_dump_json(),
            expires=self._clock() + attempt.kept_for,
        )
        if not finished:
            raise LeaseLost


S_co = TypeVar("S_co", bound=SqlStore, covariant=True)


class SqlStoreOf(Protocol[S_co]):
    def __call__(self, session: Session, statements: ContextStatements, clock: Clock) -> S_co: ...


class SqlDatabase(Generic[S_co]):
    """A context's own schema: transactions that give its own store."""

    def __init__(
        self,
        postgres: Postgres,
        statements: ContextStatements,
        store: SqlStoreOf[S_co],
        clock: Clock,
    ) -> None:
        self._postgres = postgres
        self._statements = statements
        self._store = store
        self._clock = clock
        self.on_publish: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[S_co]:
        """Commits when the block ends, rolls back when it raises. Raises Unavailable."""
        async with self._postgres.transaction() as session:
            store = self._store(session, self._statements, self._clock)
            yield store
        if store.published:
            self.on_publish()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[S_co]:
        """Takes no locks; each statement sees its own snapshot. Raises Unavailable."""
        async with self._postgres.reading() as session:
            yield self._store(session, self._statements, self._clock)


def key_of(delivery: Delivery) -> dict[str, Any]:
    return {"of": delivery.handler, "event": delivery.envelope.event_id}
