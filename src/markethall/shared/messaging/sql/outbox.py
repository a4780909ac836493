"""The outbox in Postgres, and the election of its leader."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.shared.kernel.clock import Clock, utc_now
from markethall.shared.messaging.backlog import Backlog
from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.messaging.inbox import Inbox
from markethall.shared.messaging.outbox import ClocksDiffer, InboxRoute, LeaderSession
from markethall.shared.messaging.sql.direct_relay import build_direct_relay, route_values
from markethall.shared.messaging.sql.inbox import SqlInbox
from markethall.shared.messaging.sql.tables import (
    backlog_statement,
    envelope_from_row,
    fetch_backlog,
)
from markethall.shared.persistence.database_clock import DatabaseClock
from markethall.shared.persistence.postgres import Connection, Postgres, Statement
from markethall.shared.persistence.postgres_errors import translate_connection_errors
from markethall.shared.persistence.sql import delete_bounded

log = structlog.get_logger("markethall.outbox")

_lock_key = sa.func.hashtextextended(bindparam("name", type_=sa.Text), 0)
_acquire_lock = sa.func.pg_try_advisory_lock(_lock_key, type_=sa.Boolean)
_release_lock = sa.func.pg_advisory_unlock(_lock_key, type_=sa.Boolean)
_TRY_LOCK: Final = Statement(sa.select(_acquire_lock))
# Tests whether the lock is free: takes it and releases it again. CASE guarantees the order of the
# two calls.
_LOCK_IS_FREE: Final = Statement(
    sa.select(
        sa.case((_acquire_lock, _release_lock), else_=sa.false()).label("is_free"),
        sa.func.clock_timestamp().label("now"),
    )
)
# Ends the connection of a leader that sends no heartbeats. pg_locks shows the 64-bit key of the
# lock as two 32-bit columns. The command `markethall relocate` takes the same lock, but under
# another application name, so that this statement does not end its connection.
_TERMINATE_HUNG_LEADER: Final = Statement(
    sa.text(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_locks"
        " JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
        " AND datname = current_database()"
        " AND (classid::bigint << 32) | objid::bigint = hashtextextended(:name, 0)"
        " AND application_name = current_setting('application_name')"
        " AND state_change < clock_timestamp() - make_interval(secs => :seconds)"
    ).bindparams(sa.bindparam("name", type_=sa.Text), sa.bindparam("seconds", type_=sa.Float))
)
_MAX_CLOCK_DIFFERENCE: Final = timedelta(seconds=5)
# A commit with NOTIFY holds a lock of the whole server. With synchronous_commit off, it does not
# wait for the disk, so the lock is held only for a moment.
_NOTIFY: Final = Statement(
    sa.select(
        sa.func.set_config("synchronous_commit", "off", sa.true()),
        sa.func.pg_notify(bindparam("channel", type_=sa.Text), ""),
    )
)
# longer than three intervals between heartbeats
LEADER_TIMEOUT_SECONDS: Final = 16.0


class OutboxStatements:
    """The statements on the outbox of one context."""

    def __init__(self, outbox: sa.Table) -> None:
        self.table = outbox
        self.schema = str(outbox.schema)
        self._direct_relays: dict[tuple[str, ...], Statement] = {}
        columns = outbox.c
        written = [c.name for c in columns if c.name not in {"seq", "published_at", "confirmed_at"}]
        limit = bindparam("limit", type_=sa.Integer)
        self.insert = Statement(
            sa.insert(outbox).values({name: bindparam(name) for name in written})
        )
        self.select_unrelayed = Statement(
            sa.select(outbox)
            .where(columns.published_at.is_(None))
            .order_by(columns.seq)
            .limit(limit)
        )
        self.heartbeat = Statement(
            sa.select(
                sa.func.clock_timestamp().label("now"),
                sa.exists().where(columns.published_at.is_(None)).label("has_unrelayed"),
            )
        )
        awaiting_confirmation = bindparam("awaiting_confirmation", type_=ARRAY(sa.Uuid))
        self.select_unpublished = Statement(
            sa.select(outbox)
            .where(
                columns.published_at.is_(None),
                columns.occurred_at < bindparam("occurred_before"),
                columns.seq > bindparam("after_seq", type_=sa.BigInteger),
            )
            .order_by(columns.seq)
            .limit(limit)
        )
        self.mark_relayed = Statement(
            sa.update(outbox)
            .where(columns.seq == sa.any_(bindparam("seqs", type_=ARRAY(sa.BigInteger))))
            .values(
                published_at=bindparam("now"),
                confirmed_at=sa.case(
                    (columns.event_id == sa.any_(awaiting_confirmation), sa.null()),
                    else_=bindparam("now"),
                ),
            )
        )
        self.select_unconfirmed = Statement(
            sa.select(outbox)
            .where(
                columns.published_at.is_not(None),
                columns.confirmed_at.is_(None),
                columns.seq > bindparam("after_seq", type_=sa.BigInteger),
            )
            .order_by(columns.seq)
            .limit(limit)
        )
        self.mark_confirmed = Statement(
            sa.update(outbox)
            .where(columns.event_id == sa.any_(bindparam("event_ids", type_=ARRAY(sa.Uuid))))
            .values(confirmed_at=bindparam("now"))
        )
        self.measure_backlog = backlog_statement(
            columns.published_at.is_(None), columns.occurred_at, columns.seq
        )
        expired = columns.confirmed_at < bindparam("before")
        self.purge = delete_bounded(outbox, [columns.seq], expired)

    def direct_relay(self, inboxes: Sequence[sa.Table]) -> Statement:
        """Return the statement that relays to these inboxes. It is built once."""
        key = tuple(inbox.fullname for inbox in inboxes)
        if key not in self._direct_relays:
            self._direct_relays[key] = build_direct_relay(self.table, inboxes)
        return self._direct_relays[key]


class SqlOutbox:
    """Elects the leader by a session-level advisory lock.

    A leader holds the lock as long as it is the leader. It uses a connection outside the pool, so
    that requests can use all connections of the pool. Postgres records when each connection was
    last used. If the connection of a leader was not used for LEADER_TIMEOUT_SECONDS, the leader is
    considered hung: the next candidate ends the connection, which releases the lock.
    """

    def __init__(
        self,
        postgres: Postgres,
        statements: OutboxStatements,
        *,
        system_clock: Clock = utc_now,
        leader_timeout_seconds: float = LEADER_TIMEOUT_SECONDS,
    ) -> None:
        self._postgres = postgres
        self._lock_name = f"markethall.relay.{statements.schema}"
        self._statements = statements
        self._system_clock = system_clock
        self._leader_timeout_seconds = leader_timeout_seconds

    def is_beside(self, inbox: Inbox) -> bool:
        return isinstance(inbox, SqlInbox) and inbox.is_in(self._postgres)

    async def notify_outbox(self) -> None:
        await self._notify(_outbox_channel(self._statements.schema))

    async def notify_inbox(self) -> None:
        await self._notify(_inbox_channel(self._statements.schema))

    async def _notify(self, channel: str) -> None:
        async with self._postgres.read_session() as connection:
            await connection.fetch_one(_NOTIFY, channel=channel)

    @asynccontextmanager
    async def acquire_leadership(self) -> AsyncIterator[LeaderSession | None]:
        if not await self._may_lead():
            yield None
            return
        async with self._postgres.dedicated_connection() as connection:
            elected = await connection.fetch_value(_TRY_LOCK, name=self._lock_name)
            session = SqlLeaderSession(
                connection, self._statements, self._postgres.clock, self._system_clock
            )
            yield session if elected else None

    async def _may_lead(self) -> bool:
        """Tell whether the lock is free, and end a leader that sends no heartbeats.

        This uses a pooled connection, so that only a likely leader opens another connection. Raises
        ClocksDiffer, Unavailable.
        """
        async with self._postgres.read_session() as connection:
            asked_at = self._postgres.clock()
            row = await connection.fetch_one(_LOCK_IS_FREE, name=self._lock_name)
            if row is None:  # only for the type checker: a SELECT without FROM returns one row
                return False
            self._postgres.clock.compare(asked_at, row["now"])
            _check_clock(row["now"], self._system_clock())
            if not row["is_free"] and await connection.fetch_value(
                _TERMINATE_HUNG_LEADER, name=self._lock_name, seconds=self._leader_timeout_seconds
            ):
                log.warning("worker.hung_leader_ended", context=self._statements.schema)
            return bool(row["is_free"])

    async def list_unpublished(
        self, occurred_before: datetime, after_seq: int | None, limit: int
    ) -> Sequence[EventEnvelope]:
        async with self._postgres.read_session() as connection:
            rows = await connection.fetch_all(
                self._statements.select_unpublished,
                occurred_before=occurred_before,
                after_seq=after_seq or 0,
                limit=limit,
            )
        return [envelope_from_row(row, seq=row["seq"]) for row in rows]

    async def measure_backlog(self) -> Backlog:
        async with self._postgres.read_session() as connection:
            return await fetch_backlog(connection, self._statements.measure_backlog)

    async def purge(self, before: datetime) -> int:
        async with self._postgres.read_session() as connection:
            return await connection.execute(self._statements.purge, before=before)


class SqlLeaderSession:
    """Uses the connection that holds the lock.

    The lock is lost only if the connection ends, and then every call fails.
    """

    def __init__(
        self,
        connection: Connection,
        statements: OutboxStatements,
        database_clock: DatabaseClock,
        system_clock: Clock,
    ) -> None:
        self._connection = connection
        self._database_clock = database_clock
        self._statements = statements
        self._system_clock = system_clock
        # a connection runs one statement at a time, and the heartbeat is a concurrent task
        self._lock = asyncio.Lock()

    async def heartbeat(self) -> bool:
        """Run a statement, which shows that this leader works. Raises ClocksDiffer, Unavailable."""
        async with self._exclusive():
            asked_at = self._database_clock()
            row = await self._connection.fetch_one(self._statements.heartbeat)
        if row is None:  # only for the type checker: a SELECT without FROM returns one row
            return False
        self._database_clock.compare(asked_at, row["now"])
        _check_clock(row["now"], self._system_clock())
        return bool(row["has_unrelayed"])

    async def listen(self, on_outbox: Callable[[], None], on_inbox: Callable[[], None]) -> None:
        schema = self._statements.schema
        async with self._exclusive():
            await self._connection.listen(_outbox_channel(schema), lambda _: on_outbox())
            await self._connection.listen(_inbox_channel(schema), lambda _: on_inbox())

    async def relay_to_inboxes(
        self, routes: Sequence[InboxRoute], now: datetime, limit: int
    ) -> Sequence[str]:
        tables = [route.inbox.table for route in routes if isinstance(route.inbox, SqlInbox)]
        async with self._exclusive():
            rows = await self._connection.fetch_all(
                self._statements.direct_relay(tables), **route_values(routes, now, limit)
            )
        return [row["type"] for row in rows]

    async def get_unrelayed(self, limit: int) -> Sequence[EventEnvelope]:
        async with self._exclusive():
            rows = await self._connection.fetch_all(self._statements.select_unrelayed, limit=limit)
        return [envelope_from_row(row, seq=row["seq"]) for row in rows]

    async def mark_relayed(
        self,
        envelopes: Sequence[EventEnvelope],
        now: datetime,
        awaiting_confirmation: Collection[UUID] = (),
    ) -> None:
        async with self._exclusive():
            await self._connection.execute(
                self._statements.mark_relayed,
                seqs=[envelope.seq for envelope in envelopes],
                now=now,
                awaiting_confirmation=list(awaiting_confirmation),
            )

    async def get_unconfirmed(self, after_seq: int, limit: int) -> Sequence[EventEnvelope]:
        async with self._exclusive():
            rows = await self._connection.fetch_all(
                self._statements.select_unconfirmed, after_seq=after_seq, limit=limit
            )
        return [envelope_from_row(row, seq=row["seq"]) for row in rows]

    async def mark_confirmed(self, event_ids: Sequence[UUID], now: datetime) -> None:
        async with self._exclusive():
            await self._connection.execute(
                self._statements.mark_confirmed, event_ids=list(event_ids), now=now
            )

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        async with self._lock:
            with translate_connection_errors():
                yield


def _outbox_channel(schema: str) -> str:
    return f"markethall_outbox_{schema}"


def _inbox_channel(schema: str) -> str:
    return f"markethall_inbox_{schema}"


def _check_clock(database_time: datetime, own_time: datetime) -> None:
    difference = own_time - database_time
    if abs(difference) > _MAX_CLOCK_DIFFERENCE:
        raise ClocksDiffer(seconds=round(difference.total_seconds(), 1))
