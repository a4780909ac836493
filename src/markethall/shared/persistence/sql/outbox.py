"""The outbox, and who may relay it."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam

from markethall.shared.messaging.events import EventEnvelope, LeaderSession
from markethall.shared.persistence.postgres import (
    Connection,
    Postgres,
    Statement,
    translate_connection_errors,
)
from markethall.shared.persistence.sql.statements import ContextStatements

if TYPE_CHECKING:
    from asyncpg.protocol import Record


_lock_key = sa.func.hashtextextended(bindparam("name", type_=sa.Text), 0)
_acquire_lock = sa.func.pg_try_advisory_lock(_lock_key, type_=sa.Boolean)
_release_lock = sa.func.pg_advisory_unlock(_lock_key, type_=sa.Boolean)
TRY_LOCK = Statement(sa.select(_acquire_lock))
# taken and given back at once; CASE, because it keeps the order
LOCK_IS_FREE = Statement(sa.select(sa.case((_acquire_lock, _release_lock), else_=sa.false())))


class SqlOutbox:
    """Elects the leader by an advisory lock that lives and dies with one connection.

    That connection is not one of the pool: leaders hold theirs for as long as they live, and must
    not wait for requests, nor requests for them.
    """

    def __init__(self, postgres: Postgres, statements: ContextStatements) -> None:
        self._postgres = postgres
        self._statements = statements

    @asynccontextmanager
    async def acquire_leadership(self) -> AsyncIterator[LeaderSession | None]:
        name = f"markethall.relay.{self._statements.schema}"
        if not await self._lock_is_free(name):
            yield None
            return
        async with self._postgres.dedicated_connection() as connection:
            elected = await connection.fetch_value(TRY_LOCK, name=name)
            yield SqlLeaderSession(connection, self._statements) if elected else None

    async def _lock_is_free(self, name: str) -> bool:
        """Ask on a connection of the pool: who only waits needs none of their own."""
        async with self._postgres.read_session() as connection:
            return bool(await connection.fetch_value(LOCK_IS_FREE, name=name))

    async def purge(self, before: datetime) -> int:
        async with self._postgres.read_session() as connection:
            return await connection.execute(self._statements.purge_outbox, before=before)


class SqlLeaderSession:
    """Works on the connection that holds the lock: who loses the lock cannot relay any more."""

    def __init__(self, connection: Connection, statements: ContextStatements) -> None:
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
        seqs = [envelope.seq for envelope in envelopes]
        with translate_connection_errors():
            await self._connection.execute(
                self._statements.mark_published,
                seqs=seqs,
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


def envelope_from_row(row: "Record", seq: int | None = None) -> EventEnvelope:
    fields = {name: row[name] for name in EventEnvelope.model_fields if name != "seq"}
    return EventEnvelope(**fields, seq=row["source_seq"] if seq is None else seq)
