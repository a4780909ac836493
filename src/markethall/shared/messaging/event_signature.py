"""Signatures of the events in Redis streams, so that write access to Redis cannot forge events."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

EVENT_FIELD: Final = b"event"
SIGNATURE_FIELD: Final = b"signature"


class EventSignature:
    """Signs the events of one publisher with a key that is derived from the secret key.

    The publisher and its subscribers have the secret key; Redis does not have it. The signature is
    an HMAC-SHA-256 (RFC 2104).
    """

    def __init__(self, secret_key: bytes, publisher: str) -> None:
        purpose = f"markethall events of {publisher}".encode()
        self._key = hmac.digest(secret_key, purpose, hashlib.sha256)

    def sign(self, event: bytes) -> bytes:
        """Return the signature as 64 hexadecimal digits."""
        return hmac.new(self._key, event, hashlib.sha256).hexdigest().encode()

    def is_valid(self, fields: Mapping[bytes, bytes]) -> bool:
        """Tell whether the fields of a stream entry contain a valid signature of the event."""
        event, signature = fields.get(EVENT_FIELD), fields.get(SIGNATURE_FIELD)
        return bool(event and signature) and hmac.compare_digest(
            self.sign(event or b""), signature or b""
        )
