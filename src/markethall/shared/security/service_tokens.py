"""Service tokens: JWTs with which one context calls another.

The caller signs the names of both contexts, the method and the actor. A token is valid for one
method and one minute. Its `typ` header differs from that of access tokens, so that neither kind is
accepted in place of the other (RFC 8725).
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import jwt

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unauthenticated
from markethall.shared.kernel.ids import new_id
from markethall.shared.security.access_tokens import (
    ALGORITHM,
    DECODE_ERRORS,
    DECODE_OPTIONS,
    check_not_from_future,
    load_private_keys,
    parse_public_keys,
    to_key_set,
)
from markethall.shared.security.jwks import JwksProvider

T = TypeVar("T")

TOKEN_TYPE: Final = "svc+jwt"
LIFETIME_SECONDS: Final = 60
MAX_TOKEN_LENGTH: Final = 8192
# a cached token is used only if it is valid for at least this time
_MIN_REMAINING_SECONDS: Final = 30
_MAX_CACHED: Final = 2048
_DECODE_OPTIONS: Final[Any] = DECODE_OPTIONS | {
    "require": [*DECODE_OPTIONS["require"], "scope", "actor"],
    # `_to_identity` looks the audience up among those of the served contexts
    "verify_aud": False,
}


def audience_of(target: str) -> str:
    return f"markethall:{target}"


@dataclass(frozen=True)
class ServiceIdentity:
    """The claims of a verified token: `caller` may call the method `scope` for `actor`.

    `scope` has the form `target.method`.
    """

    caller: str
    target: str
    scope: str
    actor: Actor
    expires_at: int


class ServiceSigner:
    """Signs service tokens and events for the contexts of this process.

    No other class has the private key.
    """

    def __init__(self, pem: str, clock: Clock) -> None:
        """`pem` has one or more private keys; the first signs. Raises ValueError."""
        keys = load_private_keys(pem)
        self._key = keys[0]
        self._clock = clock
        self._jwks = to_key_set(keys)
        self.kid: str = self._jwks["keys"][0]["kid"]
        self._headers = {"typ": TOKEN_TYPE, "kid": self.kid}
        self._cache: OrderedDict[tuple[str, str, str, Actor], tuple[str, int]] = OrderedDict()

    def jwks(self) -> Mapping[str, Any]:
        """Return the public keys as a JSON Web Key Set (RFC 7517)."""
        return self._jwks

    def sign_bytes(self, signed: bytes) -> bytes:
        """Return the Ed25519 signature.

        The bytes must not begin like a JWT, or the signature could be used for a forged token.
        """
        return self._key.sign(signed)

    def sign(self, caller: str, target: str, method: str, actor: Actor) -> str:
        """Return a token for this method. Reuses a token in the first half of its lifetime."""
        now = int(self._clock().timestamp())
        cache_key = (caller, target, method, actor)
        token, expires_at = self._cache.get(cache_key, ("", 0))
        if expires_at - now < _MIN_REMAINING_SECONDS:
            token, expires_at = self._sign(*cache_key, now), now + LIFETIME_SECONDS
            self._cache_token(cache_key, token, expires_at)
        return token

    def _cache_token(
        self, cache_key: tuple[str, str, str, Actor], token: str, expires_at: int
    ) -> None:
        self._cache[cache_key] = (token, expires_at)
        self._cache.move_to_end(cache_key)
        if len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)

    def _sign(self, caller: str, target: str, method: str, actor: Actor, now: int) -> str:
        claims = {
            "iss": audience_of(caller),
            "sub": caller,
            "aud": audience_of(target),
            "scope": f"{target}.{method}",
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
            "jti": str(new_id()),
            "actor": actor.model_dump(mode="json", exclude_defaults=True),
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers=self._headers)


class ServiceVerifier:
    """Verifies service tokens with the public keys of their callers, and caches valid ones."""

    def __init__(
        self, jwks_by_caller: Mapping[str, JwksProvider], served: Collection[str], clock: Clock
    ) -> None:
        self._jwks_by_caller = jwks_by_caller
        self._context_by_audience = {audience_of(context): context for context in served}
        self._clock = clock
        self._cache: OrderedDict[str, ServiceIdentity] = OrderedDict()

    async def verify(self, token: str) -> ServiceIdentity:
        """Return the verified claims. Raises Unauthenticated.

        Raises Unavailable if the public keys of the caller cannot be fetched.
        """
        identity = self._cache.get(token)
        if identity is None:
            identity = await self._verify_uncached(token)
            self._cache[token] = identity
            if len(self._cache) > _MAX_CACHED:
                self._cache.popitem(last=False)
        if identity.expires_at <= self._clock().timestamp():
            self._cache.pop(token, None)
            raise Unauthenticated("The service token has expired.", reason="expired")
        return identity

    async def _verify_uncached(self, token: str) -> ServiceIdentity:
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated(reason="invalid")
        unverified = _or_unauthenticated(lambda: _read_unverified(token))
        # the claimed caller selects the keys; the check of the signature proves the claim
        jwks = _or_unauthenticated(lambda: self._jwks_by_caller[unverified.caller])
        if not jwks.has_key(unverified.kid):
            await jwks.refresh_for(unverified.kid)
        return _or_unauthenticated(lambda: self._to_identity(token, unverified, jwks))

    def _to_identity(
        self, token: str, unverified: "_UnverifiedClaims", jwks: JwksProvider
    ) -> ServiceIdentity:
        claims = jwt.decode(
            token,
            parse_public_keys(jwks.get_key_set())[unverified.kid],
            algorithms=[ALGORITHM],
            issuer=audience_of(unverified.caller),
            options=_DECODE_OPTIONS,
        )
        issued_at, expires_at = (
            _require_whole_seconds(claims["iat"]),
            _require_whole_seconds(claims["exp"]),
        )
        check_not_from_future(claims, self._clock())
        if expires_at - issued_at > LIFETIME_SECONDS:
            raise ValueError("valid for too long")
        return ServiceIdentity(
            caller=unverified.caller,
            target=self._context_by_audience[claims["aud"]],
            scope=str(claims["scope"]),
            actor=Actor.model_validate(claims["actor"], extra="forbid"),
            expires_at=expires_at,
        )


class _UnverifiedClaims(NamedTuple):
    """The claimed caller and key of a token, before its signature is verified."""

    caller: str
    kid: str


def _read_unverified(token: str) -> _UnverifiedClaims:
    """Decode header and claims in one pass. Raises DECODE_ERRORS."""
    decoded = jwt.decode_complete(token, options={"verify_signature": False})
    header, claims = decoded["header"], decoded["payload"]
    if set(header) != {"alg", "typ", "kid"} or header["typ"] != TOKEN_TYPE:
        raise ValueError("not the header of a service token")
    return _UnverifiedClaims(str(claims["sub"]), str(header["kid"]))


def _require_whole_seconds(value: object) -> int:
    """Return the value if it is an int. Raises ValueError, for example for NaN."""
    if type(value) is not int:
        raise ValueError("not a time in whole seconds")
    return value


def _or_unauthenticated(read: Callable[[], T]) -> T:
    """Call `read`; raise one error for every defect, so that an attacker learns nothing from it."""
    try:
        return read()
    except DECODE_ERRORS:
        raise Unauthenticated(reason="invalid") from None
