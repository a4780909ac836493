"""Access tokens: JWTs signed with Ed25519 (RFC 8037), in the profile of RFC 9068.

As RFC 8725 recommends, only one algorithm is accepted, the `typ` header distinguishes access tokens
from other tokens, and issuer, audience and times are always checked.

An order token is a second kind, with another `typ`. Its subject is an order instead of a user or a
guest, so it gives access to this order only (decision 0041).
"""

import base64
import hashlib
import hmac
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unauthenticated
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.key_derivation import KeyPurpose, derive_key
from markethall.shared.kernel.scopes import ONE_ORDER

ALGORITHM: Final = "EdDSA"
TOKEN_TYPE: Final = "at+jwt"
ORDER_TOKEN_TYPE: Final = "order+jwt"
MAX_TOKEN_LENGTH: Final = 4096
# tolerance for `iat`, because the clock of the issuer may be ahead
CLOCK_SKEW_SECONDS: Final = 60

# PyJWT must not check the times, because the verifiers check them with their own clock
DECODE_OPTIONS: Final[Any] = {
    "require": ["iss", "aud", "exp", "iat", "sub", "jti"],
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "strict_aud": True,
}

# the exceptions that decoding a forged token can raise
DECODE_ERRORS: Final = (
    jwt.PyJWTError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RecursionError,
    OverflowError,
)

KeySetProvider = Callable[[], Mapping[str, Any]]


def generate_private_key() -> str:
    """Return a new private key as PEM text."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def load_private_keys(pem: str) -> list[Ed25519PrivateKey]:
    """Load one or more concatenated PEM keys. Raises ValueError.

    Only the first key signs. The other public keys are published too: a new key before it is used
    for signing, and an old key as long as its tokens are valid.
    """
    begin = "-----BEGIN"
    pem_blocks = [f"{begin}{part}" for part in pem.split(begin)[1:]]
    return [load_private_key(text) for text in pem_blocks or [pem]]


def load_private_key(pem: str) -> Ed25519PrivateKey:
    """Load an Ed25519 private key from PEM text. Raises ValueError with a readable message."""
    try:
        key = load_pem_private_key(pem.strip().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is not a private key in PEM form without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is a private key, but not an Ed25519 one")  # noqa: TRY004 - a bad setting, not a bad type
    return key


class AccessTokenSigner:
    """Signs access tokens. No other class has the private key."""

    def __init__(
        self, key: Ed25519PrivateKey | str, issuer: str, audience: str, ttl: timedelta, clock: Clock
    ) -> None:
        """`key` may be PEM text of one or more keys. Raises ValueError for an invalid key."""
        keys = load_private_keys(key) if isinstance(key, str) else [key]
        self._key = keys[0]
        self.issuer = issuer
        self.audience = audience
        self.lifetime = ttl
        self._clock = clock
        self._jwks = to_key_set(keys)
        self._kid: str = self._jwks["keys"][0]["kid"]

    def sign(self, actor: Actor) -> str:
        """Return a token for a user or a guest, with the roles and scopes of the actor."""
        claims: dict[str, Any] = {
            "sub": str(actor.user_id),
            "client_id": "markethall",
            "scope": " ".join(sorted(actor.scopes)),
            "roles": list(actor.roles),
        }
        if actor.session_id:
            claims["sid"] = str(actor.session_id)
        if actor.is_guest:
            claims["guest"] = True
        return self._sign(TOKEN_TYPE, claims, self.lifetime)

    def sign_order_token(self, order_id: UUID, lifetime: timedelta) -> str:
        """Return a token that gives access to this order only."""
        return self._sign(ORDER_TOKEN_TYPE, {"sub": str(order_id)}, lifetime)

    def _sign(self, token_type: str, claims: dict[str, Any], lifetime: timedelta) -> str:
        now = int(self._clock().timestamp())
        common = {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": now,
            "exp": now + int(lifetime.total_seconds()),
            "jti": str(new_id()),
        }
        headers = {"typ": token_type, "kid": self._kid}
        return jwt.encode(common | claims, self._key, algorithm=ALGORITHM, headers=headers)

    def jwks(self) -> Mapping[str, Any]:
        """Return the public keys as a JSON Web Key Set (RFC 7517)."""
        return self._jwks

    def digest(self, purpose: KeyPurpose, text: str) -> bytes:
        """Return an HMAC of the text (256 bits), with a key derived from the signing key."""
        key = derive_key(self._key.private_bytes_raw(), purpose)
        return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256")


@dataclass(frozen=True)
class _VerifiedToken:
    actor: Actor
    expires_at: int


class AccessTokenVerifier:
    """Verifies access tokens and order tokens, and caches valid ones by hash until they expire.

    The `typ` header alone decides how the claims are read. So an order token never yields a user,
    and an access token never yields an order. `get_key_set` returns the current public keys and
    must not block. The cache is cleared when the keys change.
    """

    def __init__(
        self,
        get_key_set: KeySetProvider,
        issuer: str,
        audience: str,
        clock: Clock,
        max_cached: int = 4096,
    ) -> None:
        self._get_key_set = get_key_set
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._max_cached = max_cached
        self._key_set: Mapping[str, Any] = {}
        self._public_keys: dict[str, Ed25519PublicKey] = {}
        self._cache: OrderedDict[bytes, _VerifiedToken] = OrderedDict()

    def verify(self, token: str) -> Actor:
        """Return the actor of a token. Raises Unauthenticated; reason: `expired` or `invalid`."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated(reason="invalid")
        self._reload_changed_keys()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        verified = self._cache.get(digest)
        if verified is None:
            verified = self._verify_uncached(token)
            self._check_expiry(digest, verified)
            self._cache_token(digest, verified)
        else:
            self._check_expiry(digest, verified)
            self._cache.move_to_end(digest)
        return verified.actor

    def _reload_changed_keys(self) -> None:
        key_set = self._get_key_set()
        if key_set is self._key_set or key_set == self._key_set:
            return
        self._key_set = key_set
        self._public_keys = parse_public_keys(key_set)
        self._cache.clear()

    def _check_expiry(self, digest: bytes, verified: _VerifiedToken) -> None:
        if verified.expires_at <= self._clock().timestamp():
            self._cache.pop(digest, None)
            raise Unauthenticated("The access token has expired.", reason="expired")

    def _cache_token(self, digest: bytes, verified: _VerifiedToken) -> None:
        self._cache[digest] = verified
        if len(self._cache) > self._max_cached:
            self._cache.popitem(last=False)

    def _verify_uncached(self, token: str) -> _VerifiedToken:
        try:
            return self._to_verified_token(*self._decode(token))
        except DECODE_ERRORS:
            # the same error for every defect, so that an attacker learns nothing from it
            raise Unauthenticated(reason="invalid") from None

    def _decode(self, token: str) -> tuple[str, dict[str, Any]]:
        """Return the type and the claims. Raises DECODE_ERRORS."""
        header = jwt.get_unverified_header(token)
        # no other members are allowed, because a forged header could contain its own key (jwk, x5u)
        if set(header) != {"alg", "typ", "kid"} or header["typ"] not in _READERS:
            raise ValueError("not the header of an access token")
        claims: dict[str, Any] = jwt.decode(
            token,
            self._public_keys[header["kid"]],
            algorithms=[ALGORITHM],
            issuer=self._issuer,
            audience=self._audience,
            options=DECODE_OPTIONS,
        )
        return header["typ"], claims

    def _to_verified_token(self, token_type: str, claims: dict[str, Any]) -> _VerifiedToken:
        check_not_from_future(claims, self._clock())
        return _VerifiedToken(_READERS[token_type](claims), int(claims["exp"]))


