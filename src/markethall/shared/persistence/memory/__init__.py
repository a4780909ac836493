"""The in-memory backend: tables with transactions, and the tables that every context has.

A supported backend, not a test double: one transaction at a time, a draft that is swapped in at
the end, and entities copied on their way in and out, so that nothing changes unsaved.
"""

from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.context_persistence import ContextPersistence
from markethall.shared.persistence.memory.queues import (
    MemoryIdempotencyStore,
    MemoryInbox,
    MemoryOutbox,
)
from markethall.shared.persistence.memory.store import MemoryDatabase, MemoryStore
from markethall.shared.persistence.memory.tables import (
    ContextTables,
    MemoryStoreFactory,
    S,
    T,
    Table,
)

__all__ = [
    "ContextTables",
    "MemoryDatabase",
    "MemoryStore",
    "MemoryStoreFactory",
    "Table",
    "build_memory_persistence",
]


def build_memory_persistence(
    tables: T, store_factory: MemoryStoreFactory[T, S], clock: Clock
) -> "ContextPersistence[MemoryDatabase[T, S]]":
    database = MemoryDatabase(tables, store_factory, clock)
    return ContextPersistence(
        database=database,
        outbox=MemoryOutbox(database),
        inbox=MemoryInbox(database, clock),
        idempotency_store=MemoryIdempotencyStore(database),
    )
