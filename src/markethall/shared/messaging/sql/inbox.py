from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.backlog import Backlog
from markethall.shared.messaging.events import Delivery, EventEnvelope
from markethall.shared.messaging.inbox import (
    RETRY_LATER_PREFIX,
    DeadLetter,
    StuckDelivery,
    StuckLimits,
)
from markethall.shared.messaging.sql.tables import (
    STATE_DEAD,
    STATE_WAITING,
    backlog_statement,
    envelope_from_row,
    fetch_backlog,
)
from markethall.shared.persistence.postgres import Postgres, Statement
from markethall.shared.persistence.sql import delete_bounded


class InboxStatements:
    """The statements on the inbox of one context."""

    def __init__(self, inbox: sa.Table) -> None:
        self.table = inbox
        columns = inbox.c
        written = [c.name for c in columns if c.name not in {"position", "done_at"}]
        limit = bindparam("limit", type_=sa.Integer)
        self.insert = Statement(
            insert(inbox)
            .values({name: bindparam(name) for name in written})
            .on_conflict_do_nothing()
        )
        self.claim = _claim_statement(inbox)
        is_waiting = sa.and_(
            columns.handler == bindparam("handler"),
            columns.event_id == bindparam("event_id"),
            columns.state == STATE_WAITING,
        )
        self.mark_processed = Statement(
            sa.update(inbox).where(is_waiting).values(state="done", done_at=bindparam("now"))
        )
        self.retry_later = Statement(
            sa.update(inbox)
            .where(is_waiting)
            .values(
                due_at=bindparam("due_at"),
                error=bindparam("error"),
                attempts=columns.attempts - bindparam("uncounted_attempts", type_=sa.Integer),
            )
        )
        self.dead_letter = Statement(
            sa.update(inbox).where(is_waiting).values(state="dead", error=bindparam("error"))
        )
        self.select_dead_letters = Statement(
            sa.select(inbox)
            .where(columns.state == STATE_DEAD)
            .order_by(columns.position)
            .limit(limit)
        )
        self.count_dead_letters = Statement(
            sa.select(sa.func.count()).where(columns.state == STATE_DEAD)
        )
        is_stuck = _is_stuck(inbox)
        self.select_stuck = Statement(
            sa.select(inbox)
            .where(
                is_stuck,
                columns.position > bindparam("after_position", type_=sa.BigInteger),
                columns.position == _first_position_of_key(inbox),
            )
            .order_by(columns.position)
            .limit(limit)
        )
        self.make_due = Statement(
            sa.update(inbox)
            .where(is_stuck, columns.due_at > bindparam("leased_until"))
            .values(due_at=bindparam("now"))
        )
        requeue = sa.update(inbox).values(
            state="waiting", attempts=0, due_at=columns.received_at, done_at=None
        )
        event_id = bindparam("event_id", type_=sa.Uuid)
        self.requeue_dead_letters = Statement(
            requeue.where(
                columns.state == STATE_DEAD,
                sa.or_(event_id.is_(None), columns.event_id == event_id),
            )
        )
        self.replay = Statement(
            requeue.where(columns.event_id == event_id, columns.state != STATE_WAITING)
        )
        self.measure_backlog = _backlog_statement(inbox)
        self.purge = delete_bounded(
            inbox, [columns.handler, columns.event_id], columns.done_at < bindparam("before")
        )


def _first_position_of_key(inbox: sa.Table) -> "sa.ScalarSelect[Any]":
    """Return the position of the oldest waiting delivery of the same event key.

    Uses min(position), because the anti-join of a NOT EXISTS takes quadratic time for many waiting
    deliveries of one key.
    """
    earlier = inbox.alias("earlier")
    return (
        sa.select(sa.func.min(earlier.c.position))
        .where(earlier.c.key == inbox.c.key, earlier.c.state == STATE_WAITING)
        .scalar_subquery()
    )


