"""Claimed idempotency keys, outside the effect's transaction."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from markethall.shared.db import Postgres, Statement
from markethall.shared.idempotency import Answer, Claim
from markethall.shared.sql.statements import ContextStatements

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlClaims:
    def __init__(self, postgres: Postgres, statements: ContextStatements) -> None:
        self._postgres = postgres
        self._statements = statements

    async def claim(self, claim: Claim, expires_at: datetime) -> Claim | None:
        row = claim.model_dump(exclude={"answer"})
        async with self._postgres.reading() as session:
            while True:
                new = await session.run(self._statements.claim_key, **row, expires_at=expires_at)
                if new:
                    return None
                standing = await session.one(self._statements.standing_key, of=claim.scope)
                # None: purged between the two statements, so the key is free again
                if standing:
                    return _claim(standing)

    async def take_over(self, standing: Claim, lease_until: datetime) -> bool:
        return bool(
            await self._run(
                self._statements.take_over_key,
                of=standing.scope,
                was=standing.lease_until,
                until=lease_until,
            )
        )

    async def finish(self, scope: str, answer: Answer, expires_at: datetime) -> None:
        text = answer.model_dump_json()
        await self._run(self._statements.finish_key, of=scope, text=text, expires=expires_at)

    async def hand_back(self, claim: Claim, now: datetime) -> None:
        await self._run(
            self._statements.hand_back_key, of=claim.scope, was=claim.lease_until, now=now
        )

    async def purge(self, now: datetime) -> int:
        return await self._run(self._statements.purge_keys, now=now)

    async def _run(self, statement: Statement, **values: Any) -> int:
        async with self._postgres.reading() as session:
            return await session.run(statement, **values)


def _claim(row: "Record") -> Claim:
    answer = Answer.model_validate_json(row["answer"]) if row["answer"] else None
    names = ("scope", "request_hash", "id", "lease_until")
    return Claim(**{name: row[name] for name in names}, answer=answer)
