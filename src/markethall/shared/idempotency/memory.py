from dataclasses import dataclass, replace
from datetime import datetime

from markethall.shared.idempotency.records import IdempotencyRecord, StoredResponse
from markethall.shared.persistence.memory import Table, TableSet, TransactionalTables


@dataclass(frozen=True)
class IdempotencyRow:
    record: IdempotencyRecord
    expires_at: datetime


class IdempotencyTables(TableSet):
    def __init__(self) -> None:
        super().__init__()
        self.idempotency_records: Table[str, IdempotencyRow] = Table()


class MemoryIdempotencyStore:
    def __init__(self, database: TransactionalTables[IdempotencyTables]) -> None:
        self._database = database

    async def claim(
        self, record: IdempotencyRecord, expires_at: datetime
    ) -> IdempotencyRecord | None:
        async with self._database.write_transaction() as tables:
            existing = tables.idempotency_records.get(record.scope)
            if existing is None:
                row = IdempotencyRow(record, expires_at)
                tables.idempotency_records.put(record.scope, row)
            return existing.record if existing else None

    async def take_over(self, existing: IdempotencyRecord, lease_until: datetime) -> bool:
        async with self._database.write_transaction() as tables:
            row = tables.idempotency_records.get(existing.scope)
            if row is None or row.record != existing:
                return False
            tables.idempotency_records.put(existing.scope, _with_lease(row, lease_until))
            return True

    async def complete(self, scope: str, response: StoredResponse, expires_at: datetime) -> None:
        async with self._database.write_transaction() as tables:
            complete_idempotency_record(tables, scope, response, expires_at)

    async def release(self, record: IdempotencyRecord, now: datetime) -> None:
        async with self._database.write_transaction() as tables:
            row = tables.idempotency_records.get(record.scope)
            if row and row.record == record:
                tables.idempotency_records.put(record.scope, _with_lease(row, now))

    async def purge(self, now: datetime) -> int:
        async with self._database.write_transaction() as tables:
            expired = tables.idempotency_records.where(lambda row: row.expires_at < now)
            for row in expired:
                tables.idempotency_records.remove(row.record.scope)
            return len(expired)


def complete_idempotency_record(
    tables: IdempotencyTables, scope: str, response: StoredResponse, expires_at: datetime
) -> bool:
    """Store the response in the current transaction. Returns False if one is stored already."""
    row = tables.idempotency_records.get(scope)
    if row is None or row.record.response is not None:
        return False
    record = row.record.model_copy(update={"response": response})
    tables.idempotency_records.put(scope, IdempotencyRow(record, expires_at))
    return True


def _with_lease(row: IdempotencyRow, until: datetime) -> IdempotencyRow:
    return replace(row, record=row.record.model_copy(update={"lease_until": until}))
