from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.shared.idempotency.records import IdempotencyRecord, StoredResponse
from markethall.shared.persistence.postgres import Connection, Postgres, Statement
from markethall.shared.persistence.sql import delete_bounded, timestamp_column

if TYPE_CHECKING:
    from asyncpg.protocol import Record


def add_idempotency_table(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "idempotency_record",
        metadata,
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("request_hash", sa.Text, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        timestamp_column("lease_until"),
        sa.Column("response", sa.Text),
        timestamp_column("expires_at", index=True),
    )


class IdempotencyStatements:
    """The statements on the idempotency records of one context."""

    def __init__(self, record: sa.Table) -> None:
        columns = record.c
        is_open = sa.and_(columns.scope == bindparam("scope"), columns.response.is_(None))
        has_expected_lease = columns.lease_until == bindparam("expected_lease_until")
        self.claim = Statement(
            insert(record)
            .values({c.name: bindparam(c.name) for c in columns if c.name != "response"})
            .on_conflict_do_nothing()
        )
        self.get = Statement(sa.select(record).where(columns.scope == bindparam("scope")))
        self.take_over = Statement(
            sa.update(record)
            .where(is_open, has_expected_lease)
            .values(lease_until=bindparam("lease_until"))
        )
        self.complete = Statement(
            sa.update(record)
            .where(is_open)
            .values(response=bindparam("response"), expires_at=bindparam("expires_at"))
        )
        self.release = Statement(
            sa.update(record)
            .where(is_open, has_expected_lease)
            .values(lease_until=bindparam("now"))
        )
        self.purge = delete_bounded(record, [columns.scope], columns.expires_at < bindparam("now"))


def lock_open_record(record: sa.Table, source: sa.CTE) -> sa.CTE:
    """Select and lock the record of `record_values` if it has no response and `source` has a row.

    With `complete_record`, this stores the response in the statement of the effect.
    """
    return (
        sa.select(record.c.scope)
        .where(_is_open_record(record), sa.exists().select_from(source))
        .with_for_update()
        .cte("open_record")
    )


def complete_record(record: sa.Table, source: sa.CTE) -> sa.CTE:
    """Store the response of `record_values` if `source` has a row."""
    return (
        sa.update(record)
        .where(_is_open_record(record), sa.exists().select_from(source))
        .values(
            response=bindparam("record_response"),
            expires_at=bindparam("record_expires_at", type_=record.c.expires_at.type),
        )
        .cte("completed_record")
    )


def _is_open_record(record: sa.Table) -> "sa.ColumnElement[bool]":
    return sa.and_(record.c.scope == bindparam("record_scope"), record.c.response.is_(None))


def record_values(scope: str, response: StoredResponse, expires_at: datetime) -> dict[str, Any]:
    """Return the bind values of `lock_open_record` and `complete_record`."""
    return {
        "record_scope": scope,
        "record_response": response.model_dump_json(),
        "record_expires_at": expires_at,
    }


class SqlIdempotencyStore:
    def __init__(self, postgres: Postgres, statements: IdempotencyStatements) -> None:
        self._postgres = postgres
        self._statements = statements

    async def claim(
        self, record: IdempotencyRecord, expires_at: datetime
    ) -> IdempotencyRecord | None:
        row = record.model_dump(exclude={"response"})
        async with self._postgres.read_session() as connection:
            while True:
                is_new = await connection.execute(
                    self._statements.claim, **row, expires_at=expires_at
                )
                if is_new:
                    return None
                existing = await connection.fetch_one(self._statements.get, scope=record.scope)
                # if the record was purged between the two statements, insert it again
                if existing:
                    return _to_record(existing)

    async def take_over(self, existing: IdempotencyRecord, lease_until: datetime) -> bool:
        return bool(
            await self._execute(
                self._statements.take_over,
                scope=existing.scope,
                expected_lease_until=existing.lease_until,
                lease_until=lease_until,
            )
        )

    async def complete(self, scope: str, response: StoredResponse, expires_at: datetime) -> None:
        async with self._postgres.read_session() as connection:
            await complete_idempotency_record(
                connection, self._statements, scope, response, expires_at
            )

    async def release(self, record: IdempotencyRecord, now: datetime) -> None:
        await self._execute(
            self._statements.release,
            scope=record.scope,
            expected_lease_until=record.lease_until,
            now=now,
        )

    async def purge(self, now: datetime) -> int:
        return await self._execute(self._statements.purge, now=now)

    async def _execute(self, statement: Statement, **values: Any) -> int:
        async with self._postgres.read_session() as connection:
            return await connection.execute(statement, **values)


async def complete_idempotency_record(
    connection: Connection,
    statements: IdempotencyStatements,
    scope: str,
    response: StoredResponse,
    expires_at: datetime,
) -> bool:
    """Store the response in the current transaction. Returns False if one is stored already."""
    return bool(
        await connection.execute(
            statements.complete,
            scope=scope,
            response=response.model_dump_json(),
            expires_at=expires_at,
        )
    )


def _to_record(row: "Record") -> IdempotencyRecord:
    response = StoredResponse.model_validate_json(row["response"]) if row["response"] else None
    names = ("scope", "request_hash", "id", "lease_until")
    return IdempotencyRecord(**{name: row[name] for name in names}, response=response)
