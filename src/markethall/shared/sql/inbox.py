"""The inbox: a queue in the listener's own schema."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from markethall.shared.clock import Clock
from markethall.shared.db import Postgres, Statement
from markethall.shared.events import DeadLetter, Delivery, Envelope
from markethall.shared.sql.outbox import envelope_of
from markethall.shared.sql.statements import ContextStatements
from markethall.shared.sql.store import key_of


class SqlInbox:
    def __init__(self, postgres: Postgres, statements: ContextStatements, clock: Clock) -> None:
        self._postgres = postgres
        self._statements = statements
        self._clock = clock

    async def accept(self, handlers: Sequence[str], envelopes: Sequence[Envelope]) -> None:
        now = self._clock()
        rows = [
            _inbox_row(handler, envelope, now) for envelope in envelopes for handler in handlers
        ]
        async with self._postgres.reading() as session:
            await session.many(self._statements.accept, rows)

    async def accept_dead(self, handler: str, envelope: Envelope, error: str) -> None:
        row = _inbox_row(handler, envelope, self._clock())
        async with self._postgres.reading() as session:
            await session.many(self._statements.accept, [row | {"state": "dead", "error": error}])

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        async with self._postgres.reading() as session:
            rows = await session.all(
                self._statements.claim, now=now, lease_until=now + lease, limit=limit
            )
        return [
            Delivery(handler=row["handler"], attempts=row["attempts"], envelope=envelope_of(row))
            for row in sorted(rows, key=lambda row: row["position"])
        ]

    async def postpone(
        self, delivery: Delivery, error: str, due_at: datetime, *, excused: bool = False
    ) -> None:
        await self._run(
            self._statements.postpone,
            **key_of(delivery),
            why=error,
            due=due_at,
            excused=int(excused),
        )

    async def bury(self, delivery: Delivery, error: str) -> None:
        await self._run(self._statements.bury, **key_of(delivery), why=error)

    async def dead(self, limit: int = 100) -> Sequence[DeadLetter]:
        async with self._postgres.reading() as session:
            rows = await session.all(self._statements.dead, limit=limit)
        return [DeadLetter(**{name: row[name] for name in DeadLetter.model_fields}) for row in rows]

    async def retry_dead(self, event_id: UUID | None = None) -> int:
        return await self._run(self._statements.retry_dead, event=event_id)

    async def replay(self, event_id: UUID) -> int:
        return await self._run(self._statements.replay, event=event_id)

    async def purge(self, before: datetime) -> int:
        return await self._run(self._statements.purge_inbox, before=before)

    async def _run(self, statement: Statement, **values: Any) -> int:
        async with self._postgres.reading() as session:
            return await session.run(statement, **values)


def _inbox_row(handler: str, envelope: Envelope, now: datetime) -> dict[str, Any]:
    return envelope.model_dump(exclude={"seq"}) | {
        "handler": handler,
        "source_seq": envelope.seq,
        "state": "waiting",
        "attempts": 0,
        "error": "",
        "received_at": now,
        "due_at": now,
    }
