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

from markethall.shared.errors import Refusal
from markethall.shared.front import Front, Identities, Manners
from markethall.shared.guard import AllowList, Errands, Guard
from markethall.shared.http import refuse, refuse_http, refuse_invalid, refuse_unexpected
from markethall.shared.keyring import OwnKeys, People
from markethall.shared.limits import Limits
from markethall.shared.redis import RedisClient
from markethall.shared.service_tokens import ServiceSigner, ServiceVerifier
from markethall.shared.tokens import Verifier, generate_key
from markethall.shared.wire import Patience, Wire
from markethall.topology import CALLERS

ALLOWED = AllowList(CALLERS)
# how slow the machine is, is not what the contract suites ask
PATIENT = Patience(attempt=30, total=60)
MANNERS = Manners(body_limit=1024 * 1024, body_timeout=10, trusted_proxies=(), owners={})


def now() -> datetime:
    return datetime.now(UTC)


def serving(  # noqa: PLR0917 - a contract, and who may call it
    target: str,
    router: APIRouter,
    service: Any,
    signer: ServiceSigner,
    allowed: AllowList = ALLOWED,
    callers: Collection[str] = ("orders",),
) -> Front:
    """The application that serves this one contract to its neighbours.

    `callers`: those whose service tokens are signed by the signer, allowed to call or not.
    """
    app = FastAPI(
        exception_handlers={
            Refusal: refuse,
            RequestValidationError: refuse_invalid,
            HTTPException: refuse_http,
            Exception: refuse_unexpected,
        }
    )
    app.include_router(router)
    app.state.container = SimpleNamespace(**{target: lambda: service})
    app.state.allowed = allowed
    keys = OwnKeys(signer.jwks)
    services = ServiceVerifier(dict.fromkeys(callers, keys), {target}, now)
    nobody = People(Verifier(lambda: {"keys": []}, "", "", now), OwnKeys(lambda: {"keys": []}))
    identities = Identities(lambda: nobody, lambda: services)
    return Front(app, MANNERS, identities, Limits("off", RedisClient(None)))


@asynccontextmanager
async def at_the_end_of_the_wire(
    target: str, router: APIRouter, service: Any, remote: type[Any]
) -> AsyncIterator[Any]:
    """The contract as orders calls it when its provider is in another deployment."""
    signer = ServiceSigner(generate_key(), now)
    front = serving(target, router, service, signer)
    transport = httpx2.ASGITransport(front, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://neighbour") as http:
        yield remote(Wire("orders", target, http, signer, now, PATIENT))


def guard_of(target: str, table: Mapping[str, Any] | None = None) -> Guard:
    """The caller's side, as the container wires it."""
    return Guard("orders", target, AllowList(table) if table else ALLOWED, Errands(), now, 5)
