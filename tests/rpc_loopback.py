"""A contract at the end of the real wire: the context's own serving half, behind the front door.

Everything is the product's own but the cable: the client asks the application in this process.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx2
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from markethall.contexts import topology
from markethall.shared.http.gateway import GatewayConfig, GatewayMiddleware, TokenVerifiers
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
# how slow the machine is, is not what the contract suites ask
PATIENT = RetryPolicy(attempt_timeout_seconds=30, total_timeout_seconds=60)
MANNERS = GatewayConfig(
    max_body_bytes=1024 * 1024, body_timeout_seconds=10, trusted_proxies=(), context_by_path={}
)


def now() -> datetime:
    return datetime.now(UTC)


def serving(
    target: str,
    router: APIRouter,
    service: Any,
    signer: ServiceSigner,
    allowed: AllowList = ALLOWED,
    callers: Collection[str] = ("orders",),
) -> GatewayMiddleware:
    """The application that serves this one contract to its neighbours.

    `callers`: those whose service tokens are signed by the signer, allowed to call or not.
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
    app.state.container = SimpleNamespace(**{target: lambda: service})
    app.state.allow_list = allowed
    keys = LocalJwks(signer.jwks)
    services = ServiceVerifier(dict.fromkeys(callers, keys), {target}, now)
    nobody = UserTokenVerifier(
        AccessTokenVerifier(lambda: {"keys": []}, "", "", now), LocalJwks(lambda: {"keys": []})
    )
    identities = TokenVerifiers(lambda: nobody, lambda: services)
    return GatewayMiddleware(app, MANNERS, identities, RateLimiter("off", RedisClient(None)))


@asynccontextmanager
async def over_rpc(
    target: str, router: APIRouter, service: Any, remote: type[Any]
) -> AsyncIterator[Any]:
    """The contract as orders calls it when its provider is in another deployment."""
    signer = ServiceSigner(generate_private_key(), now)
    front = serving(target, router, service, signer)
    transport = httpx2.ASGITransport(front, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://neighbour") as http:
        yield remote(RpcClient("orders", target, http, signer, now, PATIENT))


def guard_of(target: str, table: Mapping[str, Any] | None = None) -> CallGuard:
    """The caller's side, as the container wires it."""
    return CallGuard(
        "orders", target, AllowList(table) if table else ALLOWED, InFlightCalls(), now, 5
    )
