"""The ASGI application of the local cluster, which routes each request to a service by its path.

`/ready` and `/openapi.json` combine the answers of all services.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from markethall import __version__
from markethall.contexts import context_names, topology
from markethall.graceful_shutdown import drain_on_signal
from markethall.local.cluster.process_supervisor import Report, ServiceSupervisor, free_urls
from markethall.local.cluster.reverse_proxy import ReverseProxy
from markethall.local.cluster.running import recorded
from markethall.operations.endpoints import (
    MetricsPortMiddleware,
    add_docs,
    add_metrics,
    add_probes,
    arrived_on,
)
from markethall.server import GracefulServer, listen_sockets, server_config
from markethall.settings import Settings
from markethall.shared.http.cors import cors_policy
from markethall.shared.http.gateway import GatewayMiddleware, TokenVerifiers
from markethall.shared.http.gateway_config import GatewayConfig
from markethall.shared.http.problem_details import http_exception_handler, problem_handler
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.http.route_policies import public
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import DomainError, Unauthenticated
from markethall.shared.observability import log
from markethall.shared.persistence.redis_client import RedisClient


@dataclass
class ClusterReadiness:
    """The readiness of all services. `draining` is set when the shutdown begins."""

    proxy: ReverseProxy
    draining: bool = False

    async def check(self) -> dict[str, str]:
        states = await asyncio.gather(
            *(self.proxy.readiness(context) for context in context_names())
        )
        checks = dict(zip(context_names(), states, strict=True))
        return {**checks, "shutdown": "draining"} if self.draining else checks


class NoTokens:
    """Rejects every token, because the services verify tokens and the proxy does not."""

    async def verify(self, token: str) -> Actor:
        raise Unauthenticated(reason="unknown")


class ClusterApp:
    """Passes requests to the service that owns the path, and answers all other paths itself."""

    def __init__(self, app: FastAPI, proxy: ReverseProxy, settings: Settings) -> None:
        self.app = app
        self._proxy = proxy
        gateway_config = GatewayConfig(
            settings.max_body_bytes,
            settings.body_timeout,
            settings.trusted_proxies,
            topology().context_by_path,
        )
        self._metrics_port = settings.metrics_port
        own: ASGIApp = app
        if self._metrics_port is not None:
            own = MetricsPortMiddleware(app, self._metrics_port)
        self._own = GatewayMiddleware(
            own,
            gateway_config,
            TokenVerifiers(NoTokens),
            RateLimiter("off", RedisClient(None)),
            cors=cors_policy(settings.cors_origins, app.routes),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope["path"]) if scope["type"] == "http" else None
        if context and not arrived_on(scope, self._metrics_port):
            await self._proxy.proxy(context, scope, receive, send)
        else:
            await self._own(scope, receive, send)


def context_of(path: str) -> str | None:
    """Return the context that owns the path, or None.

    A path with `.` or `..` has no owner, because servers may interpret it differently.
    """
    root, *segments = path.split("/")
    if root or not segments or {".", ".."} & set(segments):
        return None
    return topology().context_by_path.get(segments[0])


def create_cluster_app(
    settings: Settings,
    proxy: ReverseProxy,
    running: Callable[[], AbstractAsyncContextManager[None]],
) -> ClusterApp:
    """Return the application. Its lifespan enters the context manager `running`."""
    readiness = ClusterReadiness(proxy)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running():
            with drain_on_signal(readiness, settings.drain_seconds):
                yield

    app = FastAPI(
        lifespan=lifespan,
        openapi_url=None,
        exception_handlers={DomainError: problem_handler, HTTPException: http_exception_handler},
    )
    app.state.readiness = readiness
    add_probes(app.router)
    if settings.metrics != "off":
        add_metrics(app.router, settings)
    if settings.serves_docs:
        add_docs(app.router)

        @app.get("/openapi.json")
        async def document(_: Annotated[CallContext, public()]) -> dict[str, Any]:
            requests = (proxy.get(context, "/openapi.json") for context in sorted(context_names()))
            responses = await asyncio.gather(*requests)
            return merge_documents([response.raise_for_status().json() for response in responses])

    return ClusterApp(app, proxy, settings)


def merge_documents(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge OpenAPI documents. Tags and components with the same name must be equal."""
    merged = documents[0]
    for document in documents[1:]:
        merged["paths"].update(document["paths"])
        merged["tags"] += [tag for tag in document["tags"] if tag not in merged["tags"]]
        for kind, components in document["components"].items():
            merged["components"].setdefault(kind, {}).update(components)
    return merged


def run(settings: Settings, host: str, port: int, report: Report) -> int:
    """Run until all processes have ended. Returns the exit code.

    Raises OSError if the port is taken.
    """
    with listen_sockets(host, port, settings.metrics_port) as sockets:
        log.configure(settings.log_format, settings.log_level)
        urls = free_urls()
        proxy = ReverseProxy(urls, settings)
        supervisor = ServiceSupervisor(settings, urls, proxy, report)

        @asynccontextmanager
        async def running() -> AsyncIterator[None]:
            task = asyncio.create_task(supervisor.supervise())
            task.add_done_callback(lambda _: stop())
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                await supervisor.stop()
                await proxy.close()

        def stop() -> None:
            server.should_exit = True

        app = create_cluster_app(settings, proxy, running)
        server = GracefulServer(server_config(app, settings))
        report(f"Markethall {__version__} starts {len(urls)} services behind one proxy")
        proxy_url = f"http://{host}:{sockets[0].getsockname()[1]}"
        report(f"  {'proxy':11}pid {os.getpid():<8}{proxy_url}")
        with recorded(settings.data_directory, proxy_url, urls):
            server.run(sockets)
        return supervisor.exit_code or (0 if server.started else 1)
