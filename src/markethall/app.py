"""The application factory: mounts the routes of the served contexts, and runs their lifecycle."""

import asyncio
import warnings
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from copy import copy
from datetime import timedelta
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic.warnings import UnsupportedFieldAttributeWarning
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from markethall import __version__
from markethall.container import ApplicationContainer
from markethall.contexts import context_names, topology
from markethall.event_workers import build_event_workers
from markethall.graceful_shutdown import drain_on_signal
from markethall.operations.endpoints import (
    METRICS_PATH,
    OPERATIONS_TAG,
    MetricsPortMiddleware,
    operations_router,
)
from markethall.operations.readiness import Readiness
from markethall.process_container import SERVICES_JWKS_PATH
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import Settings
from markethall.settings.validation import lax_settings
from markethall.shared.composition.settings import SettingsError
from markethall.shared.http.admission import AdmissionLimits, AdmissionMiddleware
from markethall.shared.http.cors import cors_policy
from markethall.shared.http.gateway import GatewayMiddleware, TokenVerifiers
from markethall.shared.http.gateway_config import GatewayConfig
from markethall.shared.http.openapi import extend_openapi
from markethall.shared.http.problem_details import (
    http_exception_handler,
    problem_handler,
    unexpected_handler,
    validation_handler,
)
from markethall.shared.http.request_body import BodyBudget
from markethall.shared.http.response_cache import ResponseCacheMiddleware
from markethall.shared.http.route_index import RouteIndex
from markethall.shared.http.route_policies import public
from markethall.shared.http.tracing_middleware import TracingMiddleware
from markethall.shared.http.work_kinds import WorkKinds
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.wait_budget import MAX_WAIT_SECONDS
from markethall.shared.observability.error_reports import ErrorReportsError, error_reports
from markethall.shared.observability.log import access_log
from markethall.shared.observability.metrics import CONTEXT_INFO
from markethall.shared.observability.opentelemetry import TracingError, tracing
from markethall.shared.persistence.redis_client import monitor_redis

log = structlog.get_logger("markethall.app")

DESCRIPTION: Final = """
Errors are problem details (RFC 9457) with a stable `code`. Money is in integer minor units.
Lists are pages with a `next_cursor`. A `POST` takes an `Idempotency-Key`; where money or stock
moves it needs one.

To try it here: `POST /users`, then **Authorize** with that name and password.
"""

# paths without rate limits and admission control: probes, metrics and the public keys of services
_UNLIMITED_PATHS: Final = frozenset({"/health", "/ready", METRICS_PATH, SERVICES_JWKS_PATH})


class Gateway:
    """The ASGI application: the gateway middleware and the response cache around FastAPI.

    Both wrap FastAPI from outside. With `add_middleware`, a read from the response cache would be
    10 % slower.
    """

    def __init__(
        self, settings: Settings, build_container: Callable[[], ApplicationContainer]
    ) -> None:
        self.settings = settings
        self._build_container = build_container
        self.app = _build_fastapi(settings, _lifespan_of(self))
        self.app.state.settings = settings
        self.reset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._entry(scope, receive, send)

    @property
    def body_budget(self) -> BodyBudget:
        return self._middleware.body_budget

    def lifespan(self) -> AbstractAsyncContextManager[Any]:
        """Run start-up and shutdown, for callers without an ASGI server, such as tests."""
        return self.app.router.lifespan_context(self.app)

    def reset(self) -> None:
        """Build a new container, because a closed one cannot be used on another event loop.

        Data in memory storage is lost.
        """
        self.container = self._build_container()
        self.readiness = Readiness(self.settings, self.container)
        state = self.app.state
        state.container = self.container
        state.contexts = self.container.contexts
        state.readiness = self.readiness
        state.allow_list = self.container.process.allow_list()
        self._middleware = self._build_middleware()
        self._entry = TracingMiddleware(self._middleware) if tracing.is_on else self._middleware

    def _build_middleware(self) -> GatewayMiddleware:
        container, ttl_seconds = self.container, self.settings.response_cache_ttl_seconds
        admission = _admission(self.app, self.settings)
        inner: ASGIApp = admission
        if self.settings.cache == "on" and ttl_seconds:
            inner = ResponseCacheMiddleware(inner, ttl_seconds)
        if self.settings.metrics_port is not None:
            inner = MetricsPortMiddleware(inner, self.settings.metrics_port)
        verifiers = TokenVerifiers(
            container.process.user_token_verifier, container.process.service_token_verifier
        )
        return GatewayMiddleware(
            inner,
            _gateway_config(self.settings),
            verifiers,
            container.process.rate_limiter(),
            admission.refuse_if_full,
            cors_policy(self.settings.cors_origins, self.app.routes),
        )


