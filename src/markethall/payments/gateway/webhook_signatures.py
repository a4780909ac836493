"""Webhooks: signatures of the form `t=<unix time>,v1=<HMAC-SHA-256 of "<unix time>.<body>">`."""

import hmac
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from markethall.payments.contract.errors import WebhookSignatureInvalid
from markethall.shared.kernel.errors import MalformedRequest, ValidationFailed

SIGNATURE_TOLERANCE: Final = timedelta(minutes=5)
# in characters; enough for the signatures of two keys during a rotation, and of an older scheme
_MAX_HEADER_LENGTH: Final = 300
# the number of errors of an event that are reported
_MAX_ERRORS: Final = 20
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


def invalid_event(error: ValidationError) -> MalformedRequest | ValidationFailed:
    """Build the error for a body that is not an event."""
    errors: Sequence[Any] = error.errors(include_url=False)
    if errors[0]["type"] == "json_invalid":
        return MalformedRequest("The body is not JSON.")
    return ValidationFailed(
        errors=[
            {
                "field": "".join(f"/{part}" for part in item["loc"]),
                "code": item["type"],
                "message": item["msg"],
            }
            for item in errors[:_MAX_ERRORS]
        ]
    )
