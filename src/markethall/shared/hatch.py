"""The hatch beside the front door: what is ready is handed out before anybody looks closer.

To strangers only. Headers, access line, metrics and the rate limit are those of the long way; a
test compares them. Where the limits are counted in Redis nothing can be said without waiting, and
everybody takes the long way.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from starlette.types import Scope

from markethall.shared.callers import Networks, client_of
from markethall.shared.heads import Asked, Heads
from markethall.shared.ids import new_request_id
from markethall.shared.limits import Limits
from markethall.shared.log import access
from markethall.shared.metrics import latency_of, requests_of
from markethall.shared.warm import Address, Header, Ready, Warm, written

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
    asked: Asked
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
        own = (b"x-request-id", self.request_id.encode())
        return [*head, own, _NOSNIFF, *self.limits]

    def message(self, first: bytes) -> bytes:
        """All of it as HTTP/1.1; `first`: the lines that the server itself adds."""
        ready, unchanged = self.ready, self.unchanged
        return b"%b%bx-request-id: %b\r\nx-content-type-options: nosniff\r\n%b\r\n%b" % (
            ready.unchanged_lines if unchanged else ready.lines,
            first,
            self.request_id.encode(),
            written(self.limits) if self.limits else b"",
            b"" if unchanged else ready.body,
        )


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
        self.heads = Heads()

    def look(self, scope: Scope) -> Handed | None:
        """None when the request has to take the long way. What is given has to be told of."""
        # no client: no address to write down
        if scope["method"] != "GET" or not scope.get("client"):
            return None
        address = (scope["path"], scope["query_string"])
        return self._look(address, scope["headers"], scope["client"][0])

    def read(self, target: bytes, headers: Sequence[Header], peer: str) -> Handed | None:
        """As `look`, for a GET whose target is as it was sent."""
        path, _, query = target.partition(b"?")
        # it may mean another path than it says
        if b"%" in path or b"#" in target:
            return None
        return self._look((path.decode("ascii"), query), headers, peer)

    def again(self, asked: Asked, peer: str) -> Handed | None:
        """As `look`, for what was asked before; `peer`: the address at the other end."""
        started = time.perf_counter()
        ready = self._warm.at(asked.address)
        return None if ready is None else self._hand(asked, ready, peer, started)

    def _look(self, address: Address, given: Sequence[Header], peer: str) -> Handed | None:
        started = time.perf_counter()
        headers = dict(given)
        if len(headers) != len(given) or self._is_unusual(headers):
            return None
        ready = self._warm.at(address)
        if ready is None:
            return None
        owner = self._owners[address[0].split("/", 2)[1]]
        return self._hand(Asked(address, headers, owner), ready, peer, started)

    def _hand(self, asked: Asked, ready: Ready, peer: str, started: float) -> Handed | None:
        if self._proxies:
            peer = client_of({"client": (peer, 0), "headers": asked.forwarded}, self._proxies)
        limits: list[Header] = []
        if self._limits.on:
            verdict = self._limits.at_once(peer)
            if verdict is None or not verdict.allowed:
                return None
            limits = verdict.headers
        if asked.tag != ready.etag:
            asked.tag, asked.unchanged = ready.etag, ready.is_known_by(asked.seen)
        return Handed(ready, asked.unchanged, new_request_id(), peer, asked, limits, started)

    def tell(self, handed: Handed) -> None:
        """The access line and the metrics."""
        ready, unchanged, request_id, client_ip, asked, _, started = handed
        seconds = time.perf_counter() - started
        status = 304 if unchanged else 200
        requests_of("GET", ready.route, status).inc()
        latency_of(ready.route).observe(seconds)
        before, after = asked.line_tail
        access.write_line(
            f'{asked.line_head}{status},"duration_ms":{round(seconds * 1000, 3)}'
            f',"client_ip":"{client_ip}"{before}{request_id}{after}'
        )

    def _is_unusual(self, headers: dict[bytes, bytes]) -> bool:
        """A body, too many bytes of headers, or one that asks for more."""
        return (
            not _LONG_WAY.isdisjoint(headers)
            or not _BODIES.isdisjoint(headers)
            or sum(map(len, headers)) + sum(map(len, headers.values())) > self._header_limit
        )
