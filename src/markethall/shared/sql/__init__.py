"""What every context keeps in its own schema beside its own tables, and who reads and writes it."""

from markethall.shared.backend import ContextPersistence
from markethall.shared.clock import Clock
from markethall.shared.db import Postgres
from markethall.shared.sql.claims import SqlIdempotencyStore
from markethall.shared.sql.inbox import SqlInbox
from markethall.shared.sql.outbox import SqlOutbox
from markethall.shared.sql.statements import MAX_PURGED_ROWS, ContextStatements
from markethall.shared.sql.store import S_co, SqlDatabase, SqlStore, SqlStoreFactory
from markethall.shared.sql.tables import NAMING_CONVENTION, context_metadata, timestamp_column

__all__ = [
    "NAMING_CONVENTION",
    "MAX_PURGED_ROWS",
    "ContextStatements",
    "SqlIdempotencyStore",
    "SqlDatabase",
    "SqlInbox",
    "SqlOutbox",
    "SqlStore",
    "context_metadata",
    "build_sql_persistence",
    "timestamp_column",
]


def build_sql_persistence(
    postgres: Postgres,
    statements: ContextStatements,
    store_factory: SqlStoreFactory[S_co],
    clock: Clock,
) -> ContextPersistence[SqlDatabase[S_co]]:
    return ContextPersistence(
        database=SqlDatabase(postgres, statements, store_factory, clock),
        outbox=SqlOutbox(postgres, statements),
        inbox=SqlInbox(postgres, statements, clock),
        idempotency_store=SqlIdempotencyStore(postgres, statements),
    )
