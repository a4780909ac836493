"""ASGI application of the local cluster: routes by path, and speaks for all services together.

`/ready` is the readiness of all, and `/openapi.json` is their merged document.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from markethall.contexts import context_names, topology
from markethall.graceful_shutdown import drain_on_signal
from markethall.local.cluster.reverse_proxy import ReverseProxy
from markethall.operations.endpoints import add_docs, add_probes
from markethall.settings import Settings
from markethall.shared.http.gateway import GatewayConfig, GatewayMiddleware, TokenVerifiers
from markethall.shared.http.problem_details import http_exception_handler, problem_handler
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.http.route_policies import public
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import DomainError, Unauthenticated
from markethall.shared.persistence.redis_client import RedisClient


@dataclass
class ClusterReadiness:
    """Readiness of all services. `draining` is set when the shutdown begins."""

    proxy: ReverseProxy
    draining: bool = False

    async def check(self) -> dict[str, str]:
        states = await asyncio.gather(
            *(self.proxy.readiness(context) for context in context_names())
        )
        checks = dict(zip(context_names(), states, strict=True))
        return {**checks, "shutdown": "draining"} if self.draining else checks


class NoTokens:
    """Refuse every token: the services verify tokens, not the proxy."""

    async def verify(self, token: str) -> Actor:
        raise Unauthenticated(reason="unknown")


class ClusterApp:
    """Pass a path of a service to that service, and answer every other path itself."""

    def __init__(self, app: FastAPI, proxy: ReverseProxy, settings: Settings) -> None:
        self.app = app
        self._proxy = proxy
        gateway_config = GatewayConfig(
            settings.max_body_bytes,
            settings.body_timeout,
            settings.trusted_proxies,
            topology().context_by_path,
        )
        self._own = GatewayMiddleware(
            app, gateway_config, TokenVerifiers(NoTokens), RateLimiter("off", RedisClient(None))
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope["path"]) if scope["type"] == "http" else None
        if context:
            await self._proxy.proxy(context, scope, receive, send)
        else:
            await self._own(scope, receive, send)


def context_of(path: str) -> str | None:
    """The owner of the first segment. A path with `.` or `..` has none: it is ambiguous."""
    root, *segments = path.split("/")
    if root or not segments or {".", ".."} & set(segments):
        return None
    return topology().context_by_path.get(segments[0])


def create_cluster_app(
    settings: Settings,
    proxy: ReverseProxy,
    running: Callable[[], AbstractAsyncContextManager[None]],
) -> ClusterApp:
    """Build the application. `running` is entered at its start-up and left at its shutdown."""
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
    if settings.serves_docs:
        add_docs(app.router)

        @app.get("/openapi.json")
        async def document(_: Annotated[CallContext, public()]) -> dict[str, Any]:
            requests = (proxy.get(context, "/openapi.json") for context in sorted(context_names()))
            responses = await asyncio.gather(*requests)
            return merge_documents([response.raise_for_status().json() for response in responses])

    return ClusterApp(app, proxy, settings)


def merge_documents(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge OpenAPI documents. Components of the same name are the same in all of them."""
    merged = documents[0]
    for document in documents[1:]:
        merged["paths"].update(document["paths"])
        for kind, components in document["components"].items():
            merged["components"].setdefault(kind, {}).update(components)
    return merged