def create_app(settings: Settings) -> Gateway:
    """Create the application. It opens no connection before its lifespan starts."""
    # FastAPI ignores this warning while it adds a route, but the model of a body is built later
    warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)
    application_secrets = load_or_create_secrets(settings)
    try:
        tracing.start(_service_name(settings))
        error_reports.start(__version__)
    except (TracingError, ErrorReportsError) as error:
        raise SettingsError([str(error)]) from None
    return Gateway(settings, lambda: ApplicationContainer(settings, application_secrets))


def _service_name(settings: Settings) -> str:
    """Return the name in traces: that of the application, with the contexts if it is split."""
    if len(settings.contexts) == len(context_names()):
        return "markethall"
    return "-".join(["markethall", *sorted(settings.contexts)])


def _build_fastapi(settings: Settings, lifespan: Lifespan[FastAPI]) -> FastAPI:
    app = FastAPI(
        title="Markethall",
        version=__version__,
        summary="A commerce backend: users, inventory, orders and payments.",
        description=DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        # a relative URL, resolved against the URL of the document, because a process does not know
        # its public URL
        servers=[{"url": "/", "description": "This server"}],
        openapi_tags=_openapi_tags(settings),
        lifespan=lifespan,
        # off, because the gateway redirects a path with a trailing slash
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.serves_docs else None,
        # off, because TracingMiddleware records the whole request, and the logs are our own
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        exception_handlers={
            DomainError: problem_handler,
            RequestValidationError: validation_handler,
            HTTPException: http_exception_handler,
            Exception: unexpected_handler,
        },
    )
    _add_internal_api(app, settings)
    _add_routes(app, operations_router(settings))
    for context in sorted(settings.contexts):
        _add_routes(app, topology().contexts[context].load_parts().router)
    app.router.routes.insert(0, RouteIndex(app.router.routes))
    # FastAPI resolves included routes when they are first used, which takes half a second. This
    # line resolves them at start-up, so that the first request does not wait.
    list(iter_route_contexts(app.routes))
    # FastAPI documents this way to extend the OpenAPI document
    app.openapi = extend_openapi(app, shares_errors=True)  # type: ignore[method-assign]
    return app


def _openapi_tags(settings: Settings) -> list[dict[str, Any]]:
    contexts = [topology().contexts[name] for name in sorted(settings.contexts)]
    return [
        {"name": OPERATIONS_TAG, "description": "This process: health, metrics and counts."},
        *(
            {"name": name, "description": description}
            for context in contexts
            for name, description in context.tags.items()
        ),
    ]


def _add_internal_api(app: FastAPI, settings: Settings) -> None:
    for context in sorted(settings.contexts):
        internal_api = topology().contexts[context].load_parts().internal_api
        if internal_api and settings.remote_callers_of(context):
            _add_undocumented_routes(app, internal_api.routes.router)
    # Other processes fetch the public key of a context from any process that serves the context. So
    # every process with a service key publishes it, even if it makes no calls and sends no events.
    if (
        settings.has_remote_dependencies
        or settings.has_remote_subscribers
        or settings.service_token_private_key.get_secret_value()
    ):
        _add_undocumented_routes(app, _service_keys())


def _add_routes(app: FastAPI, router: APIRouter) -> None:
    """Add the routes of a router.

    `include_router` is not used, because FastAPI matches the path once more at every level of
    included routers. That would take half of the processor time of an uncached read.
    """
    for route in router.routes:
        if isinstance(route, APIRoute):
            # the name of the route's function, because generated clients use it as a method name
            route.operation_id = route.operation_id or route.name
    app.router.routes.extend(router.routes)


def _add_undocumented_routes(app: FastAPI, router: APIRouter) -> None:
    """Add the routes, without their part of the OpenAPI document."""
    for route in router.routes:
        # a copy, because the routes of the router are shared with other applications
        undocumented = copy(route)
        if isinstance(undocumented, APIRoute):
            undocumented.include_in_schema = False
        app.router.routes.append(undocumented)


