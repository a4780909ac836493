"""Idempotency records: keys, leases, stored responses, and the protocol of their store."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, Self
from uuid import UUID

from pydantic import BaseModel

from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Dto


class IdempotencyKeyMissing(DomainError):
    code = "idempotency.key_missing"
    status = 400
    title = "An Idempotency-Key header is required here"


class IdempotencyKeyInvalid(DomainError):
    code = "idempotency.key_invalid"
    status = 400
    title = "An Idempotency-Key is 1 to 255 visible ASCII characters"


class InFlight(DomainError):
    """Details: retry_after in seconds."""

    code = "idempotency.in_flight"
    status = 409
    title = "The first request with this key is still running"
    retryable = True


class PayloadMismatch(DomainError):
    code = "idempotency.payload_mismatch"
    status = 422
    title = "This key was used with another payload"


class LeaseLost(DomainError):
    """Another attempt with the same key has finished first. A retry gets the stored response."""

    code = "idempotency.lease_lost"
    status = 409
    title = "Another attempt with this key has finished first"
    retryable = True


class StoredResponse(Dto):
    """The response to the first request with a key; every retry with this key gets it."""

    status: int
    body: str
    location: str | None = None
    etag: str | None = None
    content_type: str = "application/json"


@dataclass
class IdempotentCommand:
    """One attempt to execute a command.

    The store saves the response in the transaction of the command.
    `id` is the id of the resource that the command creates, the same in all attempts with the same
    key. `scope` is the primary key of the record; it is empty for a request without a key.
    """

    scope: str
    id: UUID
    retention: timedelta
    to_response: Callable[[Any], StoredResponse]
    # The command sets this to False if its response must not be stored. A retry then executes the
    # command again.
    is_final: bool = True
    _built: tuple[BaseModel, StoredResponse] | None = field(default=None, init=False, repr=False)

    @classmethod
    def without_key(cls, resource_id: UUID) -> Self:
        """Build a command without an idempotency key, such as a command of a periodic job.

        The id of the resource makes such a command idempotent: a retry must use the same id.
        """
        return cls("", resource_id, timedelta(), _empty_response)

    @property
    def has_key(self) -> bool:
        return bool(self.scope)

    def build_response(self, view: BaseModel) -> StoredResponse:
        """Return the response for a view.

        The result is cached, so that the transaction stores exactly what the client gets.
        """
        if self._built is None or self._built[0] is not view:
            self._built = view, self.to_response(view)
        return self._built[1]


def _empty_response(_: Any) -> StoredResponse:
    return StoredResponse(status=200, body="")


class ResponseStore(Protocol):
    """The part of the store of a transaction that completes the idempotency record."""

    async def store_response(self, attempt: IdempotentCommand, result: Any) -> None:
        """Store the response under the idempotency key, so that a retry returns it.

        Raises LeaseLost if another attempt with this key has finished first.
        """


class IdempotencyRecord(Dto):
    """A row of the idempotency table."""

    scope: str
    request_hash: str
    id: UUID
    lease_until: datetime
    response: StoredResponse | None = None


class IdempotencyStore(Protocol):
    """The idempotency records of one context. Its methods do not use the command's transaction."""

    async def claim(
        self, record: IdempotencyRecord, expires_at: datetime
    ) -> IdempotencyRecord | None:
        """Insert the record and return None, or return the existing record of this scope."""

    async def take_over(self, existing: IdempotencyRecord, lease_until: datetime) -> bool:
        """Renew an expired lease, so that this attempt may run the command.

        Returns False if another attempt has renewed the lease or stored a response in the meantime.
        """

    async def complete(self, scope: str, response: StoredResponse, expires_at: datetime) -> None:
        """Store an error response, unless the record already has a response."""

    async def release(self, record: IdempotencyRecord, now: datetime) -> None:
        """End the lease of a record without response, so that a retry need not wait.

        Does nothing if another attempt has renewed the lease.
        """

    async def purge(self, now: datetime) -> int:
        """Delete expired records and return their number."""


@dataclass(frozen=True)
class IdempotentRequest:
    """The identity of a request (principal, method, path, key), and its payload."""

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


def _hash_canonical_json(value: Any) -> str:
    """Return the SHA-256 of the JSON text with sorted keys and without spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
