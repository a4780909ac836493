"""The outbox in Postgres, and the election of its leader."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.messaging.outbox import LeaderSession
from markethall.shared.persistence.postgres import Connection, Postgres, Statement
from markethall.shared.persistence.postgres_errors import translate_connection_errors
from markethall.shared.persistence.sql import delete_bounded

if TYPE_CHECKING:
    from asyncpg.protocol import Record


_lock_key = sa.func.hashtextextended(bindparam("name", type_=sa.Text), 0)
_acquire_lock = sa.func.pg_try_advisory_lock(_lock_key, type_=sa.Boolean)
_release_lock = sa.func.pg_advisory_unlock(_lock_key, type_=sa.Boolean)
_TRY_LOCK: Final = Statement(sa.select(_acquire_lock))
# tries the lock and unlocks it again; CASE guarantees the order of the two calls
_LOCK_IS_FREE: Final = Statement(
    sa.select(sa.case((_acquire_lock, _release_lock), else_=sa.false()))
)


class OutboxStatements:
    """The statements on the outbox of one context."""

    def __init__(self, outbox: sa.Table) -> None:
        self.schema = str(outbox.schema)
        columns = outbox.c
        written = [c.name for c in columns if c.name not in {"seq", "published_at", "confirmed_at"}]
        limit = bindparam("limit", type_=sa.Integer)
        self.insert = Statement(
            sa.insert(outbox).values({name: bindparam(name) for name in written})
        )
        self.select_unpublished = Statement(
            sa.select(outbox)
            .where(columns.published_at.is_(None))
            .order_by(columns.seq)
            .limit(limit)
        )
        awaiting_confirmation = bindparam("awaiting_confirmation", type_=ARRAY(sa.Uuid))
        self.mark_published = Statement(
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
        expired = columns.confirmed_at < bindparam("before")
        self.purge = delete_bounded(outbox, [columns.seq], expired)


class SqlOutbox:
    """Elects the leader by a session-level advisory lock.

    A leader holds the lock on a connection outside the pool, because it keeps the connection for a
    long time. A pooled connection would be missing for requests.
    """

    def __init__(self, postgres: Postgres, statements: OutboxStatements) -> None:
        self._postgres = postgres
        self._lock_name = f"markethall.relay.{statements.schema}"
        self._statements = statements

    @asynccontextmanager
    async def acquire_leadership(self) -> AsyncIterator[LeaderSession | None]:
        if not await self._lock_is_free():
            yield None
            return
        async with self._postgres.dedicated_connection() as connection:
            elected = await connection.fetch_value(_TRY_LOCK, name=self._lock_name)
            yield SqlLeaderSession(connection, self._statements) if elected else None

    async def _lock_is_free(self) -> bool:
        """Check the lock on a pooled connection, so that only a likely leader opens its own."""
        async with self._postgres.read_session() as connection:
            return bool(await connection.fetch_value(_LOCK_IS_FREE, name=self._lock_name))

    async def purge(self, before: datetime) -> int:
        async with self._postgres.read_session() as connection:
            return await connection.execute(self._statements.purge, before=before)


class SqlLeaderSession:
    """Uses the connection that holds the lock, so every call fails after the lock is lost."""

    def __init__(self, connection: Connection, statements: OutboxStatements) -> None:
        self._connection = connection
        self._statements = statements

    async def get_unpublished(self, limit: int) -> Sequence[EventEnvelope]:
        with translate_connection_errors():
            rows = await self._connection.fetch_all(
                self._statements.select_unpublished, limit=limit
            )
        return [envelope_from_row(row, seq=row["seq"]) for row in rows]

    async def mark_published(
        self,
        envelopes: Sequence[EventEnvelope],
        now: datetime,
        awaiting_confirmation: Collection[UUID] = (),
    ) -> None:
        with translate_connection_errors():
            await self._connection.execute(
                self._statements.mark_published,
                seqs=[envelope.seq for envelope in envelopes],
                now=now,
                awaiting_confirmation=list(awaiting_confirmation),
            )

    async def get_unconfirmed(self, after_seq: int, limit: int) -> Sequence[EventEnvelope]:
        with translate_connection_errors():
            rows = await self._connection.fetch_all(
                self._statements.select_unconfirmed, after_seq=after_seq, limit=limit
            )
        return [envelope_from_row(row, seq=row["seq"]) for row in rows]

    async def mark_confirmed(self, event_ids: Sequence[UUID], now: datetime) -> None:
        with translate_connection_errors():
            await self._connection.execute(
                self._statements.mark_confirmed, event_ids=list(event_ids), now=now
            )


def envelope_from_row(row: "Record", seq: int) -> EventEnvelope:
    fields = {name: row[name] for name in EventEnvelope.model_fields if name != "seq"}
    return EventEnvelope(**fields, seq=seq)
