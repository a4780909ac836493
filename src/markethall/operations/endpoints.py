"""Endpoints about the process: health, readiness, metrics, counts, documentation, debugging."""

import hmac
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, create_model
from starlette.types import ASGIApp, Receive, Scope, Send

from markethall import __version__
from markethall.container import ApplicationContainer
from markethall.contexts import context_names, topology
from markethall.operations import swagger
from markethall.operations.integrity import IntegrityReport, SharedIntegrityReport
from markethall.operations.topology_report import describe_routes
from markethall.settings import Settings
from markethall.shared.http.problem_details import problems
from markethall.shared.http.route_policies import public, require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.circuit_breaker import MonotonicClock
from markethall.shared.kernel.errors import Forbidden, RouteNotFound, Unauthenticated, Unavailable
from markethall.shared.kernel.scopes import INTEGRITY_READ, STATS_READ
from markethall.shared.observability.metrics import REGISTRY

SNAPSHOT_TTL_SECONDS: Final = 1.0


def _render() -> bytes:
    return generate_latest(REGISTRY)


class MetricsSnapshot:
    """The metrics, rendered at most once a second: rendering blocks the event loop for some ms."""

    def __init__(
        self, render: Callable[[], bytes] = _render, clock: MonotonicClock = time.monotonic
    ) -> None:
        self._render = render
        self._clock = clock
        self._text = b""
        self._rendered_at = -SNAPSHOT_TTL_SECONDS

    def read(self) -> bytes:
        """Return the metrics in the text format of Prometheus, at most a second old."""
        now = self._clock()
        if now - self._rendered_at >= SNAPSHOT_TTL_SECONDS:
            self._text = self._render()
            self._rendered_at = now
        return self._text


METRICS_PATH: Final = "/metrics"


