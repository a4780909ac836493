"""Signatures of the form `t=<unix time>,v1=<HMAC-SHA-256 of "<unix time>.<body>">`."""

import hmac
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from markethall.payments.contract import WebhookSignatureInvalid

SIGNATURE_TOLERANCE: Final = timedelta(minutes=5)
# in characters; enough for the signatures of two keys during a rotation, and of an older scheme
_MAX_HEADER_LENGTH: Final = 300
_UNIX_TIME: Final = re.compile(r"[0-9]{1,11}")


def sign(key: bytes, timestamp: int, body: bytes) -> str:
    return hmac.digest(key, f"{timestamp}.".encode() + body, "sha256").hex()


def verify_signature(header: str, body: bytes, keys: Iterable[bytes], now: datetime) -> None:
    """Raises WebhookSignatureInvalid, also for a signature that is too old or in the future."""
    timestamp, signatures = _parse_header(header)
    expected = [sign(key, timestamp, body).encode() for key in keys]
    matches = [hmac.compare_digest(one, given.encode()) for one in expected for given in signatures]
    sent_at = datetime.fromtimestamp(timestamp, UTC)
    if not any(matches) or abs(now - sent_at) > SIGNATURE_TOLERANCE:
        raise WebhookSignatureInvalid


def _parse_header(header: str) -> tuple[int, list[str]]:
    """Raises WebhookSignatureInvalid."""
    pairs = [part.strip().partition("=") for part in header[:_MAX_HEADER_LENGTH].split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    if len(times) != 1 or not _UNIX_TIME.fullmatch(times[0]):
        raise WebhookSignatureInvalid
    return int(times[0]), [value for name, _, value in pairs if name == "v1"]
