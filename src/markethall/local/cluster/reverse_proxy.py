"""Requests passed on to the service whose path it is, answers passed back, piece by piece."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import structlog
from starlette.types import Message, Receive, Scope, Send

from markethall.settings import Settings
from markethall.shared.bodies import SLOWEST
from markethall.shared.errors import (
    DeadlineExceeded,
    Malformed,
    Refusal,
    RequestTimeout,
    Unavailable,
)
from markethall.shared.http import problem
from markethall.shared.visit import Visit
from markethall.topology import Context

log = structlog.get_logger("markethall.apart")

Headers = list[tuple[bytes, bytes]]

# RFC 9110, section 7.6.1, and those of a proxy's own authentication: they concern one connection
_ONE_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# what is said anew to the service; Expect was answered by our server already
_RENEWED: Final = frozenset({b"content-length", b"expect", b"x-forwarded-for", b"x-request-id"})
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
# nobody answers. A connection that is reset while the client looks at its socket ends in errors
# that are none of the client's own
_SILENT: Final = (httpx2.TransportError, OSError, AttributeError)
_CONNECT: Final = 2.0
_READY_WITHIN: Final = 2.0
# no limit on connections: a service that hangs must not take those of the others. Idle ones are
# closed before the service does so, after 15 s
_LIMITS: Final = httpx2.Limits(
    max_connections=None, max_keepalive_connections=64, keepalive_expiry=10
)


class Relay:
    """The ways to the services. Nothing is asked twice: what was asked may have been done."""

    def __init__(self, addresses: Mapping[Context, str], settings: Settings) -> None:
        self._addresses = addresses
        self._proxies = tuple(ip_network(net, strict=False) for net in settings.trusted_proxies)
        # after the service's own limit, so that it is the service that refuses where it can
        self._body_timeout = settings.body_timeout + 1
        # twice what a service may take until it answers a request that is whole
        self._patience = 2 * (settings.deadline + settings.gateway_timeout)
        # not a client: no cookie is kept, no redirect followed, nothing unpacked
        self._transport = httpx2.AsyncHTTPTransport(limits=_LIMITS, trust_env=False)

    async def close(self) -> None:
        await self._transport.aclose()

    async def pass_on(self, context: Context, scope: Scope, receive: Receive, send: Send) -> None:
        visit = Visit(scope, self._proxies)
        incoming = Incoming(receive, self._body_timeout, has_body=_has_body(scope))
        try:
            await _while_wanted(self._exchange(context, visit, incoming, send), incoming)
        except Gone:
            return
        except Refusal as refusal:
            if isinstance(refusal, Unavailable):
                cause = repr(refusal.__cause__)
                log.warning("service.silent", service=context.value, error=cause)
            if isinstance(refusal, RequestTimeout):
                # the rest of that body is not waited for
                visit.extra_headers.append((b"connection", b"close"))
            await problem(visit.scope, refusal)(visit.scope, receive, visit.watching(send))

    async def ask(
        self, context: Context, path: str, headers: Iterable[tuple[bytes, bytes]], seconds: float
    ) -> httpx2.Response:
        """The whole answer to a GET. Raises Unavailable, DeadlineExceeded."""
        request = self._request(context, "GET", path.encode(), [*headers], httpx2.ByteStream(b""))
        response = await self._answer(context, request, seconds, _no_body())
        try:
            async with asyncio.timeout(seconds):
                await response.aread()
        except _SILENT as error:
            raise Unavailable(dependency=context.value) from error
        finally:
            await response.aclose()
        return response

    async def state_of(self, context: Context) -> str:
        """ok, not ready, or down."""
        try:
            answer = await self.ask(context, "/ready", [], _READY_WITHIN)
        except Unavailable:
            return "down"
        return "ok" if answer.is_success else "not ready"

    async def _exchange(
        self, context: Context, visit: Visit, incoming: "Incoming", send: Send
    ) -> None:
        target = _target(visit.scope)
        headers = _passed_on(visit)
        request = self._request(context, visit.method, target, headers, incoming)
        response = await self._answer(context, request, self._patience, incoming)
        try:
            await _pass_back(response, send)
        except _SILENT as error:
            # half an answer cannot be taken back: our server closes the connection, as that did
            log.warning("service.broke_off", service=context.value, error=repr(error))
        finally:
            await response.aclose()

    def _request(
        self,
        context: Context,
        method: str,
        target: bytes,
        headers: Headers,
        body: httpx2.AsyncByteStream,
    ) -> httpx2.Request:
        if not any(name == b"host" for name, _ in headers):
            headers = [(b"host", self._host(context)), *headers]
        # the target as it was sent, byte by byte; between two pieces of an answer any time may pass
        extensions = {"target": target, "timeout": {"connect": _CONNECT}}
        return httpx2.Request(
            method, self._addresses[context], headers=headers, stream=body, extensions=extensions
        )

    def _host(self, context: Context) -> bytes:
        return urlsplit(self._addresses[context]).netloc.encode()

    async def _answer(
        self, context: Context, request: httpx2.Request, seconds: float, incoming: "Incoming"
    ) -> httpx2.Response:
        """Its head. Raises Malformed, RequestTimeout, Unavailable, DeadlineExceeded."""
        try:
            async with asyncio.timeout(seconds) as patience:
                # the time of a body is its own, however large it is
                with incoming.watched(lambda until: _wait_until(patience, until + seconds)):
                    return await self._transport.handle_async_request(request)
        except TimeoutError as error:
            raise DeadlineExceeded(dependency=context.value) from error
        except httpx2.LocalProtocolError as error:
            raise Malformed(f"The request cannot be passed on: {error}.") from None
        except _SILENT as error:
            raise Unavailable(dependency=context.value) from error


class Gone(Exception):
    """The client went away before its request was whole: there is nobody to answer."""


class Incoming(httpx2.AsyncByteStream):
    """The body of a request while it arrives, and whether the client is still there."""

    def __init__(self, receive: Receive, seconds: float, *, has_body: bool) -> None:
        self._receive = receive
        self._seconds = seconds
        self._read = asyncio.Event()
        self._until = _now()
        self._watcher: Callable[[float], None] | None = None
        if has_body:
            self._until += seconds
        else:
            self._read.set()

    @contextmanager
    def watched(self, told: Callable[[float], None]) -> Iterator[None]:
        """Told now, and whenever it changes, until when the body has time to arrive."""
        self._watcher = told
        self._give(self._until)
        try:
            yield
        finally:
            self._watcher = None

    def _give(self, until: float) -> None:
        self._until = until
        if self._watcher:
            self._watcher(until)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises RequestTimeout, Gone."""
        self._give(_now() + self._seconds)
        try:
            while not self._read.is_set():
                message = await self._next(self._until)
                if piece := message.get("body", b""):
                    # as long as the service itself waits for a body
                    self._give(self._until + len(piece) / SLOWEST)
                    yield piece
                if not message.get("more_body"):
                    return
        finally:
            self._read.set()
            self._give(_now())

    async def gone(self) -> None:
        """Returns when the client goes away."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self, until: float) -> Message:
        try:
            async with asyncio.timeout_at(until):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout from None
        if message["type"] == "http.disconnect":
            raise Gone
        return message


def _wait_until(patience: asyncio.Timeout, when: float) -> None:
    if not patience.expired():
        patience.reschedule(when)


def _no_body() -> Incoming:
    async def nothing() -> Message:
        return {"type": "http.request"}

    return Incoming(nothing, 0, has_body=False)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _while_wanted(work: Coroutine[Any, Any, None], incoming: Incoming) -> None:
    """Who goes away wants no answer: one without an end, an event stream, ends so."""
    tasks = [asyncio.create_task(work), asyncio.create_task(incoming.gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_back(response: httpx2.Response, send: Send) -> None:
    # the date comes from our own server
    headers = _without(response.headers.raw, {b"date"})
    status = response.status_code
    await send({"type": "http.response.start", "status": status, "headers": headers})
    async for piece in response.aiter_raw():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


def _has_body(scope: Scope) -> bool:
    return any(name in _FRAMING for name, _ in scope["headers"])


def _target(scope: Scope) -> bytes:
    query: bytes = scope["query_string"]
    path: bytes = scope["raw_path"]
    return path + b"?" + query if query else path


def _passed_on(visit: Visit) -> Headers:
    """As they came, but for what concerns one connection, and what we know better."""
    given: Headers = list(visit.scope["headers"])
    return [
        *_without(given, _RENEWED),
        *_framing(given),
        (b"x-forwarded-for", _forwarded_for(visit, given)),
        # the same id in our refusals and in the lines of the service
        (b"x-request-id", visit.request_id.encode()),
    ]


def _without(headers: Headers, names: AbstractSet[bytes]) -> Headers:
    """Repeated ones stay as they are, in their order."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        word.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for word in value.split(b",")
    }
    return [item for item in lowered if item[0] not in _ONE_HOP | named | names]


def _framing(given: Headers) -> Headers:
    """How long the body is. With both, the length does not count (RFC 9112, section 6.3)."""
    if any(name == b"transfer-encoding" for name, _ in given):
        return [(b"transfer-encoding", b"chunked")]
    return [item for item in given if item[0] == b"content-length"]


def _forwarded_for(visit: Visit, given: Headers) -> bytes:
    """Lengthened when a proxy that we trust has sent it; whoever else sends it made it up."""
    peer: str = visit.scope["client"][0]
    believed = visit.client_ip != peer
    before = [value for name, value in given if name == b"x-forwarded-for" and believed]
    return b", ".join([*before, peer.encode()])
