"""What every context keeps in its own schema beside its own tables, and who reads and writes it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.shared.backend import Backend
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.db import Postgres, Session, Statement, constant, unavailable_when_away
from markethall.shared.events import DeadLetter, Delivery, Envelope, Event, Lead, sealed
from markethall.shared.idempotency import Answer, Attempt, Claim, LeaseLost

if TYPE_CHECKING:
    from asyncpg.protocol import Record

WAITING, DEAD = constant("waiting"), constant("dead")

# names of constraints and indexes are ours, so that a migration can find them again
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
}


def timestamp(name: str, **options: Any) -> "sa.Column[datetime]":
    options.setdefault("nullable", False)
    return sa.Column(name, sa.TIMESTAMP(timezone=True), **options)


def context_metadata(schema: str) -> sa.MetaData:
    """An empty schema with the tables that every context has: outbox, inbox, idempotency_key."""
    metadata = sa.MetaData(schema=schema, naming_convention=NAMING)
    _outbox(metadata)
    _inbox(metadata)
    _idempotency_key(metadata)
    return metadata


def _outbox(metadata: sa.MetaData) -> None:
    outbox = sa.Table(
        "outbox",
        metadata,
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("event_id", sa.Uuid, nullable=False, unique=True),
        *_envelope_columns(),
        timestamp("published_at", nullable=True),
    )
    unpublished = outbox.c.published_at.is_(None)
    sa.Index("ix_outbox_unpublished", outbox.c.seq, postgresql_where=unpublished)
    sa.Index("ix_outbox_published_at", outbox.c.published_at)


def _inbox(metadata: sa.MetaData) -> None:
    inbox = sa.Table(
        "inbox",
        metadata,
        sa.Column("handler", sa.Text, primary_key=True),
        sa.Column("event_id", sa.Uuid, primary_key=True),
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("source_seq", sa.BigInteger, nullable=False),
        *_envelope_columns(),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        timestamp("received_at"),
        timestamp("due_at"),
        timestamp("done_at", nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'done', 'dead')", name="state"),
    )
    waiting = inbox.c.state == WAITING
    sa.Index("ix_inbox_waiting", inbox.c.position, postgresql_where=waiting)
    sa.Index("ix_inbox_waiting_key", inbox.c.key, inbox.c.position, postgresql_where=waiting)
    sa.Index("ix_inbox_done_at", inbox.c.done_at)


def _envelope_columns() -> "list[sa.Column[Any]]":
    return [
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("key", sa.Uuid, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        timestamp("occurred_at"),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("traceparent", sa.Text),
    ]


def _idempotency_key(metadata: sa.MetaData) -> None:
    sa.Table(
        "idempotency_key",
        metadata,
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("request_hash", sa.Text, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        timestamp("lease_until"),
        sa.Column("answer", sa.Text),
        timestamp("expires_at", index=True),
    )


class ContextStatements:
    """The statements on the common tables of one context, built once per context."""

    def __init__(self, metadata: sa.MetaData) -> None:
        tables = {table.name: table for table in metadata.tables.values()}
        self.schema = str(metadata.schema)
        self._outbox_statements(tables["outbox"])
        self._inbox_statements(tables["inbox"])
        self._key_statements(tables["idempotency_key"])

    def _outbox_statements(self, t: sa.Table) -> None:
        columns = [c for c in t.c if c.name not in {"seq", "published_at"}]
        self.publish = Statement(sa.insert(t).values({c.name: bindparam(c.name) for c in columns}))
        self.unpublished = Statement(
            sa.select(t)
            .where(t.c.published_at.is_(None))
            .order_by(t.c.seq)
            .limit(bindparam("limit", type_=sa.Integer))
        )
        self.mark_published = Statement(
            sa.update(t)
            .where(t.c.seq == sa.any_(bindparam("seqs", type_=ARRAY(sa.BigInteger))))
            .values(published_at=bindparam("now"))
        )
        old = t.c.published_at < bindparam("before")
        self.purge_outbox = _delete_some(t, [t.c.seq], old)

    def _inbox_statements(self, t: sa.Table) -> None:
        columns = [c for c in t.c if c.name not in {"position", "done_at"}]
        self.accept = Statement(
            insert(t).values({c.name: bindparam(c.name) for c in columns}).on_conflict_do_nothing()
        )
        earlier = t.alias("earlier")
        # not EXISTS: as an anti-join it is quadratic in the backlog of one key
        first_of_key = (
            sa.select(sa.func.min(earlier.c.position))
            .where(earlier.c.key == t.c.key, earlier.c.state == WAITING)
            .scalar_subquery()
        )
        heads = (
            sa.select(t.c.handler, t.c.event_id)
            .where(
                t.c.state == WAITING,
                t.c.due_at <= bindparam("now"),
                t.c.position == first_of_key,
            )
            .order_by(t.c.position)
            .limit(bindparam("limit", type_=sa.Integer))
            .with_for_update(skip_locked=True)
            .cte("heads")
        )
        self.claim = Statement(
            sa.update(t)
            .where(t.c.handler == heads.c.handler, t.c.event_id == heads.c.event_id)
            .values(attempts=t.c.attempts + 1, due_at=bindparam("lease_until"))
            .returning(t)
        )
        one = sa.and_(t.c.handler == bindparam("of"), t.c.event_id == bindparam("event"))
        self.handled = Statement(
            sa.update(t)
            .where(one, t.c.state == WAITING)
            .values(state="done", done_at=bindparam("now"))
        )
        self.postpone = Statement(
            sa.update(t)
            .where(one, t.c.state == WAITING)
            .values(
                due_at=bindparam("due"),
                error=bindparam("why"),
                attempts=t.c.attempts - bindparam("excused", type_=sa.Integer),
            )
        )
        self.bury = Statement(
            sa.update(t)
            .where(one, t.c.state == WAITING)
            .values(state="dead", error=bindparam("why"))
        )
        self.dead = Statement(
            sa.select(t)
            .where(t.c.state == DEAD)
            .order_by(t.c.position)
            .limit(bindparam("limit", type_=sa.Integer))
        )
        again = {"state": "waiting", "attempts": 0, "due_at": t.c.received_at, "done_at": None}
        wanted = bindparam("event", type_=sa.Uuid)
        self.retry_dead = Statement(
            sa.update(t)
            .where(t.c.state == DEAD, sa.or_(wanted.is_(None), t.c.event_id == wanted))
            .values(again)
        )
        self.replay = Statement(
            sa.update(t)
            .where(t.c.event_id == bindparam("event"), t.c.state != WAITING)
            .values(again)
        )
        old = t.c.done_at < bindparam("before")
        self.purge_inbox = _delete_some(t, [t.c.handler, t.c.event_id], old)

    def _key_statements(self, t: sa.Table) -> None:
        unfinished = sa.and_(t.c.scope == bindparam("of"), t.c.answer.is_(None))
        new = insert(t).values({c.name: bindparam(c.name) for c in t.c if c.name != "answer"})
        self.claim_key = Statement(new.on_conflict_do_nothing())
        self.standing_key = Statement(sa.select(t).where(t.c.scope == bindparam("of")))
        self.take_over_key = Statement(
            sa.update(t)
            .where(unfinished, t.c.lease_until == bindparam("was"))
            .values(lease_until=bindparam("until"))
        )
        self.finish_key = Statement(
            sa.update(t)
            .where(unfinished)
            .values(answer=bindparam("text"), expires_at=bindparam("expires"))
        )
        self.hand_back_key = Statement(
            sa.update(t)
            .where(unfinished, t.c.lease_until == bindparam("was"))
            .values(lease_until=bindparam("now"))
        )
        self.purge_keys = _delete_some(t, [t.c.scope], t.c.expires_at < bindparam("now"))


# so few that a statement ends in its time, however much there is to forget
PURGED_AT_ONCE = 2000


def _delete_some(
    t: sa.Table, key: "Sequence[sa.Column[Any]]", old: sa.ColumnElement[bool]
) -> Statement:
    some = sa.select(*key).where(old).limit(sa.literal_column(str(PURGED_AT_ONCE)))
    return Statement(sa.delete(t).where(sa.tuple_(*key).in_(some)))


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
        return bool(await self._session.run(self._statements.handled, **_of(delivery), now=now))

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


def sql_backend(
    postgres: Postgres, statements: ContextStatements, store: SqlStoreOf[S_co], clock: Clock
) -> Backend[SqlDatabase[S_co]]:
    return Backend(
        database=SqlDatabase(postgres, statements, store, clock),
        outbox=SqlOutbox(postgres, statements),
        inbox=SqlInbox(postgres, statements, clock),
        claims=SqlClaims(postgres, statements),
    )


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
        return [_envelope(row, seq=row["seq"]) for row in rows]

    async def mark_published(self, envelopes: Sequence[Envelope], now: datetime) -> None:
        seqs = [envelope.seq for envelope in envelopes]
        with unavailable_when_away():
            await self._session.run(self._statements.mark_published, seqs=seqs, now=now)


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

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        async with self._postgres.reading() as session:
            rows = await session.all(
                self._statements.claim, now=now, lease_until=now + lease, limit=limit
            )
        return [
            Delivery(handler=row["handler"], attempts=row["attempts"], envelope=_envelope(row))
            for row in sorted(rows, key=lambda row: row["position"])
        ]

    async def postpone(
        self, delivery: Delivery, error: str, due_at: datetime, *, excused: bool = False
    ) -> None:
        await self._run(
            self._statements.postpone,
            **_of(delivery),
            why=error,
            due=due_at,
            excused=int(excused),
        )

    async def bury(self, delivery: Delivery, error: str) -> None:
        await self._run(self._statements.bury, **_of(delivery), why=error)

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


class SqlClaims:
    def __init__(self, postgres: Postgres, statements: ContextStatements) -> None:
        self._postgres = postgres
        self._statements = statements

    async def claim(self, claim: Claim, expires_at: datetime) -> Claim | None:
        row = claim.model_dump(exclude={"answer"})
        async with self._postgres.reading() as session:
            while True:
                new = await session.run(self._statements.claim_key, **row, expires_at=expires_at)
                if new:
                    return None
                standing = await session.one(self._statements.standing_key, of=claim.scope)
                # None: purged between the two statements, so the key is free again
                if standing:
                    return _claim(standing)

    async def take_over(self, standing: Claim, lease_until: datetime) -> bool:
        return bool(
            await self._run(
                self._statements.take_over_key,
                of=standing.scope,
                was=standing.lease_until,
                until=lease_until,
            )
        )

    async def finish(self, scope: str, answer: Answer, expires_at: datetime) -> None:
        text = answer.model_dump_json()
        await self._run(self._statements.finish_key, of=scope, text=text, expires=expires_at)

    async def hand_back(self, claim: Claim, now: datetime) -> None:
        await self._run(
            self._statements.hand_back_key, of=claim.scope, was=claim.lease_until, now=now
        )

    async def purge(self, now: datetime) -> int:
        return await self._run(self._statements.purge_keys, now=now)

    async def _run(self, statement: Statement, **values: Any) -> int:
        async with self._postgres.reading() as session:
            return await session.run(statement, **values)


_lock_key = sa.func.hashtextextended(bindparam("name", type_=sa.Text), 0)
_try_lock = sa.func.pg_try_advisory_lock(_lock_key, type_=sa.Boolean)
_unlock = sa.func.pg_advisory_unlock(_lock_key, type_=sa.Boolean)
TRY_LOCK = Statement(sa.select(_try_lock))
# taken and given back at once; CASE, because it keeps the order
LOCK_IS_FREE = Statement(sa.select(sa.case((_try_lock, _unlock), else_=sa.false())))


def _of(delivery: Delivery) -> dict[str, Any]:
    return {"of": delivery.handler, "event": delivery.envelope.event_id}


def _envelope(row: "Record", seq: int | None = None) -> Envelope:
    fields = {name: row[name] for name in Envelope.model_fields if name != "seq"}
    return Envelope(**fields, seq=row["source_seq"] if seq is None else seq)


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


def _claim(row: "Record") -> Claim:
    answer = Answer.model_validate_json(row["answer"]) if row["answer"] else None
    names = ("scope", "request_hash", "id", "lease_until")
    return Claim(**{name: row[name] for name in names}, answer=answer)
