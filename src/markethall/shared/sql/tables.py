"""The tables that every context has in its own schema beside its own."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from markethall.shared.db import constant

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
        timestamp("confirmed_at", nullable=True),
    )
    unpublished = outbox.c.published_at.is_(None)
    sa.Index("ix_outbox_unpublished", outbox.c.seq, postgresql_where=unpublished)
    unconfirmed = sa.and_(outbox.c.published_at.is_not(None), outbox.c.confirmed_at.is_(None))
    sa.Index("ix_outbox_unconfirmed", outbox.c.seq, postgresql_where=unconfirmed)
    sa.Index("ix_outbox_confirmed_at", outbox.c.confirmed_at)


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