class MetricsPortMiddleware:
    """Serves /metrics on `port` only, and nothing else there.

    Raises RouteNotFound for /metrics on any other port, and for any other path on `port`.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_metrics = scope["type"] == "http" and scope["path"] == METRICS_PATH
        if scope["type"] == "http" and is_metrics != arrived_on(scope, self._port):
            raise RouteNotFound
        await self._app(scope, receive, send)


def arrived_on(scope: Scope, port: int | None) -> bool:
    """Tell whether the request arrived on this port of the server."""
    server = scope.get("server")
    return port is not None and server is not None and server[1] == port


log = structlog.get_logger("markethall.operations")

OPERATIONS_TAG: Final = "system"
_REPORTED_LIBRARIES: Final = ("fastapi", "pydantic", "sqlalchemy", "asyncpg", "redis", "uvicorn")

# the share of the request deadline in which the checks have to finish
_INTEGRITY_TIME_SHARE: Final = 0.8


class NotReady(Unavailable):
    """A dependency is not available. Details: `failing`, the names of all such dependencies."""

    code = "system.not_ready"
    title = "This process is not ready"


class Health(BaseModel):
    status: str = "ok"


class Ready(BaseModel):
    status: str
    checks: dict[str, str]


class ContextLocationView(BaseModel):
    where: str
    storage: str | None
    remote: str | None


class Debug(BaseModel):
    version: str
    python: str
    environment: str
    contexts: dict[str, ContextLocationView]
    routes: list[str]
    cache: str
    libraries: dict[str, str]
    provoked_error: str


def operations_router(settings: Settings) -> APIRouter:
    router = APIRouter(tags=[OPERATIONS_TAG])
    add_probes(router)
    if settings.metrics != "off":
        add_metrics(router, settings)
    _add_stats(router)
    _add_integrity(router, settings)
    if settings.serves_docs:
        add_docs(router)
    if settings.debug:
        _add_debug(router)
    return router


def add_probes(router: APIRouter) -> None:
    @router.get("/health", summary="Is the process alive?")
    async def get_health(_: Annotated[CallContext, public()]) -> Health:
        """Respond without a request to another process."""
        return Health()

    @router.get("/ready", summary="Can it serve?", responses=problems(NotReady))
    async def get_readiness(request: Request, _: Annotated[CallContext, public()]) -> Ready:
        """Check each dependency that this process uses, and name those that fail."""
        checks = await request.app.state.readiness.check()
        failing = sorted(name for name, state in checks.items() if state != "ok")
        if failing:
            reasons = "; ".join(f"{name}: {checks[name]}" for name in failing)
            raise NotReady(f"Failing: {reasons}.", failing=failing)
        return Ready(status="ready", checks=checks)


def add_metrics(router: APIRouter, settings: Settings) -> None:
    snapshot = MetricsSnapshot()
    token = settings.metrics_token.get_secret_value()

    @router.get(
        METRICS_PATH,
        summary="Prometheus metrics",
        include_in_schema=settings.metrics_port is None,
        response_class=Response,
        responses=problems(Unauthenticated),
    )
    async def get_metrics(request: Request, _: Annotated[CallContext, public()]) -> Response:
        """Return the metrics, at most a second old."""
        header = request.headers.get("authorization", "")
        if token and not hmac.compare_digest(header.encode(), f"Bearer {token}".encode()):
            raise Unauthenticated(reason="invalid" if header else "missing")
        return Response(snapshot.read(), media_type=CONTENT_TYPE_LATEST)


def _add_stats(router: APIRouter) -> None:
    @router.get(
        "/stats",
        summary="Counts",
        responses=problems(Unauthenticated, Forbidden, Unavailable),
        response_model=_stats_model(),
    )
    async def get_stats(
        request: Request, _: Annotated[CallContext, require_scope(STATS_READ)]
    ) -> Mapping[str, int]:
        """Count the entities in the contexts of this process, such as users and orders."""
        container: ApplicationContainer = request.app.state.container
        return {
            name: await count()
            for context in container.contexts.values()
            for name, count in context.counters().items()
        }


def _add_integrity(router: APIRouter, settings: Settings) -> None:
    reports = SharedIntegrityReport(_INTEGRITY_TIME_SHARE * settings.request_deadline_seconds)

    @router.get(
        "/integrity",
        summary="Check the integrity of the data",
        responses=problems(Unauthenticated, Forbidden, Unavailable),
    )
    async def get_integrity(
        request: Request, _: Annotated[CallContext, require_scope(INTEGRITY_READ)]
    ) -> IntegrityReport:
        """Check the contexts that this process serves, and list the rows that break a rule.

        Concurrent requests share one run; a report is reused for a few seconds. A check for which
        there is no time left is `not_checked`: `markethall doctor` has more time.
        """
        return await reports.get(request.app.state.container)


def _stats_model() -> type[BaseModel]:
    """Return a Pydantic model with a field for each counter of the installed contexts."""
    names = [name for manifest in topology().manifests for name in manifest.counters]
    fields: dict[str, Any] = dict.fromkeys(names, (int | None, None))
    return create_model(
        "Stats",
        __doc__="Counts of the contexts that this process serves; the others are null.",
        **fields,
    )


def add_docs(router: APIRouter) -> None:
    """Add the documentation page and its files, so that a browser needs no other host."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Markethall",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon-32x32.png",
        swagger_ui_parameters={"persistAuthorization": True, "validatorUrl": None},
    )

    @router.get("/docs", include_in_schema=False)
    async def docs(_: Annotated[CallContext, public()]) -> Response:
        return page

    @router.get("/docs/{name}", include_in_schema=False)
    async def docs_file(name: str, _: Annotated[CallContext, public()]) -> Response:
        if name not in swagger.FILES:
            raise RouteNotFound
        headers = {"cache-control": "public, max-age=86400"}
        return Response(swagger.read(name), media_type=swagger.FILES[name], headers=headers)


def _add_debug(router: APIRouter) -> None:
    @router.get("/debug", include_in_schema=False)
    async def debug(request: Request, ctx: Annotated[CallContext, public()]) -> Debug:
        settings: Settings = request.app.state.settings
        return Debug(
            version=__version__,
            python=platform.python_version(),
            environment=settings.environment,
            contexts={context: _location_of(settings, context) for context in context_names()},
            routes=[
                f"{w.source} -> {w.target}: {w.kind} {w.transport}"
                for w in describe_routes(settings)
            ],
            cache="redis" if settings.redis_url.get_secret_value() else "process",
            libraries={name: version(name) for name in _REPORTED_LIBRARIES},
            provoked_error=_provoke_error(ctx),
        )


def _location_of(settings: Settings, context: str) -> ContextLocationView:
    is_local = context in settings.contexts
    return ContextLocationView(
        where=settings.mode(context),
        storage=settings.storage if is_local else None,
        remote=None if is_local else settings.context_urls.get(context),
    )


def _provoke_error(ctx: CallContext) -> str:
    """Log an exception, so that an operator can see how errors are logged."""
    try:
        return str(1 // 0)
    except ZeroDivisionError as error:
        log.exception("debug.error_provoked", request_id=ctx.request_id)
        return repr(error)
