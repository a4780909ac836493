"""Public keys (JWKS): fetched from the issuer on first use, cached and refreshed."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import httpx2
import jwt
import structlog

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.errors import Unauthenticated, Unavailable
from markethall.shared.security.access_tokens import (
    DECODE_ERRORS,
    AccessTokenVerifier,
    KeySetProvider,
    parse_public_keys,
)

log = structlog.get_logger("markethall.jwks")

# The minimum time between two fetches for unknown key ids. It limits the fetches, because anyone
# can send tokens with unknown key ids.
_UNKNOWN_KEY_REFETCH_SECONDS: Final = 30.0
_FAILED_FETCH_RETRY_SECONDS: Final = 1.0
# A key set older than this is refreshed in the background, because the issuer may have removed a
# key.
_REFRESH_AFTER_SECONDS: Final = 300.0
_MAX_BYTES: Final = 64 * 1024


class JwksProvider(Protocol):
    """Source of the public keys of one issuer."""

    def get_key_set(self) -> Mapping[str, Any]:
        """Return the current key set (RFC 7517)."""

    def has_key(self, kid: str) -> bool: ...

    async def refresh_for(self, kid: str) -> None:
        """Fetch the keys because of an unknown key id. Raises Unavailable if the fetch fails."""


class LocalJwks:
    """The public keys of this process."""

    def __init__(self, provider: KeySetProvider) -> None:
        self.get_key_set = provider

    def has_key(self, kid: str) -> bool:
        return kid in _kids(self.get_key_set())

    async def refresh_for(self, kid: str) -> None:
        """Do nothing, because the key set is always current."""


class RemoteJwks:
    """The public keys of an issuer in another process; fetched when the first token arrives."""

    def __init__(
        self,
        issuer: str,
        path: str,
        http: httpx2.AsyncClient,
        *,
        unknown_key_refetch_seconds: float = _UNKNOWN_KEY_REFETCH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._path = path
        self._http = http
        self._unknown_key_refetch_seconds = unknown_key_refetch_seconds
        self._clock = clock
        self._key_set: Mapping[str, Any] = {"keys": []}
        self._fetched_at = self._failed_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    def get_key_set(self) -> Mapping[str, Any]:
        """Return the cached keys, and start to fetch them again if they are old."""
        if self._key_set["keys"] and self._has_elapsed(_REFRESH_AFTER_SECONDS, self._fetched_at):
            self._start_fetch()
        return self._key_set

    def has_key(self, kid: str) -> bool:
        return kid in _kids(self._key_set)

    async def refresh_for(self, kid: str) -> None:
        """Fetch the keys, unless they were fetched less than `unknown_key_refetch_seconds` ago.

        Concurrent callers share one fetch. Raises Unavailable if the fetch has failed and the key
        is still unknown.
        """
        if not self._has_elapsed(self._unknown_key_refetch_seconds, self._fetched_at):
            return
        # shielded, because a cancelled request must not cancel a fetch that others wait for
        await asyncio.shield(self._start_fetch())
        if not self.has_key(kid) and self._failed_at > self._fetched_at:
            raise Unavailable(dependency=self._issuer)

    def _start_fetch(self) -> "asyncio.Future[None]":
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        if not self._has_elapsed(_FAILED_FETCH_RETRY_SECONDS, self._failed_at):
            return
        try:
            self._key_set = await self._download()
            self._fetched_at = self._clock()
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, *DECODE_ERRORS) as error:
            self._failed_at = self._clock()
            log.warning("jwks.fetch_failed", issuer=self._issuer, error=repr(error))

    async def _download(self) -> Mapping[str, Any]:
        """Fetch and parse the key set.

        Raises errors of httpx2, TimeoutError, and DECODE_ERRORS for a malformed key set.
        """
        # one timeout for the whole fetch, because the timeout of httpx2 restarts with each received
        # byte
        async with (
            asyncio.timeout(self._http.timeout.read),
            self._http.stream("GET", self._path) as response,
        ):
            response.raise_for_status()
            body = await _read_limited(response)
        key_set = {"keys": [dict(key) for key in json.loads(body)["keys"]]}
        if not parse_public_keys(key_set):
            # an error, so that the keys fetched before stay in use
            raise ValueError("the key set has no usable key")
        return key_set

    def _has_elapsed(self, seconds: float, since: float) -> bool:
        return self._clock() - since >= seconds


class UserTokenVerifier:
    """Verifies access tokens; fetches the keys of the issuer if a key id is unknown."""

    def __init__(self, verifier: AccessTokenVerifier, jwks: JwksProvider) -> None:
        self._verifier = verifier
        self._jwks = jwks

    async def verify(self, token: str) -> Actor:
        """Return the actor. Raises Unauthenticated; Unavailable if the keys cannot be fetched."""
        try:
            return self._verifier.verify(token)
        except Unauthenticated:
            kid = kid_of(token)
            if self._jwks.has_key(kid):
                raise
        await self._jwks.refresh_for(kid)
        return self._verifier.verify(token)


def kid_of(token: str) -> str:
    """Return the key id (kid) in the header of a token. Raises Unauthenticated."""
    try:
        return str(jwt.get_unverified_header(token)["kid"])
    except DECODE_ERRORS:
        raise Unauthenticated(reason="invalid") from None


async def _read_limited(response: httpx2.Response) -> bytes:
    """Read the body. Raises ValueError as soon as it exceeds the maximum size."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise ValueError("the key set is too large")
    return bytes(body)


def _kids(key_set: Mapping[str, Any]) -> set[str]:
    return {str(key.get("kid")) for key in key_set["keys"]}
