"""Identifiers: UUID version 7 (RFC 9562), which sort by their creation time."""

import sys
from hashlib import sha256
from typing import Final
from uuid import UUID

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils.compat import uuid7

_RANDOM_BITS: Final = 80


def new_id() -> UUID:
    """Make an id: 48 bits of milliseconds, then a counter and random bits (RFC 9562, 6.2)."""
    return uuid7()


def new_request_id() -> str:
    """Make a request id: a UUIDv7 as text."""
    return str(uuid7())


def derive_uuid7(origin: UUID, purpose: str) -> UUID:
    """Derive an id from another one: the same origin and purpose always give the same id.

    It has the time of the origin. A retry with the same origin finds the rows of the first
    attempt.
    """
    digest = sha256(origin.bytes + purpose.encode()).digest()
    value = (origin.int >> _RANDOM_BITS) << _RANDOM_BITS | int.from_bytes(digest[:10])
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)
