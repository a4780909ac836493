"""What every context keeps in its own schema beside its own tables, and who reads and writes it."""

from markethall.shared.backend import Backend
from markethall.shared.clock import Clock
from markethall.shared.db import Postgres
from markethall.shared.sql.claims import SqlClaims
from markethall.shared.sql.inbox import SqlInbox
from markethall.shared.sql.outbox import SqlOutbox
from markethall.shared.sql.statements import PURGED_AT_ONCE, ContextStatements
from markethall.shared.sql.store import S_co, SqlDatabase, SqlStore, SqlStoreOf
from markethall.shared.sql.tables import NAMING, context_metadata, timestamp

__all__ = [
    "NAMING",
    "PURGED_AT_ONCE",
    "ContextStatements",
    "SqlClaims",
    "SqlDatabase",
    "SqlInbox",
    "SqlOutbox",
    "SqlStore",
    "context_metadata",
    "sql_backend",
    "timestamp",
]


def sql_backend(
    postgres: Postgres, statements: ContextStatements, store: SqlStoreOf[S_co], clock: Clock
) -> Backend[SqlDatabase[S_co]]:
    return Backend(
        database=SqlDatabase(postgres, statements, store, clock),
        outbox=SqlOutbox(postgres, statements),
        inbox=SqlInbox(postgres, statements, clock),
        claims=SqlClaims(postgres, statements),
    )
