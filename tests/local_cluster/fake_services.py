"""Small services on loopback, and a real front before them."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from markethall.apart.front import Seat, create_front
from markethall.apart.relay import Relay
from markethall.server import HallServer, hall_config, listening
from markethall.settings import read_settings
from markethall.topology import Context
from tests.wire import tcp

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


@dataclass
class Service:
    """Notes what it is asked; says what it heard, or what its test wants it to say."""

    name: Context
    asked: list[bytes] = field(default_factory=list)
    # the headers of the last request
    heard: dict[str, str] = field(default_factory=dict)
    says: Handler | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["method"].encode() + b" " + scope["raw_path"])
        self.heard = {name.decode(): value.decode() for name, value in scope["headers"]}
        await (self.says or self.echo)(scope, receive, send)

    async def echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        digest, size = hashlib.sha256(), 0
        async for piece in pieces(receive):
            digest.update(piece)
            size += len(piece)
        heard = {
            "service": self.name,
            "method": scope["method"],
            "path": scope["raw_path"].decode(),
            "query": scope["query_string"].decode(),
            "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
            "size": size,
            "sha256": digest.hexdigest(),
        }
        await answering(200, json.dumps(heard).encode())(scope, receive, send)


async def pieces(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request", "the request broke off"
        yield message.get("body", b"")
        more = message.get("more_body", False)


def answering(status: int, body: bytes = b"", *headers: Header) -> Handler:
    """The same to everybody; its length is said where there is a body."""
    length = [(b"content-length", str(len(body)).encode())] if body else []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        head = [*length, *headers]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    return answer


def as_json(document: Any, status: int = 200, kind: bytes = b"application/json") -> Handler:
    return answering(status, json.dumps(document).encode(), (b"content-type", kind))


@dataclass
class Market:
    """Four services and their front."""

    url: str
    services: Mapping[Context, Service]
    front: Any

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def asked(self) -> list[bytes]:
        return [request for service in self.services.values() for request in service.asked]


class _Server(HallServer):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The signals of this process are those of the tests."""
        yield


class Nowhere:
    def seats(self) -> dict[Context, Seat]:
        return {context: Seat(at="http://x", pid=7, starts=1) for context in Context}


@asynccontextmanager
async def market(**settings: Any) -> AsyncIterator[Market]:
    services = {context: Service(context) for context in Context}
    async with AsyncExitStack() as stack:
        urls = {
            context: await stack.enter_async_context(tcp.listening(service))
            for context, service in services.items()
        }
        url, front = await stack.enter_async_context(front_of(urls, **settings))
        yield Market(url, services, front)


@asynccontextmanager
async def front_of(urls: Mapping[Context, str], **settings: Any) -> AsyncIterator[tuple[str, Any]]:
    """As `markethall apart` serves it, with services of the test's own behind it."""
    given = read_settings(shutdown_seconds=1, **settings)
    front = create_front(given, Relay(urls, given), Nowhere(), _nothing)
    with listening("127.0.0.1", 0) as door:
        server = _Server(hall_config(front, given), drain_seconds=0)
        serving = asyncio.create_task(server.serve([door]))
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}", front
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    """Nobody looks after services that the test itself has started."""
    yield
