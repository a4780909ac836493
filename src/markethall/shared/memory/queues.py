"""Outbox, inbox and claimed keys, on the same tables and the same lock."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from markethall.shared.clock import Clock
from markethall.shared.events import DeadLetter, Delivery, Envelope, Lead
from markethall.shared.idempotency import Answer, Claim
from markethall.shared.memory.store import MemoryDatabase, finish_key
from markethall.shared.memory.tables import InboxRow, KeyRow, key_of


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

    async def mark_published(
        self,
        envelopes: Sequence[Envelope],
        now: datetime,  # noqa: ARG002 - memory keeps no history
        awaited: Collection[UUID] = (),
    ) -> None:
        async with self._database.changing() as tables:
            for envelope in envelopes:
                tables.outbox.remove(envelope.event_id)
                if envelope.event_id in awaited:
                    tables.sent.put(envelope.event_id, envelope)

    async def unconfirmed(self, after: int, limit: int) -> Sequence[Envelope]:
        async with self._database.changing() as tables:
            sent: list[Envelope] = tables.sent.where(lambda envelope: envelope.seq > after)
            return sent[:limit]

    async def mark_confirmed(self, event_ids: Sequence[UUID], now: datetime) -> None:  # noqa: ARG002 - as above
        async with self._database.changing() as tables:
            for event_id in event_ids:
                tables.sent.remove(event_id)


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
                    tables.inbox.add(key_of(delivery), row)

    async def accept_dead(self, handler: str, envelope: Envelope, error: str) -> None:
        now = self._clock()
        async with self._database.changing() as tables:
            self._position += 1
            delivery = Delivery(handler=handler, envelope=envelope, attempts=0)
            row = InboxRow(delivery, self._position, received_at=now, due_at=now)
            tables.inbox.add(key_of(delivery), replace(row, state="dead", error=error))

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        async with self._database.changing() as tables:
            heads: dict[UUID, InboxRow] = {}
            for row in tables.inbox.where(lambda row: row.state == "waiting"):
                heads.setdefault(row.delivery.envelope.key, row)
            due = [row for row in heads.values() if row.due_at <= now][:limit]
            claimed = [_claimed(row, now + lease) for row in due]
            for row in claimed:
                tables.inbox.put(key_of(row.delivery), row)
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
                tables.inbox.remove(key_of(row.delivery))
            return len(old)

    async def _again(self, wanted: Callable[[InboxRow], bool]) -> int:
        async with self._database.changing() as tables:
            rows = tables.inbox.where(wanted)
            for row in rows:
                fresh = row.delivery.model_copy(update={"attempts": 0})
                again = replace(row, delivery=fresh, state="waiting", done_at=None)
                tables.inbox.put(key_of(fresh), replace(again, due_at=row.received_at))
            return len(rows)

    async def _change(self, delivery: Delivery, /, **changes: Any) -> None:
        async with self._database.changing() as tables:
            row = tables.inbox.get(key_of(delivery))
            if row and row.state == "waiting":
                tables.inbox.put(key_of(delivery), replace(row, **changes))


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
            finish_key(tables, scope, answer, expires_at)

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


def _leased(row: KeyRow, until: datetime) -> KeyRow:
    return replace(row, claim=row.claim.model_copy(update={"lease_until": until}))


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
