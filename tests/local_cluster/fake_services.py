"""Fake services on loopback, behind the real application of the local cluster."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from markethall.contexts import context_names
from markethall.local.cluster.app import ClusterApp, create_cluster_app
from markethall.local.cluster.reverse_proxy import ReverseProxy
from markethall.server import GracefulServer, listen_socket, server_config
from markethall.settings import read_settings
from tests.rpc import tcp

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


@dataclass
class FakeService:
    """A service that records each request, and then echoes it or calls `handler`."""

    name: str
    requests: list[bytes] = field(default_factory=list)
    handler: Handler | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append(scope["method"].encode() + b" " + scope["raw_path"])
        await (self.handler or self.echo)(scope, receive, send)

    async def echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        digest, size = hashlib.sha256(), 0
        async for piece in read_body(receive):
            digest.update(piece)
            size += len(piece)
        request = {
            "service": self.name,
            "method": scope["method"],
            "path": scope["raw_path"].decode(),
            "query": scope["query_string"].decode(),
            "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
            "size": size,
            "sha256": digest.hexdigest(),
        }
        await answer(200, json.dumps(request).encode())(scope, receive, send)


async def read_body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request", "the request is incomplete"
        yield message.get("body", b"")
        more = message.get("more_body", False)


def answer(status: int, body: bytes = b"", *headers: Header) -> Handler:
    """Return a handler that always sends this response, with a content-length if it has a body."""
    length = [(b"content-length", str(len(body)).encode())] if body else []

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        all_headers = [*length, *headers]
        await send({"type": "http.response.start", "status": status, "headers": all_headers})
        await send({"type": "http.response.body", "body": body})

    return respond


@dataclass
class FakeCluster:
    url: str
    services: Mapping[str, FakeService]
    app: ClusterApp

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def requests(self) -> list[bytes]:
        return [request for service in self.services.values() for request in service.requests]


class _Server(GracefulServer):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing, so that the server does not replace the signal handlers of the test run."""
        yield


@asynccontextmanager
async def fake_cluster(**settings: Any) -> AsyncIterator[FakeCluster]:
    services = {context: FakeService(context) for context in context_names()}
    async with AsyncExitStack() as stack:
        urls = {
            context: await stack.enter_async_context(tcp.serve_app(service))
            for context, service in services.items()
        }
        url, app = await stack.enter_async_context(cluster_of(urls, **settings))
        yield FakeCluster(url, services, app)


@asynccontextmanager
async def cluster_of(
    urls: Mapping[str, str], **settings: Any
) -> AsyncIterator[tuple[str, ClusterApp]]:
    """Serve the cluster's application for the services at `urls`.

    Yield the URL of the application, and the application.
    """
    cluster_settings = read_settings(shutdown_seconds=1, **settings)
    proxy = ReverseProxy(urls, cluster_settings)
    app = create_cluster_app(cluster_settings, proxy, _without_supervisor)
    with listen_socket("127.0.0.1", 0) as socket:
        server = _Server(server_config(app, cluster_settings))
        serving = asyncio.create_task(server.serve([socket]))
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}", app
        finally:
            server.should_exit = True
            await serving
            await proxy.close()


@asynccontextmanager
async def _without_supervisor() -> AsyncIterator[None]:
    yield
