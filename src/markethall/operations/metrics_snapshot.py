"""The text of the metrics, which is rendered at most once a second."""

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import generate_latest

from markethall.shared.kernel.circuit_breaker import MonotonicClock
from markethall.shared.observability.metrics import REGISTRY

SNAPSHOT_TTL_SECONDS: Final = 1.0


def _render() -> bytes:
    return generate_latest(REGISTRY)


class MetricsSnapshot:
    """The metrics, rendered at most once a second: rendering blocks the event loop for some ms."""

    def __init__(
        self, render: Callable[[], bytes] = _render, clock: MonotonicClock = time.monotonic
    ) -> None:
        self._render = render
        self._clock = clock
        self._text = b""
        self._rendered_at = -SNAPSHOT_TTL_SECONDS

    def read(self) -> bytes:
        """Return the metrics in the text format of Prometheus, at most a second old."""
        now = self._clock()
        if now - self._rendered_at >= SNAPSHOT_TTL_SECONDS:
            self._text = self._render()
            self._rendered_at = now
        return self._text
