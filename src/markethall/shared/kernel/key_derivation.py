"""Keys for single purposes, derived from one secret."""

import hmac
from enum import StrEnum
from typing import Final

_DIGEST: Final = "sha256"


class KeyPurpose(StrEnum):
    """The purposes of derived keys. Each purpose has a key of its own."""

    CURSOR = "cursor"
    RATE_LIMIT = "rate limit"
    SANDBOX_WEBHOOK = "sandbox webhook"
    REFRESH_TOKEN = "refresh token"
    LOGIN_FAILURE = "login failure"
    REGISTRATION = "registration"


def derive_key(secret: bytes, purpose: KeyPurpose) -> bytes:
    """Return a key of 256 bits (HKDF-SHA-256, RFC 5869, without salt).

    The key of one purpose reveals neither the secret nor the key of another purpose.
    """
    extracted = hmac.digest(bytes(32), secret, _DIGEST)
    return hmac.digest(extracted, f"markethall {purpose}".encode() + b"\x01", _DIGEST)
