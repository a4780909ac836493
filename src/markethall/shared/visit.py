"""One request on its way through the front door: its id, who asks, and how long they wait."""

import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Protocol

from starlette.types import Message, Scope, Send

from markethall.shared.call import Actor, Call
from markethall.shared.callers import Networks, client_of
from markethall.shared.clock import utc_now
from markethall.shared.errors import (
    HeadersTooLarge,
    Invalid,
    RouteNotFound,
    Unauthenticated,
    Unavailable,
)
from markethall.shared.ids import new_request_id
from markethall.shared.service_tokens import ServiceIdentity
from markethall.shared.wire import DEADLINE_HEADER

HEADER_LIMIT: Final = 32 * 1024

_NOBODY: Final = Actor()
_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{8,128}")
_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_DEADLINE: Final = DEADLINE_HEADER.encode()
# milliseconds
_LONGEST_WAIT: Final = 60_000
_REDIRECT: Final = 307


class Verifies(Protocol):
    async def verify(self, token: str) -> Actor:
        """Raises Unauthenticated; Unavailable when nobody can say."""


class VerifiesServices(Protocol):
    async def verify(self, token: str) -> ServiceIdentity:
        """Raises Unauthenticated; Unavailable when nobody can say."""


class Visit:
    """One request on its way through the front."""

    def __init__(self, scope: Scope, proxies: Networks) -> None:
        self.started = time.perf_counter()
        self.method: str = scope["method"]
        # RFC 9110, section 9.3.2: HEAD is GET without the content of its answer
        self.scope = {**scope, "method": "GET"} if self.method == "HEAD" else scope
        self.status = 0
        self.actor = _NOBODY
        self.extra_headers: list[tuple[bytes, bytes]] = []
        self.limit_headers: list[tuple[bytes, bytes]] = []
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        given = self._headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if _SANE_ID.fullmatch(given) else new_request_id()
        self.client_ip = client_of(self.scope, proxies)
        self.state: dict[str, Any] = self.scope.setdefault("state", {})
        self.state["request_id"] = self.request_id
        self.state["client_ip"] = self.client_ip

    def header(self, name: bytes) -> bytes:
        return self._headers.get(name, b"")

    @property
    def content_length(self) -> int:
        text = self.header(b"content-length")
        return int(text) if text.isdigit() and len(text) < 20 else 0  # noqa: PLR2004 - 64 bits

    def read_head(self) -> None:
        """Raises HeadersTooLarge, RouteNotFound, Invalid."""
        size = sum(len(name) + len(value) for name, value in self.scope["headers"])
        if size > HEADER_LIMIT:
            raise HeadersTooLarge(limit=HEADER_LIMIT)
        if "\x00" in self.scope["path"] or "�" in self.scope["path"]:
            raise RouteNotFound
        if b"%00" in self.scope["query_string"]:
            errors = [{"field": "/query", "code": "nul", "message": "must not contain NUL"}]
            raise Invalid("/query: must not contain NUL.", errors=errors)

    async def authenticate(self, people: Callable[[], Verifies], deadline: timedelta) -> None:
        """Who asks. A bad token is remembered, and refused where a person is needed."""
        header = self.header(b"authorization")
        if header:
            try:
                self.actor = await people().verify(_bearer(header))
            except (Unauthenticated, Unavailable) as refusal:
                self.state["unauthenticated"] = refusal
        self._note_call(deadline)

    async def identify(self, services: Callable[[], VerifiesServices] | None) -> None:
        """Which service asks, on whose behalf, and how long it will wait."""
        header = self.header(b"authorization")
        if header and services:
            try:
                identity = await services().verify(_bearer(header))
                self.actor = identity.actor
                self.state["service"] = identity
            except (Unauthenticated, Unavailable) as refusal:
                self.state["unauthenticated"] = refusal
        given = self.header(_DEADLINE)
        waits = int(given) if given.isdigit() and len(given) < 8 else _LONGEST_WAIT  # noqa: PLR2004 - hours
        self._note_call(timedelta(milliseconds=min(waits, _LONGEST_WAIT)))

    def _note_call(self, waits: timedelta) -> None:
        traceparent = self.header(b"traceparent")
        traced = bool(traceparent) and _TRACEPARENT.fullmatch(traceparent)
        self.state["call"] = Call(
            actor=self.actor,
            request_id=self.request_id,
            traceparent=traceparent.decode() if traced else None,
            deadline=utc_now() + waits,
        )

    def travelled(self) -> dict[str, str]:
        """What joins this line to those of other processes: the trace, and which service called."""
        found = {}
        call: Call | None = self.state.get("call")
        if call and call.traceparent:
            found["trace_id"] = call.traceparent.split("-")[1]
        if service := self.state.get("service"):
            found["caller"] = service.caller
        return found

    @property
    def internal(self) -> bool:
        """Through the inner door: services only."""
        path: str = self.scope["path"]
        return path.startswith("/internal/") and path != "/internal/keys.json"

    def owner(self, owners: Mapping[str, str]) -> str:
        """Whose path it is; an internal one names its context in the second segment."""
        path: str = self.scope["path"]
        if self.internal:
            named = path.split("/")[2]
            return named if named in owners.values() else "system"
        return owners.get(_first_segment(path), "system")

    def watching(self, send: Send) -> Send:
        """Notes the status and adds the headers that every answer has."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                headers = list(message.get("headers", ()))
                message["headers"] = [
                    *(_here(headers) if self.status == _REDIRECT else headers),
                    (b"x-request-id", self.request_id.encode()),
                    *self._defaults(headers),
                    *self.extra_headers,
                    *self.limit_headers,
                ]
            elif self.method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        return watched

    def _defaults(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        names = {name for name, _ in headers}
        defaults = [(b"x-content-type-options", b"nosniff")]
        if b"cache-control" not in names:
            defaults.append((b"cache-control", b"no-store"))
        return defaults

    def route(self) -> str:
        return route_template(self.scope)


def route_template(scope: Scope) -> str:
    """Returns the template of the path, never the path that a client sent."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    found = context or scope.get("route")
    return getattr(found, "path", None) or scope["state"].get("route") or "unmatched"


def _here(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """A redirect leads to an address of ours: who asks knows host and scheme better than we do."""
    return [
        (name, b"/" + value.split(b"/", 3)[-1] if name == b"location" else value)
        for name, value in headers
    ]


def _first_segment(path: str) -> str:
    """A request line may name a path without a slash, or none."""
    return path.removeprefix("/").partition("/")[0]


def _bearer(header: bytes) -> str:
    scheme, _, token = header.partition(b" ")
    if scheme.lower() != b"bearer" or not token.isascii():
        raise Unauthenticated(reason="invalid")
    return token.strip().decode()
