"""Cross-origin requests of browsers: the CORS protocol of the Fetch standard.

The gateway adds these headers outside of the response cache, so that a cached response gets the
headers of the origin that asks for it. The API uses no cookies, so credentials are not allowed.
"""

from collections.abc import Collection, Iterable, Sequence
from http import HTTPStatus
from typing import Final

from starlette.responses import Response
from starlette.routing import BaseRoute

from markethall.shared.http.request_context import RequestContext
from markethall.shared.http.route_index import RouteIndex

REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Accept-Language, "
    "X-Request-ID, traceparent, Last-Event-ID"
)
EXPOSED_HEADERS: Final = (
    "ETag, Location, Idempotency-Replayed, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
)
# Chrome stores the answer to a preflight for at most this time
MAX_AGE_SECONDS: Final = 7200
# Allowed for a path without a route, so that a page can read the 404 instead of a network error.
_ALL_METHODS: Final = frozenset({"DELETE", "GET", "PATCH", "POST", "PUT"})
# on every response, because a shared cache must not send the response for one origin to another
_VARY: Final = (b"vary", b"Origin")


class CorsPolicy:
    """Allows pages of some origins to call the public API. The internal API allows none."""

    def __init__(self, origins: Iterable[str], routes: Iterable[BaseRoute] = ()) -> None:
        """`routes` are those of this process, from which the methods of a path are taken."""
        self._routes = RouteIndex(routes)
        exposed = (b"access-control-expose-headers", EXPOSED_HEADERS.encode())
        self._headers_by_origin = {
            origin.encode(): [_VARY, (b"access-control-allow-origin", origin.encode()), exposed]
            for origin in origins
        }

    def apply(self, request: RequestContext) -> Response | None:
        """Add the CORS headers to the response; return the whole response to a preflight.

        A foreign origin gets no CORS header, and its browser then refuses the request.
        """
        if request.is_internal:
            return None
        origin = request.header(b"origin")
        request.extra_headers += self._headers_by_origin.get(origin, [_VARY])
        if not _is_preflight(request):
            return None
        return self._preflight_response(request, is_allowed=origin in self._headers_by_origin)

    def _preflight_response(self, request: RequestContext, *, is_allowed: bool) -> Response:
        if not is_allowed:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        template, methods = self._routes.find_path(request.path.rstrip("/"))
        request.state["route"] = template
        return Response(
            status_code=HTTPStatus.NO_CONTENT, headers=_allowing(methods or _ALL_METHODS)
        )


def cors_policy(origins: Sequence[str], routes: Iterable[BaseRoute] = ()) -> CorsPolicy | None:
    """Return None if no origin is allowed, so that requests then cost nothing."""
    return CorsPolicy(origins, routes) if origins else None


def _is_preflight(request: RequestContext) -> bool:
    return (
        request.method == "OPTIONS"
        and bool(request.header(b"origin"))
        and bool(request.header(b"access-control-request-method"))
    )


def _allowing(methods: Collection[str]) -> dict[str, str]:
    return {
        "access-control-allow-methods": ", ".join(sorted(methods)),
        "access-control-allow-headers": REQUEST_HEADERS,
        "access-control-max-age": str(MAX_AGE_SECONDS),
    }
