"""Rules of automatic retries."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import httpx2

from markethall_client.idempotency import IDEMPOTENCY_KEY_HEADER

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
# the shop may have received the request, or not
LOST_CONNECTION: Final = (
    httpx2.NetworkError,
    httpx2.TimeoutException,
    httpx2.RemoteProtocolError,
)
RETRIED_STATUSES: Final = frozenset({429, 503})
INITIAL_BACKOFF_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Retries:
    """Limits of automatic retries. A response that asks for a longer wait is returned instead."""

    max_retries: int = 3
    max_wait_seconds: float = 30

    def allowed_for(self, request: httpx2.Request) -> int:
        """Return how often the request may be repeated: never, unless it is safe or has a key."""
        if request.method in SAFE_METHODS or IDEMPOTENCY_KEY_HEADER in request.headers:
            return self.max_retries
        return 0

    def wait_before_retry(self, response: httpx2.Response | None, retry: int) -> float | None:
        """Return the seconds to wait before a retry, or None if the request is not repeated.

        `retry` is 0 for the first retry. `response` is None after a lost connection.
        """
        if response is not None and not is_temporary(response):
            return None
        asked = None if response is None else parse_retry_after(response.headers.get("Retry-After"))
        if asked is None:
            return float(INITIAL_BACKOFF_SECONDS * 2**retry * random.uniform(0.5, 1))
        return asked if asked <= self.max_wait_seconds else None


DEFAULT_RETRIES: Final = Retries()


def is_temporary(response: httpx2.Response) -> bool:
    """Tell whether a later attempt may succeed.

    A 409 with `Retry-After` says that the first attempt of the same command is still running.
    """
    if response.status_code == HTTPStatus.CONFLICT:
        return "Retry-After" in response.headers
    return response.status_code in RETRIED_STATUSES


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Parse the header, a number of seconds or a date. Return None for other values."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        time = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (time - (now or datetime.now(UTC))).total_seconds())
