"""Calls of a contract through the real RPC client, gateway and router in one process.

An ASGI transport takes the place of the network.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx2
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from markethall.contexts import topology
from markethall.shared.http.gateway import GatewayMiddleware, TokenVerifiers
from markethall.shared.http.gateway_config import GatewayConfig
from markethall.shared.http.problem_details import (
    http_exception_handler,
    problem_handler,
    unexpected_handler,
    validation_handler,
)
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.kernel.errors import DomainError
from markethall.shared.persistence.redis_client import RedisClient
from markethall.shared.rpc.client import RetryPolicy, RpcClient
from markethall.shared.rpc.client_interceptor import AllowList, CallGuard, InFlightCalls
from markethall.shared.security.access_tokens import AccessTokenVerifier, generate_private_key
from markethall.shared.security.jwks import LocalJwks, UserTokenVerifier
from markethall.shared.security.service_tokens import ServiceSigner, ServiceVerifier

ALLOWED = AllowList(topology().allowed_calls)
# long timeouts for slow machines, because the contract suites do not test timeouts
LONG_TIMEOUTS = RetryPolicy(attempt_timeout_seconds=30, total_timeout_seconds=60)
GATEWAY_CONFIG = GatewayConfig(
    max_body_bytes=1024 * 1024, body_timeout_seconds=60, trusted_proxies=(), context_by_path={}
)


def now() -> datetime:
    return datetime.now(UTC)


def rpc_server(
    target: str,
    router: APIRouter,
    service: Any,
    signer: ServiceSigner,
    allowed: AllowList = ALLOWED,
    callers: Collection[str] = ("orders",),
) -> GatewayMiddleware:
    """Return an application that serves one contract, implemented by `service`, to other contexts.

    It accepts the service tokens that `signer` has signed for a context in `callers`. `allowed` is
    the allow-list of the methods that each context may call.
    """
    app = FastAPI(
        exception_handlers={
            DomainError: problem_handler,
            RequestValidationError: validation_handler,
            HTTPException: http_exception_handler,
            Exception: unexpected_handler,
        }
    )
    app.include_router(router)
    app.state.contexts = {target: SimpleNamespace(**{target: lambda: service})}
    app.state.allow_list = allowed
    keys = LocalJwks(signer.jwks)
    services = ServiceVerifier(dict.fromkeys(callers, keys), {target}, now)
    no_users = UserTokenVerifier(
        AccessTokenVerifier(lambda: {"keys": []}, "", "", now), LocalJwks(lambda: {"keys": []})
    )
    verifiers = TokenVerifiers(lambda: no_users, lambda: services)
    return GatewayMiddleware(app, GATEWAY_CONFIG, verifiers, RateLimiter("off", RedisClient(None)))


@asynccontextmanager
async def over_rpc(
    target: str, router: APIRouter, service: Any, remote: Callable[[RpcClient], Any]
) -> AsyncIterator[Any]:
    """Yield the RPC client with which orders calls a contract that another process serves."""
    signer = ServiceSigner(generate_private_key(), now)
    server = rpc_server(target, router, service, signer)
    transport = httpx2.ASGITransport(server, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://provider") as http:
        yield remote(RpcClient("orders", target, http, signer, now, LONG_TIMEOUTS))


def guard_of(target: str, table: Mapping[str, Any] | None = None) -> CallGuard:
    """Return the call guard of orders, as the container builds it. `table` is its allow-list."""
    return CallGuard(
        "orders", target, AllowList(table) if table else ALLOWED, InFlightCalls(), now, 5
    )
