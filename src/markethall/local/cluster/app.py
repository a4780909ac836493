"""What people see of four services: their paths on one address, and one answer to each question
that every process has an answer of its own to.

`/ready` is the readiness of all, `/stats` and `/openapi.json` are put together, `/debug` says who
runs where. `/health` and `/metrics` are the front's own: ask the services for theirs.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

import httpx2
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from markethall import __version__
from markethall.apart.relay import Relay
from markethall.settings import Settings
from markethall.shared.auth import anyone
from markethall.shared.call import Actor, Call
from markethall.shared.errors import Refusal, Unauthenticated
from markethall.shared.front import Front, Identities, Manners
from markethall.shared.http import refuse, refuse_http, refuse_invalid, refuse_unexpected
from markethall.shared.limits import Limits
from markethall.shared.metrics import REGISTRY
from markethall.shared.redis import RedisClient
from markethall.system import Health, NotReady, Ready, Stats, add_docs
from markethall.topology import OWNERS, Context

# seconds to wait for a service that is asked on behalf of all four
_PATIENCE: Final = 5.0
# of a service's answer, what goes on to the client when it is passed through as it is
_TOLD: Final = frozenset({"content-type", "www-authenticate", "retry-after"})
_PASSED: Final = frozenset({b"authorization", b"traceparent"})


class Seat(BaseModel):
    """Where a service runs. `starts` counts: more than one means that it has died."""

    at: str
    pid: int | None
    starts: int


class Seats(Protocol):
    def seats(self) -> Mapping[Context, Seat]:
        """Who runs where at this moment."""


class Whereabouts(BaseModel):
    version: str
    environment: str
    services: dict[Context, Seat]


@dataclass
class Readiness:
    """Set by the server that is told to end."""

    draining: bool = False


class ApartFront(FastAPI):
    """Passes on what belongs to a service, and answers for all of them what belongs to none."""

    def open(self, settings: Settings, relay: Relay) -> None:
        self.relay = relay
        limits = Limits("off", RedisClient(None))
        manners = Manners(
            body_limit=settings.body_limit,
            body_timeout=settings.body_timeout,
            trusted_proxies=settings.trusted_proxies,
            owners=OWNERS,
        )
        self.own = Front(super().__call__, manners, Identities(Strangers), limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner = owner_of(scope["path"]) if scope["type"] == "http" else None
        if owner:
            await self.relay.pass_on(owner, scope, receive, send)
        else:
            await self.own(scope, receive, send)


class Strangers:
    """The front knows nobody: a token is looked at by the service that it is for."""

    async def verify(self, token: str) -> Actor:  # noqa: ARG002 - a Verifies
        """Raises Unauthenticated."""
        raise Unauthenticated(reason="unknown")


def owner_of(path: str) -> Context | None:
    """Whose path it is: the first segment decides, decoded, as the services see it.

    A path that climbs belongs to nobody: not everybody would agree on where it leads.
    """
    segments = path.split("/")
    if {".", ".."} & set(segments) or len(segments) < 2 or segments[0]:  # noqa: PLR2004 - "", first
        return None
    return OWNERS.get(segments[1])


def create_front(
    settings: Settings,
    relay: Relay,
    seats: Seats,
    running: Callable[[], AbstractAsyncContextManager[None]],
) -> ApartFront:
    """`running` is entered when the front opens, and left when it closes."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with running():
                yield
        finally:
            await relay.close()

    app = ApartFront(
        lifespan=lifespan,
        openapi_url=None,
        exception_handlers={
            Refusal: refuse,
            RequestValidationError: refuse_invalid,
            HTTPException: refuse_http,
            Exception: refuse_unexpected,
        },
    )
    app.open(settings, relay)
    app.state.readiness = Readiness()
    app.include_router(_router(settings, relay, seats))
    return app


def _router(settings: Settings, relay: Relay, seats: Seats) -> APIRouter:
    router = APIRouter()
    _add_probes(router, relay)
    _add_stats(router, relay)
    if settings.shows_docs:
        add_docs(router)
        _add_document(router, relay)
    if settings.debug:
        _add_debug(router, settings, seats)
    return router


def _add_probes(router: APIRouter, relay: Relay) -> None:
    @router.get("/health")
    async def health(_: Annotated[Call, anyone()]) -> Health:
        return Health()

    @router.get("/ready")
    async def is_ready(request: Request, _: Annotated[Call, anyone()]) -> Ready:
        states = await asyncio.gather(*(relay.state_of(context) for context in Context))
        checks = dict(zip((context.value for context in Context), states, strict=True))
        if request.app.state.readiness.draining:
            checks["shutdown"] = "draining"
        failing = sorted(name for name, state in checks.items() if state != "ok")
        if failing:
            raise NotReady(f"Failing: {', '.join(failing)}.", failing=failing)
        return Ready(status="ready", checks=checks)

    @router.get("/metrics")
    async def metrics(_: Annotated[Call, anyone()]) -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _add_stats(router: APIRouter, relay: Relay) -> None:
    @router.get("/stats", response_model=Stats)
    async def stats(request: Request, call: Annotated[Call, anyone()]) -> Any:
        """Each service is asked with the caller's own token, and may refuse."""
        answers = await _ask_all(relay, "/stats", _said_by(request, call))
        if refused := _first_refused(answers):
            return _passed_through(refused)
        counts = [answer.json() for answer in answers]
        known = {name: n for count in counts for name, n in count.items() if n is not None}
        return Stats(**known)


def _said_by(request: Request, call: Call) -> list[tuple[bytes, bytes]]:
    passed = [item for item in request.scope["headers"] if item[0] in _PASSED]
    who = request.scope["state"]["client_ip"].encode()
    return [
        *passed,
        (b"x-request-id", call.request_id.encode()),
        (b"x-forwarded-for", who),
    ]


async def _ask_all(
    relay: Relay, path: str, headers: Sequence[tuple[bytes, bytes]] = ()
) -> list[httpx2.Response]:
    """One after the other by name. Raises Unavailable where one of them is away."""
    asked = (relay.ask(context, path, headers, _PATIENCE) for context in sorted(Context))
    return await asyncio.gather(*asked)


def _first_refused(answers: Sequence[httpx2.Response]) -> httpx2.Response | None:
    return next((answer for answer in answers if not answer.is_success), None)


def _passed_through(answer: httpx2.Response) -> Response:
    headers = {name: value for name, value in answer.headers.items() if name in _TOLD}
    return Response(answer.content, answer.status_code, headers)


def _add_document(router: APIRouter, relay: Relay) -> None:
    @router.get("/openapi.json", response_model=None)
    async def document(_: Annotated[Call, anyone()]) -> dict[str, Any] | Response:
        answers = await _ask_all(relay, "/openapi.json")
        if refused := _first_refused(answers):
            return _passed_through(refused)
        return merged([answer.json() for answer in answers])


def merged(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One OpenAPI document of several: what two of them have is the same in both."""
    whole = deepcopy(documents[0])
    for document in documents[1:]:
        whole["paths"].update(document["paths"])
        for kind, components in document["components"].items():
            whole["components"].setdefault(kind, {}).update(components)
    return whole


def _add_debug(router: APIRouter, settings: Settings, seats: Seats) -> None:
    @router.get("/debug")
    async def debug(_: Annotated[Call, anyone()]) -> Whereabouts:
        return Whereabouts(
            version=__version__,
            environment=settings.environment,
            services=dict(seats.seats()),
        )
