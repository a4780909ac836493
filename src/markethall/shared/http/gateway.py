"""The gateway: ASGI middleware around the whole application.

It assigns the request id, limits headers and body, authenticates, applies the rate limits, turns
every error into problem+json, and writes the access log and the metrics.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final
from urllib.parse import parse_qsl

import structlog
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from markethall.shared.http.body_reader import BodyReader
from markethall.shared.http.cors import CorsPolicy
from markethall.shared.http.gateway_config import GatewayConfig
from markethall.shared.http.problem_details import problem_response
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.http.request_body import BodyBudget
from markethall.shared.http.request_context import (
    RequestContext,
    ServiceTokenVerifier,
    TokenVerifier,
)
from markethall.shared.http.work_kinds import SEARCHES
from markethall.shared.kernel.errors import (
    DomainError,
    InternalError,
    TooManyRequests,
)
from markethall.shared.observability.log import (
    MAX_PATH_LENGTH,
    access_log,
    path_text,
    user_agent_text,
)
from markethall.shared.observability.metrics import IN_FLIGHT, latency_histogram, request_counter

log = structlog.get_logger("markethall.gateway")

_KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True)
class TokenVerifiers:
    """Token verifiers of the public API and of the internal API."""

    user_tokens: Callable[[], TokenVerifier]
    service_tokens: Callable[[], ServiceTokenVerifier] | None = None


class GatewayMiddleware:
    def __init__(
        self,
        app: ASGIApp,
        config: GatewayConfig,
        verifiers: TokenVerifiers,
        rate_limiter: RateLimiter,
        refuse_if_full: Callable[[Scope], None] = lambda _: None,
        cors: CorsPolicy | None = None,
    ) -> None:
        """`refuse_if_full` raises Overloaded for a request that `app` is too busy to accept."""
        self._cors = cors
        self._app = app
        self._refuse_if_full = refuse_if_full
        self._config = config
        self._verifiers = verifiers
        self._rate_limiter = rate_limiter
        self._trusted_networks = tuple(
            ip_network(net, strict=False) for net in config.trusted_proxies
        )
        self.body_budget = BodyBudget(config.max_body_bytes_in_flight)
        self.in_flight = 0
        IN_FLIGHT.set_function(lambda: self.in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = RequestContext(scope, self._trusted_networks, self._config.request_deadline)
        self.in_flight += 1
        try:
            await self._handle(request, receive, request.wrap_send(send))
        finally:
            self.in_flight -= 1
            self._log_request(request)
            request.end()

    async def _handle(self, request: RequestContext, receive: Receive, send: Send) -> None:
        try:
            if self._cors and (preflight := self._cors.apply(request)):
                # before all checks, because a page cannot read the reason of a rejected preflight
                await preflight(request.scope, receive, send)
                return
            request.validate_headers(self._config.repeatable_parameters)
            if location := request.canonical_location:
                # the rate limits count the request that follows the redirect, not the redirect
                await RedirectResponse(location)(request.scope, receive, send)
                return
            self._refuse_if_full(request.scope)
            if request.is_internal:
                await request.authenticate_service(self._verifiers.service_tokens)
            elif request.has_token:
                await request.authenticate_user(self._verifiers.user_tokens)
            request.offer_call_context()
            # The rate limits apply before the body is read. So a client over its limit cannot
            # upload, and a request with an invalid body counts too.
            if self._is_rate_limited(request):
                await self._apply_rate_limits(request)
            if request.method in _METHODS_WITH_BODY:
                await self._call_with_body(request, receive, send)
            else:
                await self._app(request.scope, receive, send)
        except DomainError as error:
            await self._send_problem(request, error, receive, send)
        except Exception as error:
            log.exception(
                "request.failed",
                request_id=request.request_id,
                method=request.method,
                path=request.scope["path"],
                error=type(error).__name__,
            )
            await self._send_problem(
                request, InternalError(error_id=request.request_id), receive, send
            )

    async def _call_with_body(self, request: RequestContext, receive: Receive, send: Send) -> None:
        async def limit_logins(body: bytes) -> None:
            if self._is_rate_limited(request) and _is_login(request.scope, body):
                await self._apply_rate_limits(request, is_login=True)

        body_reader = BodyReader(request, receive, self._config, self.body_budget, limit_logins)
        try:
            await self._app(request.scope, body_reader, send)
        finally:
            body_reader.close()

    def _is_rate_limited(self, request: RequestContext) -> bool:
        """Tell whether rate limits apply. They do not apply to requests with a service token."""
        return self._rate_limiter.is_enabled and not request.is_service

    async def _send_problem(
        self, request: RequestContext, error: DomainError, receive: Receive, send: Send
    ) -> None:
        if request.status == 0:
            await problem_response(request.scope, error)(request.scope, receive, send)

    async def _apply_rate_limits(self, request: RequestContext, *, is_login: bool = False) -> None:
        scope = request.scope
        if scope["path"] in self._config.rate_limit_exempt_paths:
            return
        decision = await self._rate_limiter.check(
            scope["method"],
            scope["path"].rstrip("/"),
            _principal_of(request),
            request.client_ip,
            is_login=is_login,
            is_search=self._config.work_kinds.kind_of(scope) in SEARCHES,
        )
        if decision is None:
            return
        request.limit_headers = decision.headers
        if not decision.allowed:
            raise TooManyRequests(policy=decision.policy, retry_after=decision.retry_after)

    def _log_request(self, request: RequestContext) -> None:
        duration_seconds = time.perf_counter() - request.started
        route = request.route_template()
        method = request.method if request.method in _KNOWN_METHODS else "other"
        request_counter(method, route, request.status).inc()
        latency_histogram(route).observe(duration_seconds)
        access_log.write(
            method=request.method,
            path=path_text(request.path[:MAX_PATH_LENGTH]),
            status=request.status,
            duration_ms=int(duration_seconds * 1_000_000) / 1000,
            client_ip=request.client_ip,
            user_agent=user_agent_text(request.header(b"user-agent")[:200]),
            request_id=request.request_id,
            user_id=str(request.actor.user_id) if request.actor.user_id else None,
            context=request.owning_context(self._config.context_by_path),
            **request.trace_fields(),
        )


def _principal_of(request: RequestContext) -> str:
    """Return the identity whose requests are limited. A guest counts as its network.

    Otherwise a client could multiply its limit, because it can create any number of guests.
    """
    actor = request.actor
    if actor.user_id and not actor.is_guest:
        return f"user:{actor.user_id}"
    return f"ip:{request.client_ip}"


def _is_login(scope: Scope, body: bytes) -> bool:
    """Tell whether the request is a login with a password, not the refresh of a token."""
    if scope["path"].rstrip("/") != "/token" or scope["method"] != "POST":
        return False
    return bool(dict(parse_qsl(body.decode())).get("username"))
