"""The state of one request in the gateway: request id, actor, trace, deadline and headers."""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote_to_bytes

import structlog
from starlette.types import Message, Scope, Send

from markethall.shared.http.card_number_check import check_head
from markethall.shared.http.client_ip import Networks, client_ip
from markethall.shared.http.route_policies import matched_route
from markethall.shared.kernel.call_context import DEADLINE_HEADER, Actor, CallContext
from markethall.shared.kernel.card_numbers import contains_card_number
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import (
    CardNumberRefused,
    HeadersTooLarge,
    RouteNotFound,
    Unauthenticated,
    Unavailable,
    ValidationFailed,
)
from markethall.shared.kernel.ids import new_request_id
from markethall.shared.observability.tracing import read_traceparent
from markethall.shared.security.service_tokens import ServiceIdentity

MAX_HEADER_BYTES: Final = 32 * 1024
MAX_QUERY_PARAMETERS: Final = 50

log = structlog.get_logger("markethall.security")

_ANONYMOUS: Final = Actor()
_NONE: Final[Mapping[str, frozenset[str]]] = MappingProxyType({})
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{8,128}")
_DEADLINE_HEADER: Final = DEADLINE_HEADER.encode()
_MAX_DEADLINE_MILLISECONDS: Final = 60_000
_MAX_TIME_LIMIT: Final = timedelta(milliseconds=_MAX_DEADLINE_MILLISECONDS)
_MAX_DEADLINE_DIGITS: Final = 7
# Longer numbers are ignored, because converting a very long one is slow, and one of more than 4300
# digits raises an error.
_MAX_CONTENT_LENGTH_DIGITS: Final = 19


class TokenVerifier(Protocol):
    async def verify(self, token: str) -> Actor:
        """Return the user. Raises Unauthenticated; Unavailable if the keys cannot be fetched."""


class ServiceTokenVerifier(Protocol):
    async def verify(self, token: str) -> ServiceIdentity:
        """Return the claims. Raises Unauthenticated; Unavailable if the keys cannot be fetched."""


