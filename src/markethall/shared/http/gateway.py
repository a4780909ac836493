"""The gateway: ASGI middleware around the whole application.

It assigns the request id, limits headers and body, authenticates, applies the rate limits, turns
every error into problem+json, and writes the access log and the metrics.
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

from markethall.shared.http.problem_details import problem_response
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.http.request_body import (
    LimitedBodyStream,
    normalize_form,
    read_body,
    validate_json,
)
from markethall.shared.http.request_context import (
    RequestContext,
    ServiceTokenVerifier,
    TokenVerifier,
)
from markethall.shared.kernel.errors import (
    BodyTooLarge,
    DomainError,
    InternalError,
    RequestTimeout,
    TooManyRequests,
    UnsupportedMediaType,
)
from markethall.shared.observability.log import MAX_PATH_LENGTH, access_log, redact, user_agent_text
from markethall.shared.observability.metrics import IN_FLIGHT, latency_histogram, request_counter

log = structlog.get_logger("markethall.gateway")

_JSON_TYPE: Final = re.compile(
    rb"application/(?:json|[a-z.-]+\+json)\s*(?:;\s*charset=\"?utf-?8\"?\s*)?", re.IGNORECASE
)
_FORM_TYPE: Final = re.compile(
    rb"application/x-www-form-urlencoded\s*(?:;\s*charset=\"?utf-?8\"?\s*)?", re.IGNORECASE
)
_KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True)
class TokenVerifiers:
    """Token verifiers of the public API and of the internal API."""

    user_tokens: Callable[[], TokenVerifier]
    service_tokens: Callable[[], ServiceTokenVerifier] | None = None


@dataclass(frozen=True)
class GatewayConfig:
    """Settings of the gateway."""

    max_body_bytes: int
    body_timeout_seconds: float
    trusted_proxies: tuple[str, ...]
    # first segment of a path -> context, for the access log
    context_by_path: Mapping[str, str]
    # the time that a request may take, including its calls to other contexts
    request_deadline: timedelta = timedelta(seconds=5)
    form_paths: frozenset[str] = field(default=frozenset())
    # path -> maximum of bytes; the routes of these paths stream the body
    streaming_body_limits: Mapping[str, int] = field(default_factory=dict)
    # paths of probes and scrapers
    rate_limit_exempt_paths: frozenset[str] = field(default=frozenset())


class GatewayMiddleware:
    def __init__(
        self,
        app: ASGIApp,
        config: GatewayConfig,
        verifiers: TokenVerifiers,
        rate_limiter: RateLimiter,
    ) -> None:
        self._app = app
        self._config = config
        self._verifiers = verifiers
        self._rate_limiter = rate_limiter
        self._trusted_networks = tuple(
            ip_network(net, strict=False) for net in config.trusted_proxies
        )
        self.in_flight = 0
        IN_FLIGHT.set_function(lambda: self.in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = RequestContext(scope, self._trusted_networks)
        self.in_flight += 1
        try:
            await self._handle(request, receive, request.wrap_send(send))
        finally:
            self.in_flight -= 1
            self._log_request(request)

    async def _handle(self, request: RequestContext, receive: Receive, send: Send) -> None:
        try:
            request.validate_headers()
            if request.is_internal:
                await request.authenticate_service(self._verifiers.service_tokens)
            else:
                await request.authenticate_user(
                    self._verifiers.user_tokens, self._config.request_deadline
                )
            # counted before the body is read, so that a client over its limit cannot upload and
            # an invalid body counts too
            is_rate_limited = self._rate_limiter.is_enabled and not request.is_internal
            if is_rate_limited:
                await self._apply_rate_limits(request)
            if request.method == "POST" and (limit := self._streaming_body_limit(request)):
                await self._app(
                    request.scope, self._streaming_receive(request, receive, limit), send
                )
                return
            body = b""
            if request.method in _METHODS_WITH_BODY:
                body = await self._read_body(request, receive)
                if is_rate_limited and (account := _login_account(request.scope, body)):
                    await self._apply_rate_limits(request, account)
            await self._app(request.scope, _replay_body(body, receive), send)
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

    async def _send_problem(
        self, request: RequestContext, error: DomainError, receive: Receive, send: Send
    ) -> None:
        if request.status == 0:
            await problem_response(request.scope, error)(request.scope, receive, send)

    async def _read_body(self, request: RequestContext, receive: Receive) -> bytes:
        """Read and validate the body. Raises BodyTooLarge, RequestTimeout, and parse errors."""
        limit = self._config.max_body_bytes
        if request.content_length > limit:
            raise BodyTooLarge(limit=limit)
        try:
            async with asyncio.timeout(self._config.body_timeout_seconds):
                body = await read_body(receive, limit)
        except TimeoutError:
            # a connection that stays open would have to read the rest of the slow body
            request.extra_headers.append((b"connection", b"close"))
            raise RequestTimeout from None
        return self._validate_body(request, body) if body else body

    def _streaming_body_limit(self, request: RequestContext) -> int | None:
        return self._config.streaming_body_limits.get(request.scope["path"].rstrip("/"))

    def _streaming_receive(self, request: RequestContext, receive: Receive, limit: int) -> Receive:
        """Raises BodyTooLarge."""
        if request.content_length > limit:
            raise BodyTooLarge(limit=limit)

        def close_connection() -> None:
            request.extra_headers.append((b"connection", b"close"))

        return LimitedBodyStream(
            receive, limit, self._config.body_timeout_seconds, close_connection
        )

    def _validate_body(self, request: RequestContext, body: bytes) -> bytes:
        content_type = request.header(b"content-type")
        if request.scope["path"].rstrip("/") in self._config.form_paths:
            if not _FORM_TYPE.fullmatch(content_type):
                raise UnsupportedMediaType(supported=["application/x-www-form-urlencoded"])
            return normalize_form(body)
        if not _JSON_TYPE.fullmatch(content_type):
            raise UnsupportedMediaType(supported=["application/json"])
        validate_json(body)
        return body

    async def _apply_rate_limits(self, request: RequestContext, account: str = "") -> None:
        scope = request.scope
        if scope["path"] in self._config.rate_limit_exempt_paths:
            return
        principal = (
            f"user:{request.actor.user_id}" if request.actor.user_id else f"ip:{request.client_ip}"
        )
        decision = await self._rate_limiter.check(
            scope["method"], scope["path"].rstrip("/"), principal, request.client_ip, account
        )
        if decision is None:
            return
        request.limit_headers = decision.headers
        if not decision.allowed:
            raise TooManyRequests(policy=decision.policy, retry_after=decision.retry_after)

    def _log_request(self, request: RequestContext) -> None:
        duration_seconds = time.perf_counter() - request.started
        scope = request.scope
        route = request.route_template()
        method = request.method if request.method in _KNOWN_METHODS else "other"
        request_counter(method, route, request.status).inc()
        latency_histogram(route).observe(duration_seconds)
        access_log.write(
            method=request.method,
            path=redact(scope["path"][:MAX_PATH_LENGTH]),
            status=request.status,
            duration_ms=round(duration_seconds * 1000, 3),
            client_ip=request.client_ip,
            user_agent=user_agent_text(request.header(b"user-agent")[:200]),
            request_id=request.request_id,
            user_id=str(request.actor.user_id) if request.actor.user_id else None,
            context=request.owning_context(self._config.context_by_path),
            **request.trace_fields(),
        )


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that first returns the body, then calls the given `receive`."""
    is_replayed = False

    async def replay() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _login_account(scope: Scope, body: bytes) -> str:
    """Return the username of a login request, or an empty string for other requests.

    Logins are limited per username too, so that an attacker cannot spread guesses over addresses.
    """
    if scope["path"].rstrip("/") != "/token" or scope["method"] != "POST":
        return ""
    username = dict(parse_qsl(body.decode())).get("username", "")[:1000]
    # normalized, because otherwise each spelling of one name would have a limit of its own
    return normalize("NFKC", normalize("NFKC", username).casefold())[:320]
