"""What every context keeps in its own schema beside its own tables, and who reads and writes it."""

from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.context_persistence import ContextPersistence
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.persistence.sql.idempotency_records import SqlIdempotencyStore
from markethall.shared.persistence.sql.inbox import SqlInbox
from markethall.shared.persistence.sql.outbox import SqlOutbox
from markethall.shared.persistence.sql.statements import MAX_PURGED_ROWS, ContextStatements
from markethall.shared.persistence.sql.store import S_co, SqlDatabase, SqlStore, SqlStoreFactory
from markethall.shared.persistence.sql.tables import (
    NAMING_CONVENTION,
    context_metadata,
    timestamp_column,
)

__all__ = [
    "MAX_PURGED_ROWS",
    "NAMING_CONVENTION",
    "ContextStatements",
    "SqlDatabase",
    "SqlIdempotencyStore",
    "SqlInbox",
    "SqlOutbox",
    "SqlStore",
    "build_sql_persistence",
    "context_metadata",
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