class RequestContext:
    """One request in the gateway: id, actor and deadline, and headers to add to its response."""

    def __init__(
        self, scope: Scope, proxies: Networks, time_limit: timedelta = _MAX_TIME_LIMIT
    ) -> None:
        self.started = time.perf_counter()
        self._time_limit = time_limit
        self.method: str = scope["method"]
        # RFC 9110, section 9.3.2: HEAD is GET without the content of the response
        self.scope = {**scope, "method": "GET"} if self.method == "HEAD" else scope
        self.status = 0
        self.actor = _ANONYMOUS
        self.extra_headers: list[tuple[bytes, bytes]] = []
        self.limit_headers: list[tuple[bytes, bytes]] = []
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        request_id_header = self._headers.get(b"x-request-id", b"")
        self.request_id = _read_request_id(request_id_header) or new_request_id()
        self.client_ip = client_ip(self.scope, proxies)
        self.path: str = scope["path"]
        # only services may call the internal API, except its public keys, which anyone may read
        self.is_internal = self.path.startswith("/internal/") and self.path != "/internal/keys.json"
        self.state: dict[str, Any] = self.scope.setdefault("state", {})
        self.state["request_id"] = self.request_id
        # `scope` has the method GET instead
        self.state["is_head"] = self.method == "HEAD"
        self.state["client_ip"] = self.client_ip

    def header(self, name: bytes) -> bytes:
        return self._headers.get(name, b"")

    @property
    def has_token(self) -> bool:
        return b"authorization" in self._headers

    @property
    def content_length(self) -> int:
        text = self.header(b"content-length")
        return int(text) if text.isdigit() and len(text) <= _MAX_CONTENT_LENGTH_DIGITS else 0

    def validate_headers(self, repeatable_parameters: Mapping[str, frozenset[str]] = _NONE) -> None:
        """Check the size of the headers, the characters of the path, and the query.

        `repeatable_parameters`: see GatewayConfig.

        Raises HeadersTooLarge, RouteNotFound, ValidationFailed, CardNumberRefused.
        """
        size = sum(map(len, chain.from_iterable(self.scope["headers"])))
        if size > MAX_HEADER_BYTES:
            raise HeadersTooLarge(limit=MAX_HEADER_BYTES)
        if "\x00" in self.path or "�" in self.path:
            raise RouteNotFound
        query: bytes = self.scope["query_string"]
        if b"%00" in query:
            raise _query_invalid("nul", "must not contain NUL")
        if query.count(b"&") >= MAX_QUERY_PARAMETERS:
            raise _query_invalid(
                "too_many_parameters", f"must not have more than {MAX_QUERY_PARAMETERS} parameters"
            )
        # reject a repeated name: FastAPI would use its last value, a proxy or cache perhaps the
        # first
        if b"&" in query:
            repeatable = repeatable_parameters.get(self.path.rstrip("/"), frozenset())
            if name := _repeated_name(query, repeatable):
                raise _query_invalid("repeated", f"must not repeat {name}")
        try:
            check_head(self.path, query, self._headers)
        except CardNumberRefused as error:
            self.log_card_number(error)
            raise

    def log_card_number(self, error: CardNumberRefused) -> None:
        log.warning(
            "security.card_number_refused",
            actor=self.actor.audit_name,
            client_ip=self.client_ip,
            request_id=self.request_id,
            field=error.details["errors"][0]["field"],
        )

    @property
    def canonical_location(self) -> str | None:
        """Return the path without trailing slashes, with the query; None if no slash is trailing.

        The result has no scheme and host, because behind a proxy only the client knows them. For a
        path that begins with two slashes the result is None too: in the header Location, such a
        path would name another host.
        """
        if not self.path.endswith("/"):
            return None
        raw_path: bytes = self.scope.get("raw_path") or quote(self.path).encode()
        if not raw_path.endswith(b"/"):
            return None  # the slash is percent-encoded, so it is a part of a name
        location = raw_path.decode("latin-1").rstrip("/")
        if not location or location.startswith("//"):
            return None
        query: bytes = self.scope["query_string"]
        return f"{location}?{query.decode('latin-1')}" if query else location

    async def authenticate_user(self, get_verifier: Callable[[], TokenVerifier]) -> None:
        """Set the actor from the access token.

        An error is only stored, because public routes ignore it; other routes raise it.
        """
        header = self.header(b"authorization")
        if header:
            try:
                token = _bearer_token(header)
                self.actor = await get_verifier().verify(token)
                # for streams, which may last longer than the token is valid
                self.state["verify_again"] = lambda: get_verifier().verify(token)
            except (Unauthenticated, Unavailable) as error:
                self._reject_token("access", error)

    async def authenticate_service(
        self, get_verifier: Callable[[], ServiceTokenVerifier] | None
    ) -> None:
        """Set the calling service and the actor from the service token, and read the deadline.

        An error is only stored, as in `authenticate_user`.
        """
        header = self.header(b"authorization")
        if header and get_verifier:
            try:
                identity = await get_verifier().verify(_bearer_token(header))
                self.actor = identity.actor
                self.state["service_identity"] = identity
            except (Unauthenticated, Unavailable) as error:
                self._reject_token("service", error)
        deadline_header = self.header(_DEADLINE_HEADER)
        deadline_milliseconds = (
            int(deadline_header)
            if deadline_header.isdigit() and len(deadline_header) <= _MAX_DEADLINE_DIGITS
            else _MAX_DEADLINE_MILLISECONDS
        )
        self._time_limit = timedelta(
            milliseconds=min(deadline_milliseconds, _MAX_DEADLINE_MILLISECONDS)
        )

    def _reject_token(self, kind: str, error: Unauthenticated | Unavailable) -> None:
        self.state["authentication_error"] = error
        if isinstance(error, Unauthenticated):
            # the client sees the same error for all defects; the log names the defect
            defect = error.__context__
            log.warning(
                "security.token_rejected",
                actor=self.actor.audit_name,
                client_ip=self.client_ip,
                request_id=self.request_id,
                kind=kind,
                reason=error.details["reason"],
                defect=type(defect).__name__ if defect else None,
            )

    def offer_call_context(self) -> None:
        """Store a function that builds the call context if a route needs it.

        A cached response is sent without a call context.
        """
        self.state["actor"] = self.actor
        self.state["get_call_context"] = lambda: self._call_context

    def end(self) -> None:
        """Remove the objects that refer to this one from the state.

        Otherwise the objects of each request would stay in memory until the next garbage
        collection.
        """
        self.state.pop("get_call_context", None)
        self.state.pop("authentication_error", None)

    @cached_property
    def _call_context(self) -> CallContext:
        elapsed = timedelta(seconds=time.perf_counter() - self.started)
        return CallContext(
            actor=self.actor,
            request_id=self.request_id,
            # the peer of an internal request is another process, not the client
            client_ip="" if self.is_internal else self.client_ip,
            traceparent=self._traceparent,
            deadline=utc_now() + self._time_limit - elapsed,
        )

    @cached_property
    def _traceparent(self) -> str | None:
        header = self.header(b"traceparent")
        return read_traceparent(header.decode("latin-1")) if header else None

    def trace_fields(self) -> dict[str, str]:
        """Return the log fields that link this request to requests of other processes."""
        fields = {}
        if traceparent := self._traceparent:
            fields["trace_id"] = traceparent.split("-")[1]
        if service := self.state.get("service_identity"):
            fields["caller"] = service.caller
        return fields

    @property
    def is_service(self) -> bool:
        """Tell whether the request has a valid service token."""
        return "service_identity" in self.state

    def owning_context(self, context_by_path: Mapping[str, str]) -> str:
        """Return the context that serves this path, or "system".

        An internal path names its context in the second segment.
        """
        if self.is_internal:
            context = self.path.split("/")[2]
            return context if context in context_by_path.values() else "system"
        return context_by_path.get(_first_segment(self.path), "system")

    def wrap_send(self, send: Send) -> Send:
        """Return a `send` that records the status and adds the headers that all responses have.

        It also removes the body of a response to HEAD.
        """

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                message["headers"] = self._response_headers(message.get("headers", ()))
            elif self.method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        return send_with_headers

    def _response_headers(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        headers = list(given)
        if b"cache-control" not in dict(headers):
            headers.append((b"cache-control", b"no-store"))
        headers.append((b"x-content-type-options", b"nosniff"))
        headers.append((b"x-request-id", self.request_id.encode()))
        return headers + self.extra_headers + self.limit_headers

    def route_template(self) -> str:
        return route_template(self.scope)


def _read_request_id(header: bytes) -> str | None:
    """Return the request id of the client, or None if it is missing or not allowed."""
    if not _REQUEST_ID.fullmatch(header):
        return None
    request_id = header.decode()
    return None if contains_card_number(request_id) else request_id


def route_template(scope: Scope) -> str:
    """Return the template of the path, such as `/orders/{order_id}`, or "unmatched"."""
    return getattr(matched_route(scope), "path", None) or scope["state"].get("route") or "unmatched"


def _repeated_name(query: bytes, repeatable: Collection[str] = ()) -> str | None:
    pairs = [pair for pair in query.split(b"&") if pair]
    names = [pair.partition(b"=")[0] for pair in pairs]
    if b"%" in query or b"+" in query:
        names = [unquote_to_bytes(name.replace(b"+", b" ")) for name in names]
    if len(set(names)) == len(names):
        return None
    repeated = (name.decode("utf-8", "replace") for name in names if names.count(name) > 1)
    return next((name[:100] for name in repeated if not _may_repeat(name, repeatable)), None)


def _may_repeat(name: str, repeatable: Collection[str]) -> bool:
    prefix, dot, _ = name.partition(".")
    return name in repeatable or (bool(dot) and prefix + dot in repeatable)


def _query_invalid(code: str, message: str) -> ValidationFailed:
    errors = [{"field": "/query", "code": code, "message": message}]
    return ValidationFailed(f"/query: {message}.", errors=errors)


def _first_segment(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]


def _bearer_token(header: bytes) -> str:
    scheme, _, token = header.partition(b" ")
    if scheme.lower() != b"bearer" or not token.isascii():
        raise Unauthenticated(reason="invalid")
    return token.strip().decode()
