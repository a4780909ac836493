"""The in-memory backend: tables with transactions, and the tables that every context has.

A supported backend, not a test double: one transaction at a time, a draft that is swapped in at
the end, and entities copied on their way in and out, so that nothing changes unsaved.
"""

from markethall.shared.backend import Backend
from markethall.shared.clock import Clock
from markethall.shared.memory.queues import MemoryClaims, MemoryInbox, MemoryOutbox
from markethall.shared.memory.store import MemoryDatabase, MemoryStore
from markethall.shared.memory.tables import CommonTables, S, StoreOf, T, Table

__all__ = [
    "CommonTables",
    "MemoryDatabase",
    "MemoryStore",
    "StoreOf",
    "Table",
    "memory_backend",
]


def memory_backend(
    tables: T, store: StoreOf[T, S], clock: Clock
) -> "Backend[MemoryDatabase[T, S]]":
    database = MemoryDatabase(tables, store, clock)
    return Backend(
        database=database,
        outbox=MemoryOutbox(database),
        inbox=MemoryInbox(database, clock),
        claims=MemoryClaims(database),
    )
