"""The front door: one pure ASGI layer that every request passes, whatever it asks for.

It gives the request its id, reads and bounds its head and body, finds out who asks, applies the
rate limits, turns every failure into problem+json, and writes one access line and the metrics.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from typing import Final
from unicodedata import normalize
from urllib.parse import parse_qsl

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from markethall.shared.bodies import Streamed, check_json, checked_form, read_body
from markethall.shared.errors import (
    Internal,
    Refusal,
    RequestTimeout,
    TooLarge,
    TooManyRequests,
    UnsupportedMediaType,
)
from markethall.shared.http import problem
from markethall.shared.limits import Limits
from markethall.shared.log import LONGEST_PATH, access, agent_text, clean_text
from markethall.shared.metrics import IN_FLIGHT, latency_of, requests_of
from markethall.shared.visit import Verifies, VerifiesServices, Visit

log = structlog.get_logger("markethall.front")

_JSON_TYPE: Final = re.compile(
    rb"application/(?:json|[a-z.-]+\+json)\s*(?:;\s*charset=\"?utf-?8\"?\s*)?", re.IGNORECASE
)
_FORM_TYPE: Final = re.compile(
    rb"application/x-www-form-urlencoded\s*(?:;\s*charset=\"?utf-?8\"?\s*)?", re.IGNORECASE
)
_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True)
class Identities:
    """Who may come in by the public door, and who by the inner one."""

    people: Callable[[], Verifies]
    services: Callable[[], VerifiesServices] | None = None


@dataclass(frozen=True)
class Manners:
    """What the front needs to know of the application behind it."""

    body_limit: int
    body_timeout: float
    trusted_proxies: tuple[str, ...]
    # first segment of a path -> context, for the access line
    owners: Mapping[str, str]
    # how long a request may wait for neighbours
    deadline: timedelta = timedelta(seconds=5)
    forms: frozenset[str] = field(default=frozenset())
    # paths whose bodies are read as they come, by their routes: how many bytes they may have
    streams: Mapping[str, int] = field(default_factory=dict)
    # for probes and scrapers: no rate limit
    unlimited: frozenset[str] = field(default=frozenset())


class Front:
    def __init__(
        self,
        app: ASGIApp,
        manners: Manners,
        identities: Identities,
        limits: Limits,
    ) -> None:
        self._app = app
        self._manners = manners
        self._identities = identities
        self._limits = limits
        self._proxies = tuple(ip_network(net, strict=False) for net in manners.trusted_proxies)
        self.in_flight = 0
        IN_FLIGHT.set_function(lambda: self.in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = Visit(scope, self._proxies)
        self.in_flight += 1
        try:
            await self._answer(visit, receive, visit.watching(send))
        finally:
            self.in_flight -= 1
            self._tell(visit)

    async def _answer(self, visit: Visit, receive: Receive, send: Send) -> None:
        try:
            visit.read_head()
            if visit.internal:
                await visit.identify(self._identities.services)
            else:
                await visit.authenticate(self._identities.people, self._manners.deadline)
            # before the body: one that is refused counts too, and is not read for whoever is over
            limited = self._limits.on and not visit.internal
            if limited:
                await self._limit(visit)
            if visit.method == "POST" and (limit := self._streams(visit)):
                await self._app(visit.scope, self._streamed(visit, receive, limit), send)
                return
            body = b""
            if visit.method in _WITH_BODY:
                body = await self._body(visit, receive)
                if limited and (account := _account(visit.scope, body)):
                    await self._limit(visit, account)
            await self._app(visit.scope, _replaying(body, receive), send)
        except Refusal as refusal:
            await self._refuse(visit, refusal, receive, send)
        except Exception as error:  # the last net: never a bare 500
            log.exception(
                "request.failed",
                request_id=visit.request_id,
                method=visit.method,
                path=visit.scope["path"],
                error=type(error).__name__,
            )
            await self._refuse(visit, Internal(error_id=visit.request_id), receive, send)

    async def _refuse(self, visit: Visit, refusal: Refusal, receive: Receive, send: Send) -> None:
        if visit.status == 0:
            await problem(visit.scope, refusal)(visit.scope, receive, send)

    async def _body(self, visit: Visit, receive: Receive) -> bytes:
        """The whole body, within its limits of size and time, and of the type that is due."""
        limit = self._manners.body_limit
        if visit.content_length > limit:
            raise TooLarge(limit=limit)
        try:
            async with asyncio.timeout(self._manners.body_timeout):
                body = await read_body(receive, limit)
        except TimeoutError:
            # who sends so slowly would hold the connection for as long as they like
            visit.extra_headers.append((b"connection", b"close"))
            raise RequestTimeout from None
        return self._checked(visit, body) if body else body

    def _streams(self, visit: Visit) -> int | None:
        return self._manners.streams.get(visit.scope["path"].rstrip("/"))

    def _streamed(self, visit: Visit, receive: Receive, limit: int) -> Receive:
        """Raises TooLarge."""
        if visit.content_length > limit:
            raise TooLarge(limit=limit)

        def close() -> None:
            visit.extra_headers.append((b"connection", b"close"))

        return Streamed(receive, limit, self._manners.body_timeout, close)

    def _checked(self, visit: Visit, body: bytes) -> bytes:
        kind = visit.header(b"content-type")
        if visit.scope["path"].rstrip("/") in self._manners.forms:
            if not _FORM_TYPE.fullmatch(kind):
                raise UnsupportedMediaType(supported=["application/x-www-form-urlencoded"])
            return checked_form(body)
        if not _JSON_TYPE.fullmatch(kind):
            raise UnsupportedMediaType(supported=["application/json"])
        check_json(body)
        return body

    async def _limit(self, visit: Visit, account: str = "") -> None:
        scope = visit.scope
        if scope["path"] in self._manners.unlimited:
            return
        who = f"user:{visit.actor.user_id}" if visit.actor.user_id else f"ip:{visit.client_ip}"
        verdict = await self._limits.check(
            scope["method"], scope["path"].rstrip("/"), who, visit.client_ip, account
        )
        if verdict is None:
            return
        visit.limit_headers = verdict.headers
        if not verdict.allowed:
            raise TooManyRequests(policy=verdict.policy, retry_after=verdict.retry_after)

    def _tell(self, visit: Visit) -> None:
        seconds = time.perf_counter() - visit.started
        scope = visit.scope
        route = visit.route()
        method = visit.method if visit.method in _METHODS else "other"
        requests_of(method, route, visit.status).inc()
        latency_of(route).observe(seconds)
        access.write(
            method=visit.method,
            path=clean_text(scope["path"][:LONGEST_PATH]),
            status=visit.status,
            duration_ms=round(seconds * 1000, 3),
            client_ip=visit.client_ip,
            user_agent=agent_text(visit.header(b"user-agent")[:200]),
            request_id=visit.request_id,
            user_id=str(visit.actor.user_id) if visit.actor.user_id else None,
            context=visit.owner(self._manners.owners),
            **visit.travelled(),
        )


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Hands the body on that was read already, then whatever comes after it."""
    done = False

    async def replay() -> Message:
        nonlocal done
        if done:
            return await receive()
        done = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _account(scope: Scope, body: bytes) -> str:
    """The account that a login is for, so that one account cannot be guessed from many places."""
    if scope["path"].rstrip("/") != "/token" or scope["method"] != "POST":
        return ""
    name = dict(parse_qsl(body.decode())).get("username", "")[:1000]
    # the same for all ways to write the same name, or each of them would have a limit of its own
    return normalize("NFKC", normalize("NFKC", name).casefold())[:320]
