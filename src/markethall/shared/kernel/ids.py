"""Identifiers: UUID version 7 (RFC 9562), which sort by their creation time."""

import sys
from hashlib import sha256
from typing import Final
from uuid import UUID

if sys.version_info >= (3, 14):
    from uuid import uuid7

    uuid7_for_text = uuid7
else:
    # `uuid7_for_text` is for ids that are needed as text only. It is faster than `uuid7`, because
    # it builds no uuid.UUID.
    from uuid_utils import uuid7 as uuid7_for_text
    from uuid_utils.compat import uuid7

_RANDOM_BITS: Final = 80


def new_id() -> UUID:
    """Return a new UUIDv7: 48 bits of milliseconds, a counter and random bits (RFC 9562, 6.2)."""
    return uuid7()


def new_request_id() -> str:
    return str(uuid7_for_text())


def parse_uuid(text: str) -> UUID | None:
    """Return the UUID, or None if the text is not a UUID."""
    try:
        return UUID(text)
    except ValueError:
        return None


def derive_uuid7(origin: UUID, purpose: str) -> UUID:
    """Return an id that depends only on `origin` and `purpose`; it has the time of the origin.

    So a retry with the same origin finds the rows that the first attempt created.
    """
    digest = sha256(origin.bytes + purpose.encode()).digest()
    value = (origin.int >> _RANDOM_BITS) << _RANDOM_BITS | int.from_bytes(digest[:10])
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)
