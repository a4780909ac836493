"""Test tools for contexts. With them the same tests run in memory, on Postgres and over HTTP.

See docs/writing-a-context.md.
"""

import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx2
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from markethall.contexts import topology
from markethall.event_workers import bind_event_handlers
from markethall.shared.composition.container import ContextContainer, ContextTools
from markethall.shared.http.gateway import GatewayMiddleware, TokenVerifiers
from markethall.shared.http.gateway_config import GatewayConfig
from markethall.shared.http.problem_details import (
    http_exception_handler,
    problem_handler,
    unexpected_handler,
    validation_handler,
)
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.kernel.call_context import Actor, system_context
from markethall.shared.kernel.clock import Clock, utc_now
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.messaging.events import Delivery, Event, wrap_event
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.persistence.redis_client import RedisClient
from markethall.shared.rpc.client import RetryPolicy, RpcClient
from markethall.shared.rpc.client_interceptor import AllowList
from markethall.shared.security.access_tokens import (
    AccessTokenSigner,
    AccessTokenVerifier,
    generate_private_key,
)
from markethall.shared.security.jwks import LocalJwks, UserTokenVerifier
from markethall.shared.security.service_tokens import ServiceSigner, ServiceVerifier

TEST_CALLER = "test"


def context_tools(
    *,
    clock: Clock = utc_now,
    postgres: Postgres | None = None,
    secret_key: bytes = b"a secret of the tests, which protects nothing",
    cache_mode: Literal["on", "off"] = "off",
    signer: AccessTokenSigner | None = None,
    data_directory: Path | None = None,
) -> ContextTools:
    """Return the tools that a process gives to a context, without Redis."""

    def access_token_signer() -> AccessTokenSigner:
        if signer is None:
            raise LookupError("this test gave no signer of access tokens")
        return signer

    async def verify_access_token(token: str) -> Actor:
        issuer = access_token_signer()
        return AccessTokenVerifier(issuer.jwks, issuer.issuer, issuer.audience, clock).verify(token)

    return ContextTools(
        postgres=postgres,
        redis=RedisClient(None),
        clock=clock,
        cursors=Cursors(secret_key),
        secret_key=secret_key,
        cache_mode=cache_mode,
        access_token_signer=access_token_signer,
        verify_access_token=verify_access_token,
        data_directory=data_directory or Path(tempfile.gettempdir(), "markethall-tests"),
    )


@contextmanager
def migrated_database(contexts: Iterable[str]) -> Iterator[str]:
    """Start an embedded Postgres with the schemas of these contexts, and yield its URL."""
    from markethall.local.postgres import EmbeddedPostgres
    from markethall.schema_migrations import upgrade

    with tempfile.TemporaryDirectory() as folder:
        # the server may run as another user, who must be able to read the directory
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "postgres", durable=False) as url:
            # a new thread, because Alembic starts an event loop and this thread may have one
            with ThreadPoolExecutor(1) as executor:
                executor.submit(upgrade, url, list(contexts)).result()
            yield url


@asynccontextmanager
async def open_remote(
    context: str, container: ContextContainer, methods: Iterable[str]
) -> AsyncIterator[Any]:
    """Yield an RPC client of the context.

    Its requests pass the real HTTP gateway and the real internal endpoints, without a network. The
    client may call all `methods`, even if no manifest allows it.
    """
    api = topology().contexts[context].load_parts().internal_api
    if api is None:
        raise LookupError(f"{context} has no internal API")
    signer = ServiceSigner(generate_private_key(), utc_now)
    app = FastAPI(
        exception_handlers={
            DomainError: problem_handler,
            RequestValidationError: validation_handler,
            HTTPException: http_exception_handler,
            Exception: unexpected_handler,
        }
    )
    app.include_router(api.routes.router)
    app.state.contexts = {context: container}
    app.state.allow_list = AllowList(
        {context: {method: frozenset({TEST_CALLER}) for method in methods}}
    )
    transport = httpx2.ASGITransport(_gateway(app, context, signer), raise_app_exceptions=False)
    policy = RetryPolicy(attempt_timeout_seconds=30, total_timeout_seconds=60)
    async with httpx2.AsyncClient(transport=transport, base_url="http://context") as http:
        yield api.remote(RpcClient(TEST_CALLER, context, http, signer, utc_now, policy))


def _gateway(app: ASGIApp, context: str, signer: ServiceSigner) -> GatewayMiddleware:
    no_keys = LocalJwks(lambda: {"keys": []})
    no_users = UserTokenVerifier(AccessTokenVerifier(no_keys.get_key_set, "", "", utc_now), no_keys)
    services = ServiceVerifier({TEST_CALLER: LocalJwks(signer.jwks)}, {context}, utc_now)
    config = GatewayConfig(
        max_body_bytes=1024 * 1024, body_timeout_seconds=60, trusted_proxies=(), context_by_path={}
    )
    verifiers = TokenVerifiers(lambda: no_users, lambda: services)
    return GatewayMiddleware(app, config, verifiers, RateLimiter("off", RedisClient(None)))


async def deliver(
    context: str, container: ContextContainer, event: Event, *, times: int = 1
) -> None:
    """Insert the event into the inbox of the context, and run each handler `times` times."""
    handlers = bind_event_handlers(
        context, topology().subscriptions[context], container.event_handlers()
    )
    envelope = wrap_event(event, system_context("test"), container.tools().clock())
    keys = topology().handler_keys(context).get(event.type, ())
    await container.persistence().inbox.enqueue(keys, [envelope])
    for key in keys:
        delivery = Delivery(handler=key, envelope=envelope, attempts=1)
        for _ in range(times):
            await handlers[key](delivery, envelope.decode())


class AsgiNetwork(httpx2.AsyncBaseTransport):
    """An HTTP transport that passes each request to the application registered for its host."""

    def __init__(self) -> None:
        self._transports: dict[str, httpx2.ASGITransport] = {}

    def register(self, host: str, app: ASGIApp) -> None:
        self._transports[host] = httpx2.ASGITransport(app, raise_app_exceptions=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        transport = self._transports.get(request.url.host)
        if transport is None:
            raise httpx2.ConnectError("no such host", request=request)
        return await transport.handle_async_request(request)
