"""Access tokens of the hand-written purchase: JWTs signed with Ed25519 (RFC 8037), by PyJWT."""

import time
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

_ALGORITHM: Final = "EdDSA"
_TOKEN_TYPE: Final = "at+jwt"
_ISSUER: Final = "https://bench.example"
_AUDIENCE: Final = "bench"
_REQUIRED_CLAIMS: Final = ["iss", "aud", "exp", "iat", "sub", "jti"]


class TokenInvalid(Exception):
    """The token is forged, of another kind, or expired."""


class TokenSigner:
    """Signs tokens with a key of its own."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        public = self._key.public_key()
        self.public_key = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, customer_id: UUID, lifetime_seconds: int = 24 * 3600) -> str:
        now = int(time.time())
        times = {"iat": now, "exp": now + lifetime_seconds}
        names = {"iss": _ISSUER, "aud": _AUDIENCE, "sub": str(customer_id), "jti": str(uuid4())}
        headers = {"typ": _TOKEN_TYPE}
        return jwt.encode(names | times, self._key, algorithm=_ALGORITHM, headers=headers)


class TokenVerifier:
    """Verifies tokens. The claims of verified tokens are cached, as in the application."""

    def __init__(self, public_key: bytes) -> None:
        key = load_pem_public_key(public_key)
        assert isinstance(key, Ed25519PublicKey)
        self._key = key
        self._read = lru_cache(maxsize=4096)(self._read_uncached)

    def verify(self, token: str) -> UUID:
        """Return the customer id. Raises TokenInvalid."""
        try:
            customer_id, expires_at = self._read(token)
        except (jwt.PyJWTError, ValueError):
            raise TokenInvalid from None
        if expires_at <= time.time():
            raise TokenInvalid
        return customer_id

    def _read_uncached(self, token: str) -> tuple[UUID, int]:
        decoded = jwt.decode_complete(
            token,
            self._key,
            algorithms=[_ALGORITHM],
            issuer=_ISSUER,
            audience=_AUDIENCE,
            options={"require": _REQUIRED_CLAIMS},
        )
        if decoded["header"].get("typ") != _TOKEN_TYPE:
            raise ValueError("not an access token")
        claims = decoded["payload"]
        return UUID(claims["sub"]), int(claims["exp"])
