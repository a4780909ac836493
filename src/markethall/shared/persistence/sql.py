"""Parts of the tables and statements of every context."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from markethall.shared.persistence.postgres import Statement

# Gives constraints and indexes predictable names, so that a later migration can refer to them.
NAMING_CONVENTION: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
}

# Limits a DELETE of expired rows, so that it never takes longer than the statement timeout.
MAX_PURGED_ROWS: Final = 2000


def timestamp_column(name: str, **options: Any) -> "sa.Column[datetime]":
    """Return a column of type timestamptz, NOT NULL by default."""
    options.setdefault("nullable", False)
    return sa.Column(name, sa.TIMESTAMP(timezone=True), **options)


def delete_bounded(
    table: sa.Table, key: "Sequence[sa.Column[Any]]", expired: sa.ColumnElement[bool]
) -> Statement:
    """Return a DELETE of at most MAX_PURGED_ROWS rows that match `expired`.

    `key` has the columns of the primary key.
    """
    bounded = sa.select(*key).where(expired).limit(sa.literal_column(str(MAX_PURGED_ROWS)))
    return Statement(sa.delete(table).where(sa.tuple_(*key).in_(bounded)))
