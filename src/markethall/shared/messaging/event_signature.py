"""Signatures of the events in Redis streams.

The publisher signs with the service key of its process (Ed25519, RFC 8032), and a subscriber
verifies with the publisher's public keys. So neither write access to Redis nor the key of another
service is enough to forge an event.
"""

import asyncio
import base64
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from markethall.shared.security.access_tokens import parse_public_keys
from markethall.shared.security.jwks import JwksProvider
from markethall.shared.security.service_tokens import ServiceSigner

EVENT_FIELD: Final = b"event"
SIGNATURE_FIELD: Final = b"signature"

# the minimum seconds between two fetches of keys, because anyone with write access to Redis can add
# entries that name unknown keys
REFETCH_SECONDS: Final = 1.0
# the key id is a thumbprint (RFC 7638), the signature has 64 bytes; both are in base64url
_SIGNATURE: Final = re.compile(rb"([\w-]{43})\.([\w-]{86})", re.ASCII)


class EventSigner:
    """Signs the events of one publisher."""

    def __init__(self, signer: ServiceSigner, publisher: str) -> None:
        self._signer = signer
        self._publisher = publisher

    def sign(self, event: bytes) -> bytes:
        """Return the key id and the signature, separated by a dot."""
        signature = self._signer.sign_bytes(_signed_bytes(self._publisher, event))
        return self._signer.kid.encode() + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")

    def is_own(self, fields: Mapping[bytes, bytes]) -> bool:
        """Tell whether the key of this signer has signed the entry.

        It signs the event again and compares, because signing is faster than verifying, and the
        same input always has the same Ed25519 signature.
        """
        event, signature = fields.get(EVENT_FIELD), fields.get(SIGNATURE_FIELD)
        return bool(event and signature) and hmac.compare_digest(
            self.sign(event or b""), signature or b""
        )


class EventVerifier:
    """Verifies the events of one publisher with the public keys of all given sources."""

    def __init__(self, publisher: str, sources: Sequence[JwksProvider]) -> None:
        self._publisher = publisher
        self._sources = sources
        self._key_sets: list[Mapping[str, Any]] = []
        self._public_keys: dict[str, Ed25519PublicKey] = {}
        self._fetch_at = 0.0

    async def fetch_unknown_keys(self, entries: Iterable[Mapping[bytes, bytes]]) -> None:
        """Fetch the public keys if at least one of the entries names an unknown key.

        Raises Unavailable if the publisher does not respond.
        """
        named = {kid_of(fields) for fields in entries} - {""}
        unknown = sorted(named - self._current_keys().keys())
        if not unknown:
            return
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._fetch_at - loop.time()))
        self._fetch_at = loop.time() + REFETCH_SECONDS
        for source in self._sources:
            await source.refresh_for(unknown[0])

    def find_defect(self, fields: Mapping[bytes, bytes]) -> str | None:
        """Return why the signature of an entry is not valid, or None."""
        match = _SIGNATURE.fullmatch(fields.get(SIGNATURE_FIELD, b""))
        if match is None:
            return "unsigned"
        key = self._current_keys().get(match[1].decode())
        if key is None:
            return "unknown_key"
        signed = _signed_bytes(self._publisher, fields.get(EVENT_FIELD, b""))
        try:
            key.verify(base64.urlsafe_b64decode(match[2] + b"=="), signed)
        except InvalidSignature:
            return "invalid_signature"
        return None

    def _current_keys(self) -> Mapping[str, Ed25519PublicKey]:
        key_sets = [source.get_key_set() for source in self._sources]
        if key_sets != self._key_sets:
            self._key_sets = key_sets
            self._public_keys = {
                kid: key for keys in key_sets for kid, key in parse_public_keys(keys).items()
            }
        return self._public_keys


def kid_of(fields: Mapping[bytes, bytes]) -> str:
    """Return the id of the key that an entry names; empty for a malformed signature."""
    match = _SIGNATURE.fullmatch(fields.get(SIGNATURE_FIELD, b""))
    return match[1].decode() if match else ""


def _signed_bytes(publisher: str, event: bytes) -> bytes:
    # a JWT cannot begin like this, so the signature of an event is never valid for a service token
    return b"markethall event\n" + publisher.encode() + b"\n" + event