def _to_user(claims: Mapping[str, Any]) -> Actor:
    return Actor(
        user_id=UUID(claims["sub"]),
        name="user",
        roles=tuple(claims.get("roles", ())),
        scopes=frozenset(claims.get("scope", "").split()),
        session_id=claims.get("sid"),
        is_guest=claims.get("guest") is True,
    )


def _to_order_holder(claims: Mapping[str, Any]) -> Actor:
    return Actor(order_id=UUID(claims["sub"]), name="order", scopes=frozenset({ONE_ORDER}))


# by token type, the function that reads the actor from the claims
_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Actor]]] = {
    TOKEN_TYPE: _to_user,
    ORDER_TOKEN_TYPE: _to_order_holder,
}


def check_not_from_future(claims: Mapping[str, Any], now: datetime) -> None:
    """Check that `iat` and `nbf`, if present, are not in the future (RFC 7519, section 4.1.5).

    Raises ValueError for a time in the future, ValueError or TypeError for a value that is no
    number.
    """
    latest = now.timestamp() + CLOCK_SKEW_SECONDS
    # int() raises an error for NaN and infinity, which a comparison would accept
    if any(int(claims[name]) > latest for name in ("iat", "nbf") if name in claims):
        raise ValueError("from the future")


def to_key_set(keys: Sequence[Ed25519PrivateKey]) -> dict[str, list[dict[str, str]]]:
    """Return the public keys as a JSON Web Key Set (RFC 7517)."""
    return {"keys": [_to_jwk(key.public_key()) for key in keys]}


def parse_public_keys(key_set: Mapping[str, Any]) -> dict[str, Ed25519PublicKey]:
    """Return the Ed25519 keys by key id (kid); other keys and malformed keys are skipped."""
    keys = {}
    for key in key_set.get("keys", ()):
        with suppress(ValueError, TypeError, LookupError):
            keys[str(key["kid"])] = _parse_public_key(key)
    return keys


def _parse_public_key(key: Mapping[str, Any]) -> Ed25519PublicKey:
    if (key["kty"], key["crv"]) != ("OKP", "Ed25519"):
        raise ValueError("a key of another kind")
    return Ed25519PublicKey.from_public_bytes(_base64url_decode(key["x"]))


def _to_jwk(key: Ed25519PublicKey) -> dict[str, str]:
    x = _base64url_encode(key.public_bytes_raw())
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "alg": ALGORITHM,
        "kid": _thumbprint(x),
        "x": x,
    }


def _thumbprint(x: str) -> str:
    """Return the thumbprint (RFC 7638) of the public key whose base64url value is `x`."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": x}
    return _base64url_encode(
        hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    )


def _base64url_encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _base64url_decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
