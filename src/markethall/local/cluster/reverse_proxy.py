"""The reverse proxy: passes requests to the services, and streams the bodies in both directions."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from collections.abc import Set as AbstractSet
from ipaddress import ip_network
from typing import Final
from urllib.parse import parse_qs

import httpx2
import structlog
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from markethall.settings import Settings
from markethall.shared.http.cors import cors_policy
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

# headers that are not forwarded (RFC 9110, section 7.6.1, and proxy authentication)
_HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
# not forwarded: the proxy sets three of them itself, and uvicorn has already answered Expect
_REPLACED: Final = frozenset({b"content-length", b"expect", b"x-forwarded-for", b"x-request-id"})
# httpx2 raises AttributeError or OSError if a connection is reset while httpx2 checks it
_CONNECTION_ERRORS: Final = (httpx2.TransportError, OSError, AttributeError)
_CONNECT_TIMEOUT_SECONDS: Final = 2.0
_GET_TIMEOUT_SECONDS: Final = 5.0
# a service ends a wait (`?wait=`) after this time, even if the client asks for more
_MAX_WAIT_SECONDS: Final = 30
_MAX_WAIT_DIGITS: Final = 4
# There is no limit of connections: all services would share it, so a service that hangs would block
# the others. Idle connections are closed after 10 s, before the services close them (15 s).
_LIMITS: Final = httpx2.Limits(
    max_connections=None, max_keepalive_connections=64, keepalive_expiry=10
)


class ReverseProxy:
    """Streams requests to the services.

    A failed request is not retried, because the service may have executed it.
    """

    def __init__(self, urls: Mapping[str, str], settings: Settings) -> None:
        self._urls = urls
        self._trusted = tuple(ip_network(net, strict=False) for net in settings.trusted_proxies)
        # for the error responses of the proxy; those of the services have the headers already
        self._cors = cors_policy(settings.cors_origins)
        # longer than the limits of the service, so that the service can answer first
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
                # close the connection, because the rest of the body would be parsed as the next
                # request
                incoming.extra_headers.append((b"connection", b"close"))
            if self._cors:
                self._cors.apply(incoming)
            await problem_response(incoming.scope, error)(
                incoming.scope, receive, incoming.wrap_send(send)
            )
            return
        try:
            await _streaming(response)(scope, receive, send)
        except _CONNECTION_ERRORS as error:
            # too late for an error response, because the headers are sent; the server of the proxy
            # closes the connection to the client
            log.warning("proxy.upstream_disconnected", service=context, error=repr(error))
        finally:
            await response.aclose()

    async def _send(
        self, context: str, incoming: RequestContext, body: "RequestBody"
    ) -> httpx2.Response:
        """Return the response when its headers have arrived.

        Raises DomainError and ClientDisconnected.
        """
        seconds = self._response_timeout + requested_wait(incoming.scope["query_string"])
        timeouts = {"connect": _CONNECT_TIMEOUT_SECONDS, "write": seconds, "read": seconds}
        path, query = incoming.scope["raw_path"], incoming.scope["query_string"]
        request = httpx2.Request(
            incoming.method,
            self._urls[context],
            headers=[*_request_headers(incoming, self._urls[context])],
            stream=body,
            # the raw path and query, so that the percent-encoding is unchanged
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
        # from here on, reads have no timeout: an event stream may send nothing for a long time
        del timeouts["read"]
        return response


def requested_wait(query: bytes) -> int:
    """Return how many seconds the service may wait for a change: 10 for the query `wait=10`."""
    value = parse_qs(query.decode("latin-1")).get("wait", ["0"])[0]
    is_number = value.isascii() and value.isdigit() and len(value) < _MAX_WAIT_DIGITS
    return min(int(value), _MAX_WAIT_SECONDS) if is_number else 0


class ClientDisconnected(Exception):
    """The client closed its connection before the request was complete."""


class RequestBody(httpx2.AsyncByteStream):
    """The body of a request, streamed in pieces.

    Each piece has a timeout here; the service limits the time of the whole body.
    """

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
    """Return a StreamingResponse, because it stops when the client disconnects.

    An event stream would otherwise be read from the service forever.
    """
    streaming = StreamingResponse(response.aiter_raw(), response.status_code)
    # without the header `date`, because uvicorn adds one
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
        # transfer-encoding overrides content-length (RFC 9112, section 6.3)
        yield b"transfer-encoding", b"chunked"
    else:
        yield from (item for item in given if item[0] == b"content-length")


def _end_to_end(headers: Headers, dropped: AbstractSet[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers without those that apply to one connection only."""
    lowered = [(name.lower(), value) for name, value in headers]
    listed = b",".join(value for name, value in lowered if name == b"connection").split(b",")
    one_hop = _HOP_BY_HOP | {name.strip().lower() for name in listed}
    return [item for item in lowered if item[0] not in one_hop | dropped]
