"""ASGI middleware that caches public responses until their data changes.

It runs inside the gateway, so request ids, rate limits, the access log and metrics apply to cached
responses too. Only responses for which the route calls `offer` are cached. A request with a token
bypasses the cache, because its response may contain more than the public response.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from markethall.shared.http.conditional_requests import etag_matches
from markethall.shared.http.request_context import route_template
from markethall.shared.kernel.bounded_cache import BoundedCache
from markethall.shared.kernel.circuit_breaker import MonotonicClock

Header = tuple[bytes, bytes]
IsCurrent = Callable[[], bool]
# maps the value of Accept-Language to the language of the response, as a tag
SelectLanguage = Callable[[bytes], bytes]
# A resource is a path and a query. The key of a response is the resource and the language.
ResourceKey = tuple[str, bytes]
CacheKey = tuple[str, bytes, bytes]

MAX_BYTES: Final = 32 * 1024 * 1024
# an estimate of the memory for the headers, the key and the objects of an entry
_ENTRY_OVERHEAD_BYTES: Final = 2048
_OFFER: Final = "response_is_current"
_READ_HEADERS: Final = frozenset({b"authorization", b"accept-language", b"if-none-match"})
_HEADERS_OF_304: Final = frozenset({b"etag", b"cache-control", b"vary"})


def offer(
    scope: Scope, is_current: IsCurrent, select_language: SelectLanguage | None = None
) -> None:
    """Let the response to this request be cached while `is_current` returns true.

    If the response depends on Accept-Language, `select_language` returns the language of the
    response for any value of the header. Without it, the response is the same for all values.
    """
    scope["state"][_OFFER] = is_current, select_language


class CachedResponse:
    """A 200 response with an entity tag. `send` sends it as a 200 or as a 304."""

    __slots__ = ("_etag", "_headers", "_headers_of_304", "body", "is_public", "route")

    def __init__(self, headers: Sequence[Header], body: bytes, route: str) -> None:
        self.body = body
        self.route = route
        self._headers = headers
        self._headers_of_304 = [header for header in headers if header[0] in _HEADERS_OF_304]
        self._etag = _value(headers, b"etag").decode("latin-1")
        vary = _value(headers, b"vary").lower()
        # a response whose Vary names another header is not cached, because the cache key contains
        # only the language
        self.is_public = vary in {b"", b"accept-language"} and b"public" in _value(
            headers, b"cache-control"
        )

    async def send(self, send: Send, if_none_match: bytes) -> None:
        """Send 200, or 304 if If-None-Match names the entity tag (RFC 9110, section 13.1.2)."""
        status, headers, body = 200, self._headers, self.body
        if if_none_match and etag_matches(if_none_match.decode("latin-1"), self._etag):
            status, headers, body = 304, self._headers_of_304, b""
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Entry(NamedTuple):
    response: CachedResponse
    is_current: IsCurrent
    expires_at: float


class ResponseCacheMiddleware:
    """Caches responses for at most `ttl_seconds`; together they use at most `max_bytes`.

    The key of a response contains its language and not the value of Accept-Language, because many
    values select the same language. For each path and query, the cache stores the function that
    maps the value to the language.
    """

    def __init__(
        self,
        app: ASGIApp,
        ttl_seconds: float,
        max_bytes: int = MAX_BYTES,
        clock: MonotonicClock = time.monotonic,
    ) -> None:
        self._app = app
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        # A selector may store the body of a response, from which it reads the languages. Its size
        # is then about half the size of an entry.
        self._selectors: BoundedCache[ResourceKey, SelectLanguage] = BoundedCache(max_bytes // 3)
        self._entries: BoundedCache[CacheKey, _Entry] = BoundedCache(max_bytes - max_bytes // 3)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        headers = [header for header in scope["headers"] if header[0] in _READ_HEADERS]
        if _value(headers, b"authorization"):
            await self._app(scope, receive, send)
            return
        if_none_match = _value(headers, b"if-none-match")
        resource = scope["path"], scope["query_string"]
        accept_language = _value(headers, b"accept-language")
        response = self.get(resource, accept_language)
        if response is None:
            await self._forward(resource, accept_language, if_none_match, scope, receive, send)
            return
        scope["state"]["route"] = response.route
        await response.send(send, if_none_match)

    async def _forward(
        self,
        resource: ResourceKey,
        accept_language: bytes,
        if_none_match: bytes,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Call the application without If-None-Match, so that the whole response can be cached."""
        headers = [header for header in scope["headers"] if header[0] != b"if-none-match"]
        inner = {**scope, "headers": headers}
        held: Message | None = None
        body: list[bytes] = []

        async def hold(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start":
                scope["state"]["route"] = route_template(inner)
                if message["status"] == HTTPStatus.OK and _value(
                    message.get("headers", ()), b"etag"
                ):
                    held = message
                    return
            if held is None:
                await send(message)
                return
            body.append(message.get("body", b""))
            if not message.get("more_body", False):
                response = CachedResponse(held["headers"], b"".join(body), route_template(inner))
                if response.is_public and (offered := scope["state"].get(_OFFER)):
                    self.put(resource, accept_language, response, *offered)
                await response.send(send, if_none_match)

        await self._app(inner, receive, hold)

    def get(self, resource: ResourceKey, accept_language: bytes) -> CachedResponse | None:
        select = self._selectors.get(resource)
        if select is None:
            return None
        key = (*resource, select(accept_language))
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() < entry.expires_at and entry.is_current():
            return entry.response
        self._entries.drop(key)
        return None

    def put(
        self,
        resource: ResourceKey,
        accept_language: bytes,
        response: CachedResponse,
        is_current: IsCurrent,
        select_language: SelectLanguage | None,
    ) -> None:
        if not is_current():
            # The data has changed since it was read. The cache may already contain the function of
            # the newer data, which this response would replace.
            return
        select = select_language or _no_language
        key = (*resource, select(accept_language))
        # the body counts twice: `is_current` keeps a second copy, the cached value, in memory
        size = 2 * len(response.body) + sum(map(len, key)) + _ENTRY_OVERHEAD_BYTES
        self._selectors.put(resource, select, size // 2)
        self._entries.put(
            key, _Entry(response, is_current, self._clock() + self._ttl_seconds), size
        )


def _no_language(_: bytes) -> bytes:
    return b""


def _value(headers: Iterable[Header], name: bytes) -> bytes:
    """Return the values of a header, joined by commas; empty if the header is missing."""
    return b", ".join([value for known, value in headers if known == name])
