"""The ASGI application: what is served is mounted, opened and closed here, and nowhere else."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

import markethall.inventory.remote
import markethall.inventory.router
import markethall.orders.router
import markethall.payments.remote
import markethall.payments.router
import markethall.users.remote
import markethall.users.router
from markethall import __version__
from markethall.background import stewards
from markethall.container import KEYS_OF_SERVICES, Container, build_container
from markethall.keys import read_keys
from markethall.settings import Settings
from markethall.shared.auth import anyone
from markethall.shared.cache import CoherentCache
from markethall.shared.call import Call
from markethall.shared.errors import Refusal
from markethall.shared.express import Express, Lane
from markethall.shared.front import Front, Identities, Manners
from markethall.shared.http import refuse, refuse_http, refuse_invalid, refuse_unexpected
from markethall.shared.metrics import INFO
from markethall.shared.openapi import completing
from markethall.shared.warm import Warm
from markethall.system import Readiness, system_router
from markethall.topology import OWNERS, Context
from markethall.users.contract import EmailTaken

log = structlog.get_logger("markethall.main")

ROUTERS: Final[Mapping[Context, APIRouter]] = {
    Context.USERS: markethall.users.router.router,
    Context.INVENTORY: markethall.inventory.router.router,
    Context.ORDERS: markethall.orders.router.router,
    Context.PAYMENTS: markethall.payments.router.router,
}

# what neighbours may call, mounted only where one of them is in another process
INTERNAL: Final[Mapping[Context, APIRouter]] = {
    Context.USERS: markethall.users.remote.router,
    Context.INVENTORY: markethall.inventory.remote.router,
    Context.PAYMENTS: markethall.payments.remote.router,
}

DESCRIPTION: Final = """
Errors are problem details (RFC 9457) with a stable `code`. Money is in integer minor units.
Lists are pages with a `next_cursor`. A `POST` takes an `Idempotency-Key`; where money or stock
moves it needs one.

To try it here: `POST /users`, then **Authorize** with that name and password.
"""


class Hall(FastAPI):
    """The framework, behind the front door and the express lane."""

    def open_front(self, settings: Settings, container: Container, lanes: Sequence[Lane]) -> None:
        # outside FastAPI's own middleware, which costs each request a tenth of a cached read
        # without lanes nothing is to be taken from where the lanes keep it
        warm = container.warm() if lanes else Warm(CoherentCache(enabled=False))
        express = Express(super().__call__, lanes, warm)
        self.front: ASGIApp = Front(
            express,
            _manners(settings),
            Identities(container.people, container.services),
            container.limits(),
            warm,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.front(scope, receive, send)


def create_app(settings: Settings) -> Hall:
    """One ASGI application for the contexts that the settings serve. Opens nothing yet."""
    container = build_container(settings, read_keys(settings))
    app = Hall(
        title="Markethall",
        version=__version__,
        summary="A commerce backend: users, inventory, orders and payments.",
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.shows_docs else None,
        exception_handlers={
            Refusal: refuse,
            RequestValidationError: refuse_invalid,
            HTTPException: refuse_http,
            Exception: refuse_unexpected,
        },
    )
    app.open_front(settings, container, _lanes(settings, container))
    app.state.container = container
    app.state.settings = settings
    app.state.readiness = Readiness(settings, container)
    app.state.allowed = container.allowed()
    app.include_router(system_router(settings))
    for context in sorted(settings.serve):
        app.include_router(ROUTERS[context])
        if settings.callers_of(context):
            app.include_router(INTERNAL[context], include_in_schema=False)
    # also before it calls anybody: who is asked first may ask any of us for the keys
    if settings.calls_out or settings.service_key.get_secret_value():
        app.include_router(_service_keys(), include_in_schema=False)
    # FastAPI resolves its routes at the first request otherwise, for half a second
    list(iter_route_contexts(app.routes))
    app.openapi = completing(app)  # type: ignore[method-assign]  # the documented way
    return app


def _service_keys() -> APIRouter:
    """The public keys of this process's service tokens: for its neighbours, and no secret."""
    router = APIRouter(tags=["internal"])

    @router.get(KEYS_OF_SERVICES)
    async def keys(request: Request, _: Annotated[Call, anyone()]) -> Mapping[str, Any]:
        container: Container = request.app.state.container
        return container.service_signer().jwks()

    return router


def _lanes(settings: Settings, container: Container) -> list[Lane]:
    if Context.INVENTORY not in settings.serve:
        return []
    return [markethall.inventory.router.express(container.catalogue, container.warm())]


def _manners(settings: Settings) -> Manners:
    return Manners(
        body_limit=settings.body_limit,
        body_timeout=settings.body_timeout,
        trusted_proxies=settings.trusted_proxies,
        owners=OWNERS,
        deadline=timedelta(seconds=settings.deadline),
        forms=frozenset({"/token", "/token/revoke"}),
        streams={"/imports": settings.import_limit},
        unlimited=frozenset({"/health", "/ready", "/metrics", KEYS_OF_SERVICES}),
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opened in order, closed in the reverse order: pools, first admin, background work."""
    container: Container = app.state.container
    settings: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        stack.callback(container.passwords().close)
        stack.push_async_callback(container.pools().close)
        stack.push_async_callback(container.redis().close)
        stack.push_async_callback(container.broker().close)
        stack.push_async_callback(container.cache().close)
        stack.push_async_callback(container.clients().close)
        stack.push_async_callback(container.errands().finish, settings.deadline)
        await _first_admin(settings, container)
        await stack.enter_async_context(_background(container, settings))
        _announce(settings)
        try:
            yield
        finally:
            app.state.readiness.draining = True


async def _first_admin(settings: Settings, container: Container) -> None:
    password = settings.admin_password.get_secret_value()
    if Context.USERS in settings.serve and settings.admin_email and password:
        try:
            await container.accounts().first_admin(settings.admin_email, password)
        except EmailTaken as refusal:
            # somebody has that address and is no admin: said aloud, and no reason not to serve
            log.warning("admin.refused", email=settings.admin_email, reason=refusal.detail)


@asynccontextmanager
async def _background(container: Container, settings: Settings) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(steward.run(), name=f"steward {steward.context}")
        for steward in stewards(container, settings)
    ]
    tasks.append(asyncio.create_task(container.cache().listen(), name="cache invalidations"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _announce(settings: Settings) -> None:
    for context in Context:
        INFO.labels(context.value, settings.mode(context), settings.storage).set(1)
    log.info(
        "hall.open",
        version=__version__,
        serve=sorted(settings.serve),
        storage=settings.storage,
        cache="redis" if settings.redis_url.get_secret_value() else "process",
        environment=settings.environment,
    )
    if settings.storage == "memory":
        log.warning("hall.memory", note="nothing is kept when this process ends")
