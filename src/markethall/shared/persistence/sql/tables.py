"""The tables that every context has in its own schema beside its own."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from markethall.shared.persistence.postgres import sql_literal

STATE_WAITING, STATE_DEAD = sql_literal("waiting"), sql_literal("dead")


# names of constraints and indexes are ours, so that a migration can find them again
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
}


def timestamp_column(name: str, **options: Any) -> "sa.Column[datetime]":
    options.setdefault("nullable", False)
    return sa.Column(name, sa.TIMESTAMP(timezone=True), **options)


def context_metadata(schema: str) -> sa.MetaData:
    """An empty schema with the tables that every context has: outbox, inbox, idempotency_record."""
    metadata = sa.MetaData(schema=schema, naming_convention=NAMING_CONVENTION)
    _add_outbox(metadata)
    _add_inbox(metadata)
    _add_idempotency_record(metadata)
    return metadata


def _add_outbox(metadata: sa.MetaData) -> None:
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


def _add_inbox(metadata: sa.MetaData) -> None:
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


def _add_idempotency_record(metadata: sa.MetaData) -> None:
    sa.Table(
        "idempotency_record",
        metadata,
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("request_hash", sa.Text, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        timestamp_column("lease_until"),
        sa.Column("response", sa.Text),
        timestamp_column("expires_at", index=True),
    )
