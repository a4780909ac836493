"""Checks access tokens with staff scopes against the current roles of their user.

An access token is valid until it expires. If it has a staff scope, the context that issues the
tokens must also confirm that the user is active, that the session is open, and that the roles still
grant the scopes. A confirmation is used for 30 seconds, or for 60 seconds if the issuer does not
respond; after that a request gets 503.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol
from uuid import UUID

import httpx2

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unauthenticated, Unavailable
from markethall.shared.kernel.scopes import OWNER_SCOPES
from markethall.shared.security.access_tokens import DECODE_ERRORS
from markethall.shared.security.jwks import UserTokenVerifier

CONFIRM_AFTER_SECONDS: Final = 30
MAX_UNCONFIRMED_SECONDS: Final = 60
_MAX_CACHED: Final = 4096


class AccessSource(Protocol):
    async def get_current_scopes(self, token: str, actor: Actor) -> frozenset[str]:
        """Return the scopes that the user has now.

        Raises Unauthenticated if the user is disabled or the session has ended. Raises Unavailable.
        """


@dataclass(frozen=True)
class _Confirmation:
    # None means that the user is disabled or that the session has ended
    scopes: frozenset[str] | None
    confirmed_at: float


class CurrentAccessVerifier:
    """Verifies access tokens. Tokens with staff scopes must also be confirmed by the issuer."""

    def __init__(self, verifier: UserTokenVerifier, source: AccessSource, clock: Clock) -> None:
        self._verifier = verifier
        self._source = source
        self._clock = clock
        self._confirmations: OrderedDict[tuple[UUID | None, UUID | None], _Confirmation] = (
            OrderedDict()
        )

    async def verify(self, token: str) -> Actor:
        """Return the actor of the token, without scopes that the user has lost.

        Raises Unauthenticated, and Unavailable if the keys or the roles cannot be fetched.
        """
        actor = await self._verifier.verify(token)
        if actor.scopes <= OWNER_SCOPES:
            return actor
        scopes = (await self._confirm(token, actor)).scopes
        if scopes is None:
            raise _revoked()
        if actor.scopes <= scopes:
            return actor
        return actor.model_copy(update={"scopes": actor.scopes & scopes})

    async def _confirm(self, token: str, actor: Actor) -> _Confirmation:
        key = (actor.user_id, actor.session_id)
        cached = self._confirmations.get(key)
        if cached and self._is_younger(cached, CONFIRM_AFTER_SECONDS):
            return cached
        try:
            confirmation = await self._ask(token, actor)
        except Unavailable:
            if cached and self._is_younger(cached, MAX_UNCONFIRMED_SECONDS):
                return cached
            raise
        self._cache(key, confirmation)
        return confirmation

    async def _ask(self, token: str, actor: Actor) -> _Confirmation:
        # the time before the request, because a change that is made during the request may be
        # missing in the response
        now = self._clock().timestamp()
        try:
            return _Confirmation(await self._source.get_current_scopes(token, actor), now)
        except Unauthenticated:
            return _Confirmation(None, now)

    def _is_younger(self, confirmation: _Confirmation, seconds: float) -> bool:
        """Tell whether the confirmation is younger than this; False if the clock was set back."""
        return 0 <= self._clock().timestamp() - confirmation.confirmed_at < seconds

    def _cache(self, key: tuple[UUID | None, UUID | None], confirmation: _Confirmation) -> None:
        self._confirmations[key] = confirmation
        self._confirmations.move_to_end(key)
        if len(self._confirmations) > _MAX_CACHED:
            self._confirmations.popitem(last=False)


class LocalAccessSource:
    """Asks the token issuer in this process."""

    def __init__(self, get_scopes: Callable[[Actor], Awaitable[frozenset[str]]]) -> None:
        self._get_scopes = get_scopes

    async def get_current_scopes(self, token: str, actor: Actor) -> frozenset[str]:
        return await self._get_scopes(actor)


class RemoteAccessSource:
    """Asks the token issuer in another process, with a request that has the user's token."""

    def __init__(self, issuer: str, path: str, http: httpx2.AsyncClient) -> None:
        self._issuer = issuer
        self._path = path
        self._http = http

    async def get_current_scopes(self, token: str, actor: Actor) -> frozenset[str]:
        headers = {"authorization": f"Bearer {token}"}
        try:
            # one timeout for the whole request, because the timeout of httpx2 restarts with each
            # received byte
            async with asyncio.timeout(self._http.timeout.read):
                response = await self._http.get(self._path, headers=headers)
            if response.status_code == HTTPStatus.UNAUTHORIZED:
                raise _revoked()
            return frozenset(json.loads(response.raise_for_status().content)["scopes"])
        except (httpx2.HTTPError, OSError, *DECODE_ERRORS):
            raise Unavailable(dependency=self._issuer) from None


def _revoked() -> Unauthenticated:
    return Unauthenticated("The account is disabled, or the session has ended.", reason="revoked")
