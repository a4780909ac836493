"""Reverse proxy: passes a request to a service and streams both bodies."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from collections.abc import Set as AbstractSet
from ipaddress import ip_network
from typing import Final

import httpx2
import structlog
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from markethall.settings import Settings
from markethall.shared.http.problem_details import problem_response
from markethall.shared.http.request_context import RequestContext
from markethall.shared.kernel.errors import (
    DeadlineExceeded,
    DomainError,
    MalformedRequest,
    RequestTimeout,
    Unavailable,
)

log = structlog.get_logger("markethall.local.cluster")

Headers = Iterable[tuple[bytes, bytes]]

# RFC 9110, section 7.6.1, and the headers of a proxy's own authentication
_HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
# set again for the service; our own server has answered Expect
_REPLACED: Final = frozenset({b"content-length", b"expect", b"x-forwarded-for", b"x-request-id"})
# the client library raises the last two where a connection is reset while it checks the socket
_CONNECTION_ERRORS: Final = (httpx2.TransportError, OSError, AttributeError)
_CONNECT_TIMEOUT_SECONDS: Final = 2.0
_GET_TIMEOUT_SECONDS: Final = 5.0
# Without a maximum, a service that hangs cannot take the connections of the others. Idle
# connections close before the service closes them, after 15 s.
_LIMITS: Final = httpx2.Limits(
    max_connections=None, max_keepalive_connections=64, keepalive_expiry=10
)


class ReverseProxy:
    """Stream requests to the services. It never retries: the first attempt may have had effect."""

    def __init__(self, urls: Mapping[str, str], settings: Settings) -> None:
        self._urls = urls
        self._trusted = tuple(ip_network(net, strict=False) for net in settings.trusted_proxies)
        # longer than the service's own limits, so that the service can refuse first
        self._body_timeout = settings.body_timeout + 1
        self._response_timeout = 2 * (
            settings.request_deadline_seconds
            + max(each.slow_provider_seconds for each in settings.by_context.values())
        )
        self._client = httpx2.AsyncClient(
            limits=_LIMITS, timeout=_GET_TIMEOUT_SECONDS, trust_env=False
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, context: str, path: str, headers: Headers = ()) -> httpx2.Response:
        """Fetch a whole response. Raises Unavailable."""
        try:
            return await self._client.get(self._urls[context] + path, headers=[*headers])
        except _CONNECTION_ERRORS as error:
            raise Unavailable(dependency=context) from error

    async def readiness(self, context: str) -> str:
        """Return "ok", "not ready" or "down"."""
        try:
            response = await self.get(context, "/ready")
        except Unavailable:
            return "down"
        return "ok" if response.is_success else "not ready"

    async def proxy(self, context: str, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = RequestContext(scope, self._trusted)
        try:
            response = await self._send(context, incoming, RequestBody(receive, self._body_timeout))
        except ClientDisconnected:
            return
        except DomainError as error:
            if isinstance(error, Unavailable):
                cause = repr(error.__cause__)
                log.warning("proxy.upstream_unavailable", service=context, error=cause)
            if isinstance(error, RequestTimeout):
                # close: the unread rest of the body would be parsed as the next request
                incoming.extra_headers.append((b"connection", b"close"))
            await problem_response(incoming.scope, error)(
                incoming.scope, receive, incoming.wrap_send(send)
            )
            return
        try:
            await _streaming(response)(scope, receive, send)
        except _CONNECTION_ERRORS as error:
            # the head is sent already: our server closes the client's connection
            log.warning("proxy.upstream_disconnected", service=context, error=repr(error))
        finally:
            await response.aclose()

    async def _send(
        self, context: str, incoming: RequestContext, body: "RequestBody"
    ) -> httpx2.Response:
        """Return the response with its headers. Raises DomainError and ClientDisconnected."""
        seconds = self._response_timeout
        timeouts = {"connect": _CONNECT_TIMEOUT_SECONDS, "write": seconds, "read": seconds}
        path, query = incoming.scope["raw_path"], incoming.scope["query_string"]
        request = httpx2.Request(
            incoming.method,
            self._urls[context],
            headers=[*_request_headers(incoming, self._urls[context])],
            stream=body,
            # the target keeps its percent-encoding byte by byte
            extensions={"target": path + (query and b"?" + query), "timeout": timeouts},
        )
        try:
            response = await self._client.send(request, stream=True)
        except (httpx2.ReadTimeout, httpx2.WriteTimeout) as error:
            raise DeadlineExceeded(dependency=context) from error
        except httpx2.LocalProtocolError as error:
            raise MalformedRequest(f"The request cannot be passed on: {error}.") from None
        except _CONNECTION_ERRORS as error:
            raise Unavailable(dependency=context) from error
        # an event stream may be silent for any time between two pieces
        del timeouts["read"]
        return response


class ClientDisconnected(Exception):
    """The client closed its connection before the request was complete."""


class RequestBody(httpx2.AsyncByteStream):
    """Yield the body of a request as it arrives. The service limits the time of the whole body."""

    def __init__(self, receive: Receive, piece_timeout: float) -> None:
        self._receive = receive
        self._piece_timeout = piece_timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises RequestTimeout, ClientDisconnected."""
        more = True
        while more:
            try:
                async with asyncio.timeout(self._piece_timeout):
                    message = await self._receive()
            except TimeoutError:
                raise RequestTimeout from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            more = message.get("more_body", False)
            yield message.get("body", b"")


def _streaming(response: httpx2.Response) -> StreamingResponse:
    """End with the client's connection: an event stream has no end of its own."""
    streaming = StreamingResponse(response.aiter_raw(), response.status_code)
    # our own server sets the date
    streaming.raw_headers = _end_to_end(response.headers.raw, {b"date"})
    return streaming


def _request_headers(incoming: RequestContext, url: str) -> Headers:
    given = incoming.scope["headers"]
    yield from _end_to_end(given, _REPLACED)
    yield b"x-forwarded-for", incoming.client_ip.encode()
    yield b"x-request-id", incoming.request_id.encode()
    if not incoming.header(b"host"):
        yield b"host", httpx2.URL(url).netloc
    if incoming.header(b"transfer-encoding"):
        # RFC 9112, section 6.3: it overrides a content-length
        yield b"transfer-encoding", b"chunked"
    else:
        yield from (item for item in given if item[0] == b"content-length")


def _end_to_end(headers: Headers, dropped: AbstractSet[bytes]) -> list[tuple[bytes, bytes]]:
    """Remove headers that concern one connection. Repeated headers keep their order."""
    lowered = [(name.lower(), value) for name, value in headers]
    listed = b",".join(value for name, value in lowered if name == b"connection").split(b",")
    one_hop = _HOP_BY_HOP | {name.strip().lower() for name in listed}
    return [item for item in lowered if item[0] not in one_hop | dropped]