def _service_keys() -> APIRouter:
    """Return a router with the public keys that verify the service tokens of this process."""
    router = APIRouter(tags=["internal"])

    @router.get(SERVICES_JWKS_PATH)
    async def keys(request: Request, _: Annotated[CallContext, public()]) -> Mapping[str, Any]:
        container: ApplicationContainer = request.app.state.container
        return container.process.service_signer().jwks()

    return router


def _gateway_config(settings: Settings) -> GatewayConfig:
    manifests = [topology().contexts[context] for context in settings.contexts]
    limits = [each.streaming_body_limits for each in settings.by_context.values()]
    return GatewayConfig(
        max_body_bytes=settings.max_body_bytes,
        max_body_bytes_in_flight=settings.max_body_bytes_in_flight,
        body_timeout_seconds=settings.body_timeout,
        trusted_proxies=settings.trusted_proxies,
        context_by_path=topology().context_by_path,
        request_deadline=timedelta(seconds=settings.request_deadline_seconds),
        form_paths=frozenset().union(*(manifest.form_paths for manifest in manifests)),
        streaming_body_limits=dict(ChainMap(*map(dict, limits))),
        rate_limit_exempt_paths=_UNLIMITED_PATHS,
        repeatable_parameters=dict(
            ChainMap(*(dict(manifest.repeatable_parameters) for manifest in manifests))
        ),
        work_kinds=_work_kinds(settings),
    )


def _admission(app: ASGIApp, settings: Settings) -> AdmissionMiddleware:
    limits = AdmissionLimits.for_pool(
        settings.database_pool_max,
        settings.max_concurrent_requests,
        settings.max_concurrent_requests_per_client if settings.rate_limits == "on" else None,
        max(MAX_WAIT_SECONDS, settings.database_timeout),
        min(settings.anonymous_statement_timeout_seconds, settings.database_timeout),
    )
    return AdmissionMiddleware(app, limits, _work_kinds(settings), _UNLIMITED_PATHS)


def _work_kinds(settings: Settings) -> WorkKinds:
    manifests = [topology().contexts[context] for context in settings.contexts]
    uploads = [each.streaming_body_limits for each in settings.by_context.values()]
    return WorkKinds(
        dict(ChainMap(*(dict(manifest.search_parameters) for manifest in manifests))),
        [path for manifest in manifests for path in manifest.long_paths],
        frozenset().union(*uploads),
        dict(ChainMap(*(dict(manifest.facet_parameters) for manifest in manifests))),
    )


def _lifespan_of(gateway: Gateway) -> Lifespan[FastAPI]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        container, settings = gateway.container, gateway.settings
        async with AsyncExitStack() as stack:
            stack.callback(gateway.reset)
            stack.callback(tracing.flush)
            stack.callback(error_reports.flush)
            stack.callback(access_log.flush)
            stack.push_async_callback(container.close)
            await container.start()
            await stack.enter_async_context(_background(container, settings))
            _log_startup(settings)
            with drain_on_signal(gateway.readiness, settings.drain_seconds, container.end_waits):
                yield

    return lifespan


@asynccontextmanager
async def _background(container: ApplicationContainer, settings: Settings) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(worker.run(), name=f"worker {worker.context}")
        for worker in build_event_workers(container, settings)
    ]
    if settings.redis_url.get_secret_value():
        # `broker` has a longer timeout than `redis`, so a slow answer does not count as an outage
        tasks.append(asyncio.create_task(monitor_redis(container.process.broker())))
    for context_container in container.contexts.values():
        tasks += [asyncio.create_task(run()) for run in context_container.background_tasks()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_startup(settings: Settings) -> None:
    for context in context_names():
        CONTEXT_INFO.labels(context, settings.mode(context), settings.storage).set(1)
    log.info(
        "app.started",
        version=__version__,
        contexts=sorted(settings.contexts),
        storage=settings.storage,
        cache="redis" if settings.redis_url.get_secret_value() else "process",
        environment=settings.environment,
    )
    for setting, effect in lax_settings(settings).items():
        log.warning("settings.lax", setting=setting, effect=effect)
    if settings.storage == "memory":
        log.warning("storage.not_persistent", note="nothing is kept when this process ends")
