"""Public keys that somebody else publishes: fetched when first needed, kept, and followed."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import httpx2
import jwt
import structlog

from markethall.shared.call import Actor
from markethall.shared.errors import Unauthenticated, Unavailable
from markethall.shared.tokens import UNREADABLE, KeySetProvider, Verifier, public_keys

log = structlog.get_logger("markethall.keyring")

# seconds between two fetches for the sake of keys that are not in the set
_UNKNOWN_EVERY: Final = 30.0
# seconds before a fetch that failed is tried again
_FAILED_EVERY: Final = 1.0
# seconds after which a key set is fetched again, in the background: keys may have been withdrawn
_FRESH: Final = 300.0
_MOST_BYTES: Final = 64 * 1024


class KeySource(Protocol):
    """Where public keys come from."""

    def current(self) -> Mapping[str, Any]:
        """The key set (RFC 7517) as it is known now."""

    def knows(self, kid: str) -> bool: ...

    async def learn(self, kid: str) -> None:
        """Look for a key that is not known. Raises Unavailable when nobody can be asked."""


class OwnKeys:
    """The keys of this very process."""

    def __init__(self, provider: KeySetProvider) -> None:
        self.current = provider

    def knows(self, kid: str) -> bool:
        return kid in _kids(self.current())

    async def learn(self, kid: str) -> None:
        """There is nobody to ask."""


class Keyring:
    """The keys of one issuer in another process. Nothing is fetched before the first token."""

    def __init__(
        self,
        issuer: str,
        path: str,
        http: httpx2.AsyncClient,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._path = path
        self._http = http
        self._clock = clock
        self._keys: Mapping[str, Any] = {"keys": []}
        self._fetched_at = self._failed_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    def current(self) -> Mapping[str, Any]:
        """Stale ones too, while nobody answers."""
        if self._keys["keys"] and self._is_over(_FRESH, self._fetched_at):
            self._start()
        return self._keys

    def knows(self, kid: str) -> bool:
        return kid in _kids(self._keys)

    async def learn(self, kid: str) -> None:
        """At most one fetch at a time, and a pause between them. Raises Unavailable."""
        if not self._is_over(_UNKNOWN_EVERY, self._fetched_at):
            return
        # shielded: who gives up must not take the others' answer away
        await asyncio.shield(self._start())
        if not self.knows(kid) and self._failed_at > self._fetched_at:
            raise Unavailable(dependency=self._issuer)

    def _start(self) -> "asyncio.Future[None]":
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        if not self._is_over(_FAILED_EVERY, self._failed_at):
            return
        try:
            self._keys = await self._ask()
            self._fetched_at = self._clock()
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, *UNREADABLE) as error:
            self._failed_at = self._clock()
            log.warning("keys.not_fetched", issuer=self._issuer, error=repr(error))

    async def _ask(self) -> Mapping[str, Any]:
        """Raises what httpx2 raises, TimeoutError, and UNREADABLE for what is no key set."""
        # one limit for everything: httpx's own read timeout begins anew with each byte
        async with (
            asyncio.timeout(self._http.timeout.read),
            self._http.stream("GET", self._path) as answer,
        ):
            answer.raise_for_status()
            body = await _bounded(answer)
        keys = {"keys": [dict(key) for key in json.loads(body)["keys"]]}
        if not public_keys(keys):
            # better the keys that we have than none
            raise ValueError("there is no key in it that we can use")
        return keys

    def _is_over(self, seconds: float, since: float) -> bool:
        return self._clock() - since >= seconds


class People:
    """Tells who bears an access token, and looks for its key where that is not known yet."""

    def __init__(self, verifier: Verifier, keys: KeySource) -> None:
        self._verifier = verifier
        self._keys = keys

    async def verify(self, token: str) -> Actor:
        """Raises Unauthenticated; Unavailable when nobody can say whether it is good."""
        try:
            return self._verifier.verify(token)
        except Unauthenticated:
            kid = key_id(token)
            if self._keys.knows(kid):
                raise
        await self._keys.learn(kid)
        return self._verifier.verify(token)


def key_id(token: str) -> str:
    """Which key it says it was signed with. Raises Unauthenticated."""
    try:
        return str(jwt.get_unverified_header(token)["kid"])
    except UNREADABLE:
        raise Unauthenticated(reason="invalid") from None


async def _bounded(answer: httpx2.Response) -> bytes:
    """Raises ValueError for more than a key set can be, before all of it is here."""
    body = bytearray()
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > _MOST_BYTES:
            raise ValueError("the key set is too large")
    return bytes(body)


def _kids(key_set: Mapping[str, Any]) -> set[str]:
    return {str(key.get("kid")) for key in key_set["keys"]}
