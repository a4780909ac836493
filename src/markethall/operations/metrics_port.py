"""ASGI middleware that serves /metrics only on a separate port, and no other path on that port.

The server listens on both ports with one application, so the metrics need no second server and no
thread. A network policy can open the separate port to the scraper only.
"""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from markethall.shared.kernel.errors import RouteNotFound

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
