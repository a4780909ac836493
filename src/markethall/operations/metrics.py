import time
from collections.abc import Callable
from typing import Final

from prometheus_client import generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from markethall.shared.kernel.circuit_breaker import MonotonicClock
from markethall.shared.kernel.errors import RouteNotFound
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


METRICS_PATH: Final = "/metrics"


class MetricsPortMiddleware:
    """Serves /metrics on `port` only, and nothing else there.

    Raises RouteNotFound for /metrics on any other port, and for any other path on `port`.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_metrics = scope["type"] == "http" and scope["path"] == METRICS_PATH
        if scope["type"] == "http" and is_metrics != arrived_on(scope, self._port):
            raise RouteNotFound
        await self._app(scope, receive, send)


def arrived_on(scope: Scope, port: int | None) -> bool:
    """Tell whether the request arrived on this port of the server."""
    server = scope.get("server")
    return port is not None and server is not None and server[1] == port
