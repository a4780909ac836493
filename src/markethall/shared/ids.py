"""Identifiers: UUID version 7 (RFC 9562), which sort by the time they were made."""

import os
import time
from random import getrandbits
from uuid import UUID


def new_id() -> UUID:
    """48 bits of milliseconds, then 74 random bits (RFC 9562, section 5.7)."""
    return UUID(int=_shaped(int.from_bytes(os.urandom(10))))


def new_request_id() -> str:
    """The same as text, without the object: every request has one."""
    # a name to search logs by: it need not be hard to guess
    digits = f"{_shaped(getrandbits(80)):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _shaped(random_bits: int) -> int:
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | random_bits
    value = value & ~(0xF << 76) | 0x7 << 76
    return value & ~(0x3 << 62) | 0x2 << 62
