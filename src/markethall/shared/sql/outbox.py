"""The outbox, and who may relay it."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam

from markethall.shared.db import Postgres, Session, Statement, unavailable_when_away
from markethall.shared.events import Envelope, Lead
from markethall.shared.sql.statements import ContextStatements

if TYPE_CHECKING:
    from asyncpg.protocol import Record


_lock_key = sa.func.hashtextextended(bindparam("name", type_=sa.Text), 0)
_try_lock = sa.func.pg_try_advisory_lock(_lock_key, type_=sa.Boolean)
_unlock = sa.func.pg_advisory_unlock(_lock_key, type_=sa.Boolean)
TRY_LOCK = Statement(sa.select(_try_lock))
# taken and given back at once; CASE, because it keeps the order
LOCK_IS_FREE = Statement(sa.select(sa.case((_try_lock, _unlock), else_=sa.false())))


class SqlOutbox:
    """Elects the leader by an advisory lock that lives and dies with one connection.

    That connection is not one of the pool: leaders hold theirs for as long as they live, and must
    not wait for requests, nor requests for them.
    """

    def __init__(self, postgres: Postgres, statements: ContextStatements) -> None:
        self._postgres = postgres
        self._statements = statements

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[Lead | None]:
        name = f"markethall.relay.{self._statements.schema}"
        if not await self._is_vacant(name):
            yield None
            return
        async with self._postgres.apart() as session:
            elected = await session.value(TRY_LOCK, name=name)
            yield SqlLead(session, self._statements) if elected else None

    async def _is_vacant(self, name: str) -> bool:
        """Ask on a connection of the pool: who only waits needs none of their own."""
        async with self._postgres.reading() as session:
            return bool(await session.value(LOCK_IS_FREE, name=name))

    async def purge(self, before: datetime) -> int:
        async with self._postgres.reading() as session:
            return await session.run(self._statements.purge_outbox, before=before)


class SqlLead:
    """Works on the connection that holds the lock: who loses the lock cannot relay any more."""

    def __init__(self, session: Session, statements: ContextStatements) -> None:
        self._session = session
        self._statements = statements

    async def unpublished(self, limit: int) -> Sequence[Envelope]:
        with unavailable_when_away():
            rows = await self._session.all(self._statements.unpublished, limit=limit)
        return [envelope_of(row, seq=row["seq"]) for row in rows]

    async def mark_published(
        self, envelopes: Sequence[Envelope], now: datetime, awaited: Collection[UUID] = ()
    ) -> None:
        seqs = [envelope.seq for envelope in envelopes]
        with unavailable_when_away():
            await self._session.run(
                self._statements.mark_published, seqs=seqs, now=now, awaited=list(awaited)
            )

    async def unconfirmed(self, after: int, limit: int) -> Sequence[Envelope]:
        with unavailable_when_away():
            rows = await self._session.all(self._statements.unconfirmed, after=after, limit=limit)
        return [envelope_of(row, seq=row["seq"]) for row in rows]

    async def mark_confirmed(self, event_ids: Sequence[UUID], now: datetime) -> None:
        with unavailable_when_away():
            await self._session.run(
                self._statements.mark_confirmed, events=list(event_ids), now=now
            )


def envelope_of(row: "Record", seq: int | None = None) -> Envelope:
    fields = {name: row[name] for name in Envelope.model_fields if name != "seq"}
    return Envelope(**fields, seq=row["source_seq"] if seq is None else seq)
