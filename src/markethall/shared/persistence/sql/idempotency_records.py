"""Claimed idempotency keys, outside the effect's transaction."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from markethall.shared.idempotency.records import IdempotencyRecord, StoredResponse
from markethall.shared.persistence.postgres import Postgres, Statement
from markethall.shared.persistence.sql.statements import ContextStatements

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlIdempotencyStore:
    def __init__(self, postgres: Postgres, statements: ContextStatements) -> None:
        self._postgres = postgres
        self._statements = statements

    async def claim(
        self, record: IdempotencyRecord, expires_at: datetime
    ) -> IdempotencyRecord | None:
        row = record.model_dump(exclude={"response"})
        async with self._postgres.read_session() as connection:
            while True:
                is_new = await connection.execute(
                    self._statements.claim_idempotency_record, **row, expires_at=expires_at
                )
                if is_new:
                    return None
                existing = await connection.fetch_one(
                    self._statements.get_idempotency_record, scope=record.scope
                )
                # None: purged between the two statements, so the key is free again
                if existing:
                    return _to_record(existing)

    async def take_over(self, existing: IdempotencyRecord, lease_until: datetime) -> bool:
        return bool(
            await self._run(
                self._statements.take_over_idempotency_record,
                scope=existing.scope,
                expected_lease_until=existing.lease_until,
                lease_until=lease_until,
            )
        )

    async def complete(self, scope: str, response: StoredResponse, expires_at: datetime) -> None:
        response_json = response.model_dump_json()
        await self._run(
            self._statements.complete_idempotency_record,
            scope=scope,
            response=response_json,
            expires_at=expires_at,
        )

    async def release(self, record: IdempotencyRecord, now: datetime) -> None:
        await self._run(
            self._statements.release_idempotency_record,
            scope=record.scope,
            expected_lease_until=record.lease_until,
            now=now,
        )

    async def purge(self, now: datetime) -> int:
        return await self._run(self._statements.purge_idempotency_records, now=now)

    async def _run(self, statement: Statement, **values: Any) -> int:
        async with self._postgres.read_session() as connection:
            return await connection.execute(statement, **values)


def _to_record(row: "Record") -> IdempotencyRecord:
    response = StoredResponse.model_validate_json(row["response"]) if row["response"] else None
    names = ("scope", "request_hash", "id", "lease_until")
    return IdempotencyRecord(**{name: row[name] for name in names}, response=response)
