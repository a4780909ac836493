"""The inbox: a queue in the listener's own schema."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import DeadLetter, Delivery, EventEnvelope
from markethall.shared.persistence.postgres import Postgres, Statement
from markethall.shared.persistence.sql.outbox import envelope_from_row
from markethall.shared.persistence.sql.statements import ContextStatements
from markethall.shared.persistence.sql.store import delivery_binds


class SqlInbox:
    def __init__(self, postgres: Postgres, statements: ContextStatements, clock: Clock) -> None:
        self._postgres = postgres
        self._statements = statements
        self._clock = clock

    async def enqueue(self, handlers: Sequence[str], envelopes: Sequence[EventEnvelope]) -> None:
        now = self._clock()
        rows = [
            _inbox_row(handler, envelope, now) for envelope in envelopes for handler in handlers
        ]
        async with self._postgres.read_session() as connection:
            await connection.execute_many(self._statements.insert_delivery, rows)

    async def enqueue_dead_letter(self, handler: str, envelope: EventEnvelope, error: str) -> None:
        row = _inbox_row(handler, envelope, self._clock())
        async with self._postgres.read_session() as connection:
            await connection.execute_many(
                self._statements.insert_delivery, [row | {"state": "dead", "error": error}]
            )

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        async with self._postgres.read_session() as connection:
            rows = await connection.fetch_all(
                self._statements.claim_deliveries, now=now, lease_until=now + lease, limit=limit
            )
        return [
            Delivery(
                handler=row["handler"], attempts=row["attempts"], envelope=envelope_from_row(row)
            )
            for row in sorted(rows, key=lambda row: row["position"])
        ]

    async def retry_later(
        self, delivery: Delivery, error: str, due_at: datetime, *, count_attempt: bool = True
    ) -> None:
        await self._execute(
            self._statements.retry_later,
            **delivery_binds(delivery),
            error=error,
            due_at=due_at,
            uncounted_attempts=int(not count_attempt),
        )

    async def dead_letter(self, delivery: Delivery, error: str) -> None:
        await self._execute(self._statements.dead_letter, **delivery_binds(delivery), error=error)

    async def get_dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        async with self._postgres.read_session() as connection:
            rows = await connection.fetch_all(self._statements.select_dead_letters, limit=limit)
        return [DeadLetter(**{name: row[name] for name in DeadLetter.model_fields}) for row in rows]

    async def requeue_dead_letters(self, event_id: UUID | None = None) -> int:
        return await self._execute(self._statements.requeue_dead_letters, event_id=event_id)

    async def replay(self, event_id: UUID) -> int:
        return await self._execute(self._statements.replay_event, event_id=event_id)

    async def purge(self, before: datetime) -> int:
        return await self._execute(self._statements.purge_inbox, before=before)

    async def _execute(self, statement: Statement, **values: Any) -> int:
        async with self._postgres.read_session() as connection:
            return await connection.execute(statement, **values)


def _inbox_row(handler: str, envelope: EventEnvelope, now: datetime) -> dict[str, Any]:
    return envelope.model_dump(exclude={"seq"}) | {
        "handler": handler,
        "source_seq": envelope.seq,
        "state": "waiting",
        "attempts": 0,
        "error": "",
        "received_at": now,
        "due_at": now,
    }
