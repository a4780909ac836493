"""Idempotency: one execution per key, and the same response to every retry.

The service first inserts a record with the key, a lease and the id of the resource to create. The
transaction of the command adds the response to the record. If a retry finds no response and an
expired lease, it renews the lease and runs the command with the same id, so the effect cannot
happen twice.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from markethall.shared.idempotency.records import (
    IdempotencyRecord,
    IdempotencyStore,
    IdempotentCommand,
    IdempotentRequest,
    InFlight,
    PayloadMismatch,
    StoredResponse,
)
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import DomainError, Unavailable
from markethall.shared.kernel.ids import new_id

T = TypeVar("T", bound=BaseModel)


class IdempotencyService:
    """Runs a command once per key."""

    def __init__(self, store: IdempotencyStore, clock: Clock, lease: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._lease = lease

    async def run(
        self,
        request: IdempotentRequest,
        retention: timedelta,
        to_response: Callable[[Any], StoredResponse],
        command: Callable[[IdempotentCommand], Awaitable[T]],
    ) -> tuple[StoredResponse, bool]:
        """Run the command, unless its response is stored already.

        Returns the response, and whether it is a replay of a stored one. Raises InFlight,
        PayloadMismatch, and the errors of the command.
        """
        record = await self._claim_key(request, retention)
        if record.response:
            return record.response, True
        attempt = IdempotentCommand(record.scope, record.id, retention, to_response)
        try:
            response = attempt.build_response(await command(attempt))
        except Exception as error:
            await self._record_failure(record, retention, error)
            raise
        if not attempt.is_final:
            await self._release(record)
        return response, False

    async def _claim_key(
        self, request: IdempotentRequest, retention: timedelta
    ) -> IdempotencyRecord:
        now = self._clock()
        record = IdempotencyRecord(
            scope=request.scope,
            request_hash=request.payload_hash,
            id=new_id(),
            lease_until=now + self._lease,
        )
        existing = await self._store.claim(record, now + retention)
        return await self._resume_or_reject(existing, record) if existing else record

    async def _resume_or_reject(
        self, existing: IdempotencyRecord, new_record: IdempotencyRecord
    ) -> IdempotencyRecord:
        if existing.request_hash != new_record.request_hash:
            raise PayloadMismatch
        if existing.response:
            return existing
        remaining = existing.lease_until - self._clock()
        if remaining > timedelta():
            raise InFlight(retry_after=int(remaining.total_seconds()) + 1)
        if not await self._store.take_over(existing, new_record.lease_until):
            raise InFlight
        return existing.model_copy(update={"lease_until": new_record.lease_until})

    async def _release(self, record: IdempotencyRecord) -> None:
        """End the lease, so that a retry can run the command again at once.

        Unavailable is ignored, because the lease expires by itself.
        """
        with suppress(Unavailable):
            await self._store.release(record, self._clock())

    async def _record_failure(
        self, record: IdempotencyRecord, retention: timedelta, error: Exception
    ) -> None:
        """Store the error as the response if a retry would get it again; otherwise end the lease.

        Unavailable is ignored, because the lease expires by itself. The caller gets `error` anyway.
        """
        now = self._clock()
        try:
            if isinstance(error, DomainError) and error.is_deterministic:
                await self._store.complete(record.scope, error_to_response(error), now + retention)
            else:
                await self._store.release(record, now)
        except Unavailable:
            return


def error_to_response(error: DomainError) -> StoredResponse:
    """Return the error as JSON; the HTTP layer raises the error again for a retry."""
    body = json.dumps({"code": error.code, "detail": error.detail, "details": error.details})
    return StoredResponse(status=error.status, body=body, content_type="application/problem+json")
