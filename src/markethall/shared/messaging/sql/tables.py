"""The tables outbox and inbox, which every context has in its own schema, and their backlog."""

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from markethall.shared.messaging.backlog import MAX_COUNT, Backlog
from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.persistence.postgres import Connection, Statement, sql_literal
from markethall.shared.persistence.sql import timestamp_column

if TYPE_CHECKING:
    from asyncpg.protocol import Record

STATE_WAITING: Final = sql_literal("waiting")
STATE_DEAD: Final = sql_literal("dead")


def add_outbox_table(metadata: sa.MetaData) -> sa.Table:
    outbox = sa.Table(
        "outbox",
        metadata,
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("event_id", sa.Uuid, nullable=False, unique=True),
        *_envelope_columns(),
        timestamp_column("published_at", nullable=True),
        timestamp_column("confirmed_at", nullable=True),
    )
    unpublished = outbox.c.published_at.is_(None)
    sa.Index("ix_outbox_unpublished", outbox.c.seq, postgresql_where=unpublished)
    unconfirmed = sa.and_(outbox.c.published_at.is_not(None), outbox.c.confirmed_at.is_(None))
    sa.Index("ix_outbox_unconfirmed", outbox.c.seq, postgresql_where=unconfirmed)
    sa.Index("ix_outbox_confirmed_at", outbox.c.confirmed_at)
    return outbox


def add_inbox_table(metadata: sa.MetaData) -> sa.Table:
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
        timestamp_column("received_at"),
        timestamp_column("due_at"),
        timestamp_column("done_at", nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'done', 'dead')", name="state"),
    )
    waiting = inbox.c.state == STATE_WAITING
    sa.Index("ix_inbox_waiting", inbox.c.position, postgresql_where=waiting)
    sa.Index("ix_inbox_waiting_key", inbox.c.key, inbox.c.position, postgresql_where=waiting)
    sa.Index("ix_inbox_done_at", inbox.c.done_at)
    return inbox


# the columns of an envelope in both tables, apart from the event id
ENVELOPE_COLUMNS: Final = (
    "type",
    "version",
    "key",
    "payload",
    "occurred_at",
    "request_id",
    "traceparent",
)


def _envelope_columns() -> "list[sa.Column[Any]]":
    return [
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("key", sa.Uuid, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        timestamp_column("occurred_at"),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("traceparent", sa.Text),
    ]


def envelope_from_row(row: "Record", seq: int) -> EventEnvelope:
    fields = {name: row[name] for name in EventEnvelope.model_fields if name != "seq"}
    return EventEnvelope(**fields, seq=seq)


def backlog_statement(
    is_waiting: sa.ColumnElement[bool],
    since: "sa.Column[Any]",
    position: "sa.Column[Any]",
    *,
    is_late: sa.ColumnElement[bool] | None = None,
) -> Statement:
    """Count the waiting rows, and read the column `since` of the row with the lowest position.

    If `is_late` is given, only rows that fulfil it are considered for `since`.
    """
    waiting = sa.select(sa.literal(1)).where(is_waiting).limit(MAX_COUNT).subquery()
    conditions = [is_waiting] if is_late is None else [is_waiting, is_late]
    oldest = sa.select(since).where(*conditions).order_by(position).limit(1)
    count = sa.select(sa.func.count()).select_from(waiting)
    return Statement(
        sa.select(
            count.scalar_subquery().label("count"), oldest.scalar_subquery().label("oldest_at")
        )
    )


async def fetch_backlog(connection: Connection, statement: Statement) -> Backlog:
    row = await connection.fetch_one(statement)
    if row is None:  # only for the type checker: a SELECT without FROM returns one row
        return Backlog(0, None)
    return Backlog(row["count"], row["oldest_at"])
