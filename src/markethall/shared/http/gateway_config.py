"""Settings of the gateway."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True)
class GatewayConfig:
    """Settings of the gateway."""

    # upper bound of the limits of the routes
    max_body_bytes: int
    body_timeout_seconds: float
    trusted_proxies: tuple[str, ...]
    # first segment of a path -> context, for the access log
    context_by_path: Mapping[str, str]
    # the time that a request may take, including its calls to other contexts
    request_deadline: timedelta = timedelta(seconds=5)
    form_paths: frozenset[str] = field(default=frozenset())
    # of all bodies that are in memory at once
    max_body_bytes_in_flight: int = 16 * 1024 * 1024
    # path -> maximum of bytes; the routes of these paths stream the body
    streaming_body_limits: Mapping[str, int] = field(default_factory=dict)
    # paths of probes and scrapers
    rate_limit_exempt_paths: frozenset[str] = field(default=frozenset())
