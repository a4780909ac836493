"""Application factory: mounts, opens and closes what the settings serve."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

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
from markethall.shared.call import Call
from markethall.shared.errors import Refusal
from markethall.shared.front import Front, Identities, Manners
from markethall.shared.graceful_shutdown import drain_on_signal
from markethall.shared.http import refuse, refuse_http, refuse_invalid, refuse_unexpected
from markethall.shared.metrics import INFO
from markethall.shared.openapi import completing
from markethall.shared.response_cache import ResponseCacheMiddleware
from markethall.system import Readiness, system_router
from markethall.topology import OWNERS, Context
from markethall.users.contract import EmailTaken

log = structlog.get_logger("markethall.app")

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


class Gateway:
    """The ASGI application: the gateway middleware and the response cache around FastAPI.

    They are not FastAPI's own middleware, which would cost each request a tenth of a cached read.
    """

    def __init__(self, settings: Settings, container: Container) -> None:
        self.settings = settings
        self.container = container
        self.readiness = Readiness(settings, container)
        self.app = _build_fastapi(settings, _lifespan_of(self))
        self.app.state.container = container
        self.app.state.settings = settings
        self.app.state.readiness = self.readiness
        self.app.state.allowed = container.allowed()
        self._middleware = self._build_middleware()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._middleware(scope, receive, send)

    def lifespan(self) -> AbstractAsyncContextManager[Any]:
        """Runs start-up and shutdown, for whatever has no ASGI server to do it."""
        return self.app.router.lifespan_context(self.app)

    def reset(self) -> None:
        """Replaces what a lifespan has closed or bound to its event loop, for the next lifespan.

        Data in memory storage is lost, as at the end of a process.
        """
        self.container.reset_singletons()
        self._middleware = self._build_middleware()

    def _build_middleware(self) -> ASGIApp:
        container, ttl_seconds = self.container, self.settings.response_cache_ttl_seconds
        inner: ASGIApp = self.app
        if self.settings.cache == "on" and ttl_seconds:
            inner = ResponseCacheMiddleware(inner, ttl_seconds)
        verifiers = Identities(container.people, container.services)
        return Front(inner, _gateway_config(self.settings), verifiers, container.limits())


def create_app(settings: Settings) -> Gateway:
    """Creates the application of the contexts that the settings serve. Opens nothing yet."""
    return Gateway(settings, build_container(settings, read_keys(settings)))


def _build_fastapi(settings: Settings, lifespan: Lifespan[FastAPI]) -> FastAPI:
    app = FastAPI(
        title="Markethall",
        version=__version__,
        summary="A commerce backend: users, inventory, orders and payments.",
        description=DESCRIPTION,
        lifespan=lifespan,
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


def _gateway_config(settings: Settings) -> Manners:
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


def _lifespan_of(gateway: Gateway) -> Lifespan[FastAPI]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        """Opens in order, and closes in the reverse order: pools, first admin, background work."""
        container, settings = gateway.container, gateway.settings
        async with AsyncExitStack() as stack:
            stack.callback(gateway.reset)
            stack.callback(container.passwords().close)
            stack.push_async_callback(container.pools().close)
            stack.push_async_callback(container.redis().close)
            stack.push_async_callback(container.broker().close)
            stack.push_async_callback(container.cache().close)
            stack.push_async_callback(container.clients().close)
            stack.push_async_callback(container.errands().finish, settings.deadline)
            await _first_admin(settings, container)
            await stack.enter_async_context(_background(container, settings))
            _log_startup(settings)
            with drain_on_signal(gateway.readiness, settings.drain_seconds):
                yield

    return lifespan


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


def _log_startup(settings: Settings) -> None:
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
