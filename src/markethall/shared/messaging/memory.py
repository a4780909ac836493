from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.backlog import MAX_COUNT, Backlog
from markethall.shared.messaging.events import Delivery, EventEnvelope
from markethall.shared.messaging.inbox import (
    RETRY_LATER_PREFIX,
    DeadLetter,
    Inbox,
    StuckDelivery,
    StuckLimits,
)
from markethall.shared.messaging.outbox import InboxRoute, LeaderSession
from markethall.shared.persistence.memory import Table, TableSet, TransactionalTables


@dataclass(frozen=True)
class InboxRow:
    delivery: Delivery
    position: int
    received_at: datetime
    due_at: datetime
    state: str = "waiting"
    error: str = ""
    done_at: datetime | None = None


class MessagingTables(TableSet):
    """The tables of one context.

    `outbox` contains the events to relay; `awaiting_confirmation` the relayed, unconfirmed events.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outbox: Table[UUID, EventEnvelope] = Table()
        self.awaiting_confirmation: Table[UUID, EventEnvelope] = Table()
        self.inbox: Table[tuple[str, UUID], InboxRow] = Table()
        self.last_seq = 0


class MemoryOutbox:
    """Gives the leadership to one caller at a time.

    All callers are in this process, because the memory is not shared between processes.
    """

    def __init__(self, database: TransactionalTables[MessagingTables]) -> None:
        self._database = database
        self._has_leader = False

    def is_beside(self, inbox: Inbox) -> bool:
        """Return False, because each context has its own tables with their own lock."""
        return False

    async def notify_outbox(self) -> None:
        """Do nothing, because the leader is in this process."""

    async def notify_inbox(self) -> None:
        """Do nothing, because the leader is in this process."""

    @asynccontextmanager
    async def acquire_leadership(self) -> AsyncIterator[LeaderSession | None]:
        if self._has_leader:
            yield None
            return
        self._has_leader = True
        try:
            yield MemoryLeaderSession(self._database)
        finally:
            self._has_leader = False

    async def list_unpublished(
        self, occurred_before: datetime, after_seq: int | None, limit: int
    ) -> Sequence[EventEnvelope]:
        async with self._database.write_transaction() as tables:
            return tables.outbox.where(
                lambda envelope: (
                    envelope.occurred_at < occurred_before and envelope.seq > (after_seq or 0)
                )
            )[:limit]

    async def measure_backlog(self) -> Backlog:
        async with self._database.write_transaction() as tables:
            occurred = [envelope.occurred_at for envelope in tables.outbox.rows()]
        return Backlog(min(len(occurred), MAX_COUNT), occurred[0] if occurred else None)

    async def purge(self, before: datetime) -> int:
        return 0


class MemoryLeaderSession:
    def __init__(self, database: TransactionalTables[MessagingTables]) -> None:
        self._database = database

    async def heartbeat(self) -> bool:
        async with self._database.write_transaction() as tables:
            return len(tables.outbox) > 0

    async def listen(self, on_outbox: Callable[[], None], on_inbox: Callable[[], None]) -> None:
        """Do nothing, because there is no other process."""

    async def relay_to_inboxes(
        self, routes: Sequence[InboxRoute], now: datetime, limit: int
    ) -> Sequence[str]:
        raise NotImplementedError("no inbox is beside an outbox in memory")

    async def get_unrelayed(self, limit: int) -> Sequence[EventEnvelope]:
        async with self._database.write_transaction() as tables:
            return list(tables.outbox.rows())[:limit]

    async def mark_relayed(
        self,
        envelopes: Sequence[EventEnvelope],
        now: datetime,
        awaiting_confirmation: Collection[UUID] = (),
    ) -> None:
        async with self._database.write_transaction() as tables:
            for envelope in envelopes:
                tables.outbox.remove(envelope.event_id)
                if envelope.event_id in awaiting_confirmation:
                    tables.awaiting_confirmation.put(envelope.event_id, envelope)

    async def get_unconfirmed(self, after_seq: int, limit: int) -> Sequence[EventEnvelope]:
        async with self._database.write_transaction() as tables:
            return tables.awaiting_confirmation.where(lambda envelope: envelope.seq > after_seq)[
                :limit
            ]

    async def mark_confirmed(self, event_ids: Sequence[UUID], now: datetime) -> None:
        async with self._database.write_transaction() as tables:
            for event_id in event_ids:
                tables.awaiting_confirmation.remove(event_id)


class MemoryInbox:
    def __init__(self, database: TransactionalTables[MessagingTables], clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._position = 0

    async def enqueue(self, handlers: Sequence[str], envelopes: Sequence[EventEnvelope]) -> None:
        async with self._database.write_transaction() as tables:
            for envelope in envelopes:
                for handler in handlers:
                    row = self._new_row(handler, envelope)
                    tables.inbox.add(delivery_key(row.delivery), row)

    async def enqueue_dead_letter(self, handler: str, envelope: EventEnvelope, error: str) -> None:
        async with self._database.write_transaction() as tables:
            row = replace(self._new_row(handler, envelope), state="dead", error=error)
            tables.inbox.add(delivery_key(row.delivery), row)

    def _new_row(self, handler: str, envelope: EventEnvelope) -> InboxRow:
        self._position += 1
        now = self._clock()
        delivery = Delivery(handler=handler, envelope=envelope, attempts=0)
        return InboxRow(delivery, self._position, received_at=now, due_at=now)

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        async with self._database.write_transaction() as tables:
            due = [row for row in _oldest_waiting_rows(tables) if row.due_at <= now][:limit]
            all_due = tables.inbox.where(lambda row: row.state == "waiting" and row.due_at <= now)
            claimed = [_with_claim(row, now + lease) for row in due]
            for row in claimed:
                tables.inbox.put(delivery_key(row.delivery), row)
            flag = {"more_are_due": len(all_due) > len(due)}
            return [row.delivery.model_copy(update=flag) for row in claimed]

    async def retry_later(
        self, delivery: Delivery, error: str, due_at: datetime, *, count_attempt: bool = True
    ) -> None:
        attempts = delivery.attempts - int(not count_attempt)
        updated = delivery.model_copy(update={"attempts": attempts})
        await self._update(delivery, delivery=updated, error=error, due_at=due_at)

    async def dead_letter(self, delivery: Delivery, error: str) -> None:
        await self._update(delivery, error=error, state="dead")

    async def get_dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        async with self._database.write_transaction() as tables:
            rows = tables.inbox.where(lambda row: row.state == "dead")[:limit]
        return [_dead_letter(row) for row in rows]

    async def count_dead_letters(self) -> int:
        async with self._database.write_transaction() as tables:
            return len(tables.inbox.where(lambda row: row.state == "dead"))

    async def list_stuck(
        self, limits: StuckLimits, after_position: int | None, limit: int
    ) -> Sequence[StuckDelivery]:
        async with self._database.write_transaction() as tables:
            oldest_rows = _oldest_waiting_rows(tables)
        waiting = [_stuck_delivery(row) for row in oldest_rows]
        return [
            delivery
            for delivery in waiting
            if limits.include(delivery) and delivery.position > (after_position or 0)
        ][:limit]

    async def make_due(self, limits: StuckLimits, now: datetime, lease: timedelta) -> int:
        async with self._database.write_transaction() as tables:
            rows = tables.inbox.where(
                lambda row: (
                    row.state == "waiting"
                    and row.due_at > now + lease
                    and limits.include(_stuck_delivery(row))
                )
            )
            for row in rows:
                tables.inbox.put(delivery_key(row.delivery), replace(row, due_at=now))
            return len(rows)

    async def requeue_dead_letters(self, event_id: UUID | None = None) -> int:
        return await self._requeue(
            lambda row: row.state == "dead" and event_id in {None, row.delivery.envelope.event_id}
        )

    async def replay(self, event_id: UUID) -> int:
        return await self._requeue(
            lambda row: row.state != "waiting" and row.delivery.envelope.event_id == event_id
        )

    async def measure_backlog(self) -> Backlog:
        async with self._database.write_transaction() as tables:
            count = len(tables.inbox.where(lambda row: row.state == "waiting"))
            late = [
                row.received_at
                for row in _oldest_waiting_rows(tables)
                if not row.error.startswith(RETRY_LATER_PREFIX)
            ]
        return Backlog(min(count, MAX_COUNT), late[0] if late else None)

    async def purge(self, before: datetime) -> int:
        async with self._database.write_transaction() as tables:
            expired = tables.inbox.where(
                lambda row: row.done_at is not None and row.done_at < before
            )
            for row in expired:
                tables.inbox.remove(delivery_key(row.delivery))
            return len(expired)

    async def _requeue(self, predicate: Callable[[InboxRow], bool]) -> int:
        async with self._database.write_transaction() as tables:
            rows = tables.inbox.where(predicate)
            for row in rows:
                delivery = row.delivery.model_copy(update={"attempts": 0})
                requeued = replace(row, delivery=delivery, state="waiting", done_at=None)
                tables.inbox.put(delivery_key(delivery), replace(requeued, due_at=row.received_at))
            return len(rows)

    async def _update(self, delivery: Delivery, /, **changes: Any) -> None:
        async with self._database.write_transaction() as tables:
            row = tables.inbox.get(delivery_key(delivery))
            if row and row.state == "waiting":
                tables.inbox.put(delivery_key(delivery), replace(row, **changes))


def delivery_key(delivery: Delivery) -> tuple[str, UUID]:
    return delivery.handler, delivery.envelope.event_id


def _oldest_waiting_rows(tables: MessagingTables) -> list[InboxRow]:
    """Return the oldest waiting delivery of each event key."""
    oldest_by_key: dict[UUID, InboxRow] = {}
    for row in tables.inbox.where(lambda row: row.state == "waiting"):
        oldest_by_key.setdefault(row.delivery.envelope.key, row)
    return list(oldest_by_key.values())


def _stuck_delivery(row: InboxRow) -> StuckDelivery:
    return StuckDelivery(**_dead_letter(row).model_dump(), due_at=row.due_at, position=row.position)


def _with_claim(row: InboxRow, due_at: datetime) -> InboxRow:
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