def _is_stuck(inbox: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition of `StuckLimits.include`."""
    columns = inbox.c
    is_failing = sa.and_(columns.error != "", sa.not_(_waits_on_purpose(inbox)))
    return sa.and_(
        columns.state == STATE_WAITING,
        sa.or_(
            columns.due_at < bindparam("due_before"),
            columns.due_at > bindparam("due_after"),
            sa.and_(is_failing, columns.received_at < bindparam("failing_since")),
        ),
    )


def _waits_on_purpose(inbox: sa.Table) -> sa.ColumnElement[bool]:
    return inbox.c.error.startswith(RETRY_LATER_PREFIX, autoescape=True)


def _backlog_statement(inbox: sa.Table) -> Statement:
    columns = inbox.c
    is_late = sa.and_(
        sa.not_(_waits_on_purpose(inbox)), columns.position == _first_position_of_key(inbox)
    )
    is_waiting = columns.state == STATE_WAITING
    return backlog_statement(is_waiting, columns.received_at, columns.position, is_late=is_late)


def _claim_statement(inbox: sa.Table) -> Statement:
    columns = inbox.c
    due_deliveries = (
        sa.select(columns.handler, columns.event_id)
        .where(
            columns.state == STATE_WAITING,
            columns.due_at <= bindparam("now"),
            columns.position == _first_position_of_key(inbox),
        )
        .order_by(columns.position)
        .limit(bindparam("limit", type_=sa.Integer))
        .with_for_update(skip_locked=True)
        .cte("due_deliveries")
    )
    return Statement(
        sa.update(inbox)
        .where(
            columns.handler == due_deliveries.c.handler,
            columns.event_id == due_deliveries.c.event_id,
        )
        .values(attempts=columns.attempts + 1, due_at=bindparam("lease_until"))
        .returning(inbox, _more_are_due(inbox, due_deliveries).label("more_are_due"))
    )


def _more_are_due(inbox: sa.Table, claimed: sa.CTE) -> "sa.ColumnElement[bool]":
    """Compare the number of due deliveries, counted up to one more than the limit."""
    due = inbox.alias("due")
    some_due = (
        sa.select(due.c.position)
        .where(due.c.state == STATE_WAITING, due.c.due_at <= bindparam("now"))
        .limit(bindparam("limit", type_=sa.Integer) + sa.literal_column("1", sa.Integer))
        .subquery("some_due")
    )
    count = sa.func.count()
    due_count = sa.select(count).select_from(some_due).scalar_subquery()
    return due_count > sa.select(count).select_from(claimed).scalar_subquery()


class SqlInbox:
    def __init__(self, postgres: Postgres, statements: InboxStatements, clock: Clock) -> None:
        self._postgres = postgres
        self._statements = statements
        self._clock = clock

    @property
    def table(self) -> sa.Table:
        return self._statements.table

    def is_in(self, postgres: Postgres) -> bool:
        """Tell whether this inbox uses the same database and role."""
        return self._postgres is postgres

    async def enqueue(self, handlers: Sequence[str], envelopes: Sequence[EventEnvelope]) -> None:
        now = self._clock()
        rows = [
            _inbox_row(handler, envelope, now) for envelope in envelopes for handler in handlers
        ]
        async with self._postgres.read_session() as connection:
            await connection.execute_many(self._statements.insert, rows)

    async def enqueue_dead_letter(self, handler: str, envelope: EventEnvelope, error: str) -> None:
        row = _inbox_row(handler, envelope, self._clock()) | {"state": "dead", "error": error}
        await self._execute(self._statements.insert, **row)

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        async with self._postgres.read_session() as connection:
            rows = await connection.fetch_all(
                self._statements.claim, now=now, lease_until=now + lease, limit=limit
            )
        return [
            Delivery(
                handler=row["handler"],
                attempts=row["attempts"],
                more_are_due=row["more_are_due"],
                envelope=envelope_from_row(row, seq=row["source_seq"]),
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

    async def count_dead_letters(self) -> int:
        async with self._postgres.read_session() as connection:
            return int(await connection.fetch_value(self._statements.count_dead_letters))

    async def list_stuck(
        self, limits: StuckLimits, after_position: int | None, limit: int
    ) -> Sequence[StuckDelivery]:
        async with self._postgres.read_session() as connection:
            rows = await connection.fetch_all(
                self._statements.select_stuck,
                **asdict(limits),
                after_position=after_position or 0,
                limit=limit,
            )
        return [
            StuckDelivery(**{name: row[name] for name in StuckDelivery.model_fields})
            for row in rows
        ]

    async def make_due(self, limits: StuckLimits, now: datetime, lease: timedelta) -> int:
        return await self._execute(
            self._statements.make_due, **asdict(limits), now=now, leased_until=now + lease
        )

    async def requeue_dead_letters(self, event_id: UUID | None = None) -> int:
        return await self._execute(self._statements.requeue_dead_letters, event_id=event_id)

    async def replay(self, event_id: UUID) -> int:
        return await self._execute(self._statements.replay, event_id=event_id)

    async def measure_backlog(self) -> Backlog:
        async with self._postgres.read_session() as connection:
            return await fetch_backlog(connection, self._statements.measure_backlog)

    async def purge(self, before: datetime) -> int:
        return await self._execute(self._statements.purge, before=before)

    async def _execute(self, statement: Statement, **values: Any) -> int:
        async with self._postgres.read_session() as connection:
            return await connection.execute(statement, **values)


def delivery_binds(delivery: Delivery) -> dict[str, Any]:
    return {"handler": delivery.handler, "event_id": delivery.envelope.event_id}


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
