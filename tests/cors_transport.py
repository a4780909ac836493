"""An HTTP transport that enforces the CORS protocol as a browser does."""

from collections.abc import Iterable
from typing import Final

import httpx2

_SIMPLE_METHODS: Final = frozenset({"GET", "HEAD", "POST"})
_SIMPLE_CONTENT_TYPES: Final = frozenset(
    {"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
)
_SIMPLE_HEADERS: Final = frozenset({"accept", "accept-language", "content-language"})
# headers that the browser itself sets, so a page needs no permission for them
_BROWSER_HEADERS: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "host", "origin", "user-agent"}
)
# headers that a page may read without permission
_SIMPLE_RESPONSE_HEADERS: Final = frozenset(
    {"cache-control", "content-language", "content-length", "content-type", "expires"}
)


class RefusedByBrowser(httpx2.TransportError):
    """The browser does not send the request, or hides its response from the page."""


class BrowserTransport(httpx2.AsyncBaseTransport):
    """Sends requests as a page of `origin` does. Does not cache the responses to preflights.

    The page sees only the response headers that the server exposes. Raises RefusedByBrowser.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, origin: str) -> None:
        self._inner = inner
        self._origin = origin
        self.preflights: list[tuple[str, str]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["origin"] = self._origin
        names = _headers_to_allow(request.headers)
        if names or request.method not in _SIMPLE_METHODS:
            await self._preflight(request, names)
        response = await self._inner.handle_async_request(request)
        self._require_origin(response)
        exposed = _SIMPLE_RESPONSE_HEADERS | _listed(response, "access-control-expose-headers")
        for name in set(response.headers) - exposed:
            del response.headers[name]
        return response

    async def _preflight(self, request: httpx2.Request, names: set[str]) -> None:
        headers = {"origin": self._origin, "access-control-request-method": request.method}
        if names:
            headers["access-control-request-headers"] = ",".join(sorted(names))
        preflight = httpx2.Request("OPTIONS", request.url, headers=headers)
        self.preflights.append((request.method, request.url.path))
        response = await self._inner.handle_async_request(preflight)
        if not response.is_success:
            raise RefusedByBrowser(f"the preflight has the status {response.status_code}")
        self._require_origin(response)
        methods = _listed(response, "access-control-allow-methods") | {"get", "head", "post"}
        refused = names - _listed(response, "access-control-allow-headers")
        if refused or request.method.lower() not in methods:
            raise RefusedByBrowser(f"not allowed: {request.method}, {sorted(refused)}")

    def _require_origin(self, response: httpx2.Response) -> None:
        if response.headers.get_list("access-control-allow-origin") != [self._origin]:
            raise RefusedByBrowser(f"{self._origin} is not allowed")


def _headers_to_allow(headers: httpx2.Headers) -> set[str]:
    """Return the lower-case names of the headers that need a preflight."""
    names = set(headers) - _SIMPLE_HEADERS - _BROWSER_HEADERS
    if headers.get("content-type", "text/plain").partition(";")[0] in _SIMPLE_CONTENT_TYPES:
        names.discard("content-type")
    return names


def _listed(response: httpx2.Response, name: str) -> set[str]:
    values: Iterable[str] = response.headers.get_list(name, split_commas=True)
    return {value.strip().lower() for value in values}
