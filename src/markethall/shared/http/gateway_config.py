"""The configuration of the gateway middleware."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from markethall.shared.http.work_kinds import WorkKinds


@dataclass(frozen=True)
class GatewayConfig:
    """Limits, proxies and paths that the gateway middleware uses."""

    # limits every body; the policy of a route may set a lower limit
    max_body_bytes: int
    body_timeout_seconds: float
    trusted_proxies: tuple[str, ...]
    # maps the first segment of a path to its context, for the access log
    context_by_path: Mapping[str, str]
    # the time that a request may take, including its calls to other contexts
    request_deadline: timedelta = timedelta(seconds=5)
    form_paths: frozenset[str] = field(default=frozenset())
    # limits the sum of all bodies that are in memory at the same time
    max_body_bytes_in_flight: int = 16 * 1024 * 1024
    # maps the paths of routes that stream the body to the maximum size of a body
    streaming_body_limits: Mapping[str, int] = field(default_factory=dict)
    # the paths that health probes and metrics scrapers use; they have no rate limit
    rate_limit_exempt_paths: frozenset[str] = field(default=frozenset())
    # Maps a path to the query parameters that may be repeated. A name that ends with a dot is a
    # prefix of such parameters.
    repeatable_parameters: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # tells which requests are searches, because these have a rate limit of their own
    work_kinds: WorkKinds = field(default_factory=lambda: WorkKinds({}))
