"""Idempotency keys: one effect per key, and the one true answer for every retry.

Step one claims the key with a lease and the ids that the effect will use. Step two, the effect's
own transaction, finishes it with the answer. A retry after the lease takes the claim over with
the same ids, so the effect cannot happen twice. The header: draft-ietf-httpapi-idempotency-key.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel

from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import DomainError, Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import Dto

T = TypeVar("T", bound=BaseModel)


class IdempotencyKeyMissing(DomainError):
    code = "idempotency.key_missing"
    status = 400
    title = "An Idempotency-Key header is required here"


class IdempotencyKeyInvalid(DomainError):
    code = "idempotency.key_invalid"
    status = 400
    title = "An Idempotency-Key is 1 to 255 visible ASCII characters"


class InFlight(DomainError):
    """Details: retry_after."""

    code = "idempotency.in_flight"
    status = 409
    title = "The first request with this key is still running"
    retryable = True


class PayloadMismatch(DomainError):
    code = "idempotency.payload_mismatch"
    status = 422
    title = "This key was used with another payload"


class LeaseLost(DomainError):
    """Another attempt with the same key has finished first; a retry gets its answer."""

    code = "idempotency.lease_lost"
    status = 409
    title = "Another attempt with this key has finished first"
    retryable = True


class StoredResponse(Dto):
    """What the client got: kept so that a retry gets the same."""

    status: int
    body: str
    location: str | None = None
    etag: str | None = None
    content_type: str = "application/json"


@dataclass
class IdempotentCommand:
    """One try at an effect, under a claimed key. Without a key it is nobody's and keeps nothing.

    `id` is the id of what the effect makes; the same in every attempt with the same key.
    """

    scope: str
    id: UUID
    retention: timedelta
    to_response: Callable[[Any], StoredResponse]
    _built: tuple[BaseModel, StoredResponse] | None = field(default=None, init=False, repr=False)

    @classmethod
    def without_key(cls, resource_id: UUID) -> Self:
        """Of a command that no client sent: the id alone makes it happen once."""
        return cls("", resource_id, timedelta(), _empty_response)

    @property
    def has_key(self) -> bool:
        return bool(self.scope)

    def build_response(self, view: BaseModel) -> StoredResponse:
        """Serialise a view once: the transaction stores what the client then gets."""
        if self._built is None or self._built[0] is not view:
            self._built = view, self.to_response(view)
        return self._built[1]


def _empty_response(_: Any) -> StoredResponse:
    return StoredResponse(status=200, body="")


class IdempotencyRecord(Dto):
    """A row of the idempotency table."""

    scope: str
    request_hash: str
    id: UUID
    lease_until: datetime
    response: StoredResponse | None = None


class IdempotencyStore(Protocol):
    """Claimed keys of one context, outside the effect's transaction."""

    async def claim(
        self, record: IdempotencyRecord, expires_at: datetime
    ) -> IdempotencyRecord | None:
        """None when it is ours now, else the row that stands there already."""

    async def take_over(self, existing: IdempotencyRecord, lease_until: datetime) -> bool:
        """Compare and set on the lease; False when somebody else was faster."""

    async def complete(self, scope: str, response: StoredResponse, expires_at: datetime) -> None:
        """For refusals, which have no transaction. What is finished stays as it is."""

    async def release(self, record: IdempotencyRecord, now: datetime) -> None:
        """End the lease of an unfinished claim; a retry goes on at once, with the same id.

        Nothing happens when somebody else has taken the claim over since.
        """

    async def purge(self, now: datetime) -> int:
        """Forget what has expired; how many."""


@dataclass(frozen=True)
class IdempotentRequest:
    """What a key stands for: principal, method and path, and the payload it came with."""

    principal: str
    method: str
    path: str
    key: str
    payload: Any

    @property
    def scope(self) -> str:
        return _hash_canonical_json([self.principal, self.method, self.path, self.key])

    @property
    def payload_hash(self) -> str:
        return _hash_canonical_json(self.payload)


class IdempotencyService:
    """Runs an effect once per key."""

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
        """The answer, and whether it is a replay.

        Raises InFlight, PayloadMismatch, and what the effect raises.
        """
        record = await self._claim_key(request, retention)
        if record.response:
            return record.response, True
        attempt = IdempotentCommand(request.scope, record.id, retention, to_response)
        try:
            return attempt.build_response(await command(attempt)), False
        except Exception as error:
            await self._record_failure(record, retention, error)
            raise

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

    async def _record_failure(
        self, record: IdempotencyRecord, retention: timedelta, error: Exception
    ) -> None:
        """A deterministic refusal is an answer; after anything else the key may be tried again."""
        now = self._clock()
        try:
            if isinstance(error, DomainError) and error.is_deterministic:
                await self._store.complete(record.scope, error_to_response(error), now + retention)
            else:
                await self._store.release(record, now)
        except Unavailable:
            # the lease runs out by itself; the first error is the one to tell
            return


def error_to_response(error: DomainError) -> StoredResponse:
    """The refusal as data; the HTTP layer raises it again on a replay."""
    body = json.dumps({"code": error.code, "detail": error.detail, "details": error.details})
    return StoredResponse(status=error.status, body=body, content_type="application/problem+json")


def _hash_canonical_json(value: Any) -> str:
    """Over canonical JSON: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
