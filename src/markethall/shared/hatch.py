"""The hatch beside the front door: what is ready is handed out before anybody looks closer.

To strangers only. Headers, access line, metrics and the rate limit are those of the long way; a
test compares them. Where the limits are counted in Redis nothing can be said without waiting, and
everybody takes the long way.
"""

import json
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from starlette.types import Scope

from markethall.shared.callers import Networks, client_of
from markethall.shared.http import matches
from markethall.shared.ids import new_request_id
from markethall.shared.limits import Limits
from markethall.shared.log import LONGEST_PATH, access, agent_text, clean_text
from markethall.shared.metrics import latency_of, requests_of
from markethall.shared.warm import Header, Ready, Warm, written

# who sends one of these needs a closer look
_LONG_WAY: Final = frozenset({b"authorization", b"traceparent", b"x-request-id", b"expect"})
_BODIES: Final = frozenset({b"transfer-encoding", b"content-length"})
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")


class Handed(NamedTuple):
    """An answer, and for whom it is. `started`: by time.perf_counter."""

    ready: Ready
    unchanged: bool
    request_id: str
    client_ip: str
    agent: str
    path: str
    limits: list[Header]
    started: float

    @property
    def status(self) -> int:
        return 304 if self.unchanged else 200

    @property
    def body(self) -> bytes:
        return b"" if self.unchanged else self.ready.body

    def headers(self) -> list[Header]:
        head = self.ready.unchanged if self.unchanged else self.ready.head
        return [*head, *self._own()]

    def message(self, first: list[Header]) -> bytes:
        """All of it as HTTP/1.1; `first`: the headers that the server itself adds."""
        lines = self.ready.unchanged_lines if self.unchanged else self.ready.lines
        return b"".join([lines, written(first), written(self._own()), b"\r\n", self.body])

    def _own(self) -> list[Header]:
        return [(b"x-request-id", self.request_id.encode()), _NOSNIFF, *self.limits]


class Hatch:
    """`header_limit` is in bytes; `owners`: whose a path is, by its first segment."""

    def __init__(
        self,
        warm: Warm,
        header_limit: int,
        owners: Mapping[str, str],
        limits: Limits,
        proxies: Networks,
    ) -> None:
        self._warm = warm
        self._header_limit = header_limit
        self._owners = owners
        self._limits = limits
        self._proxies = proxies

    def look(self, scope: Scope) -> Handed | None:
        """None when the request has to take the long way. What is given has to be told of."""
        started = time.perf_counter()
        if scope["method"] != "GET":
            return None
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._is_unusual(scope, headers):
            return None
        ready = self._warm.find(scope)
        if ready is None:
            return None
        client_ip = client_of(scope, self._proxies)
        limits: list[Header] = []
        if self._limits.on:
            verdict = self._limits.at_once(client_ip)
            if verdict is None or not verdict.allowed:
                return None
            limits = verdict.headers
        seen = headers.get(b"if-none-match")
        return Handed(
            ready,
            seen is not None and matches(seen.decode("latin-1"), ready.etag),
            new_request_id(),
            client_ip,
            _agent(headers.get(b"user-agent", b"")[:200]),
            scope["path"],
            limits,
            started,
        )

    def tell(self, handed: Handed) -> None:
        """The access line and the metrics."""
        seconds = time.perf_counter() - handed.started
        route, status, path = handed.ready.route, handed.status, handed.path
        requests_of("GET", route, status).inc()
        latency_of(route).observe(seconds)
        access.write_line(
            f'"method":"GET","path":{_path(path)},"status":{status}'
            f',"duration_ms":{round(seconds * 1000, 3)},"client_ip":"{handed.client_ip}"'
            f',"user_agent":{handed.agent},"request_id":"{handed.request_id}"'
            f',"user_id":null,"context":"{self._owners[path.split("/", 2)[1]]}"'
        )

    def _is_unusual(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """A body, repeated headers, too many bytes of them, or no address to write down."""
        return (
            not _LONG_WAY.isdisjoint(headers)
            or not _BODIES.isdisjoint(headers)
            or len(headers) != len(scope["headers"])
            or sum(map(len, headers)) + sum(map(len, headers.values())) > self._header_limit
            or not scope.get("client")
        )


@lru_cache(maxsize=4096)
def _path(path: str) -> str:
    return json.dumps(clean_text(path[:LONGEST_PATH]), ensure_ascii=False)


@lru_cache(maxsize=1024)
def _agent(header: bytes) -> str:
    return json.dumps(agent_text(header), ensure_ascii=False)
