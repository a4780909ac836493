"""Idempotency keys: one effect per key, and the one true answer for every retry.

Step one claims the key with a lease and the ids that the effect will use. Step two, the effect's
own transaction, finishes it with the answer. A retry after the lease takes the claim over with
the same ids, so the effect cannot happen twice. The header: draft-ietf-httpapi-idempotency-key.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel

from markethall.shared.clock import Clock
from markethall.shared.errors import Refusal, Unavailable
from markethall.shared.ids import new_id
from markethall.shared.model import Dto

T = TypeVar("T", bound=BaseModel)


class KeyMissing(Refusal):
    code = "idempotency.key_missing"
    status = 400
    title = "An Idempotency-Key header is required here"


class KeyInvalid(Refusal):
    code = "idempotency.key_invalid"
    status = 400
    title = "An Idempotency-Key is 1 to 255 visible ASCII characters"


class InFlight(Refusal):
    """Details: retry_after."""

    code = "idempotency.in_flight"
    status = 409
    title = "The first request with this key is still running"
    retryable = True


class PayloadMismatch(Refusal):
    code = "idempotency.payload_mismatch"
    status = 422
    title = "This key was used with another payload"


class LeaseLost(Refusal):
    """Another attempt with the same key has finished first; a retry gets its answer."""

    code = "idempotency.lease_lost"
    status = 409
    title = "Another attempt with this key has finished first"
    retryable = True


class Answer(Dto):
    """What the client got: kept so that a retry gets the same."""

    status: int
    body: str
    location: str | None = None
    etag: str | None = None
    content_type: str = "application/json"


@dataclass(frozen=True)
class Attempt:
    """One try at an effect, under a claimed key. Without a key it is nobody's and keeps nothing.

    `id` is the id of what the effect makes; the same in every attempt with the same key.
    """

    scope: str
    id: UUID
    kept_for: timedelta
    present: Callable[[Any], Answer]

    @classmethod
    def keyless(cls, thing_id: UUID) -> Self:
        """Of a command that no client sent: the id alone makes it happen once."""
        return cls("", thing_id, timedelta(), _no_answer)

    @property
    def keyed(self) -> bool:
        return bool(self.scope)


def _no_answer(_: Any) -> Answer:
    return Answer(status=200, body="")


class Claim(Dto):
    """A row of the idempotency table."""

    scope: str
    request_hash: str
    id: UUID
    lease_until: datetime
    answer: Answer | None = None


class Claims(Protocol):
    """Claimed keys of one context, outside the effect's transaction."""

    async def claim(self, claim: Claim, expires_at: datetime) -> Claim | None:
        """None when it is ours now, else the row that stands there already."""

    async def take_over(self, standing: Claim, lease_until: datetime) -> bool:
        """Compare and set on the lease; False when somebody else was faster."""

    async def finish(self, scope: str, answer: Answer, expires_at: datetime) -> None:
        """For refusals, which have no transaction. What is finished stays as it is."""

    async def hand_back(self, claim: Claim, now: datetime) -> None:
        """End the lease of an unfinished claim; a retry goes on at once, with the same id.

        Nothing happens when somebody else has taken the claim over since.
        """

    async def purge(self, now: datetime) -> int:
        """Forget what has expired; how many."""


@dataclass(frozen=True)
class Request:
    """What a key stands for: principal, method and path, and the payload it came with."""

    principal: str
    method: str
    path: str
    key: str
    payload: Any

    @property
    def scope(self) -> str:
        return _digest([self.principal, self.method, self.path, self.key])

    @property
    def hash(self) -> str:
        return _digest(self.payload)


class Keys:
    """Runs an effect once per key."""

    def __init__(self, claims: Claims, clock: Clock, lease: timedelta) -> None:
        self._claims = claims
        self._clock = clock
        self._lease = lease

    async def once(
        self,
        request: Request,
        kept_for: timedelta,
        present: Callable[[Any], Answer],
        effect: Callable[[Attempt], Awaitable[T]],
    ) -> tuple[Answer, bool]:
        """The answer, and whether it is a replay.

        Raises InFlight, PayloadMismatch, and what the effect raises.
        """
        claim = await self._claim(request, kept_for)
        if claim.answer:
            return claim.answer, True
        attempt = Attempt(request.scope, claim.id, kept_for, present)
        try:
            return present(await effect(attempt)), False
        except Exception as error:
            await self._remember(claim, kept_for, error)
            raise

    async def _claim(self, request: Request, kept_for: timedelta) -> Claim:
        now = self._clock()
        mine = Claim(
            scope=request.scope,
            request_hash=request.hash,
            id=new_id(),
            lease_until=now + self._lease,
        )
        standing = await self._claims.claim(mine, now + kept_for)
        return await self._retried(standing, mine) if standing else mine

    async def _retried(self, standing: Claim, mine: Claim) -> Claim:
        if standing.request_hash != mine.request_hash:
            raise PayloadMismatch
        if standing.answer:
            return standing
        left = standing.lease_until - self._clock()
        if left > timedelta():
            raise InFlight(retry_after=int(left.total_seconds()) + 1)
        if not await self._claims.take_over(standing, mine.lease_until):
            raise InFlight
        return standing.model_copy(update={"lease_until": mine.lease_until})

    async def _remember(self, claim: Claim, kept_for: timedelta, error: Exception) -> None:
        """A deterministic refusal is an answer; after anything else the key may be tried again."""
        now = self._clock()
        try:
            if isinstance(error, Refusal) and error.deterministic:
                await self._claims.finish(claim.scope, refused(error), now + kept_for)
            else:
                await self._claims.hand_back(claim, now)
        except Unavailable:
            # the lease runs out by itself; the first error is the one to tell
            return


def refused(refusal: Refusal) -> Answer:
    """The refusal as data; the HTTP layer raises it again on a replay."""
    body = json.dumps({"code": refusal.code, "detail": refusal.detail, "details": refusal.details})
    return Answer(status=refusal.status, body=body, content_type="application/problem+json")


def _digest(value: Any) -> str:
    """Over canonical JSON: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
