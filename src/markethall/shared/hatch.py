"""The hatch beside the front door: what is ready is handed out before anybody looks closer.

To strangers only, and where no rate limit has to be asked. Headers, access line and metrics are
those of the long way; a test compares them.
"""

import json
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from starlette.types import Scope, Send

from markethall.shared.http import matches
from markethall.shared.ids import new_request_id
from markethall.shared.log import access, clean_text
from markethall.shared.metrics import LATENCY, REQUESTS
from markethall.shared.warm import Warm

# who sends one of these needs a closer look
_LONG_WAY: Final = frozenset(
    {b"authorization", b"traceparent", b"x-request-id", b"x-forwarded-for", b"transfer-encoding"}
)
_BODY_304: Final = {"type": "http.response.body", "body": b""}


class Hatch:
    """`header_limit` is in bytes; `owners`: whose a path is, by its first segment."""

    def __init__(self, warm: Warm, header_limit: int, owners: Mapping[str, str]) -> None:
        self._warm = warm
        self._header_limit = header_limit
        self._owners = owners

    async def give(self, scope: Scope, send: Send) -> bool:
        """False when the request has to take the long way; nothing is sent then."""
        started = time.perf_counter()
        ready = self._warm.find(scope)
        if ready is None:
            return False
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if not _LONG_WAY.isdisjoint(headers) or self._is_unusual(scope, headers):
            return False
        seen = headers.get(b"if-none-match")
        unchanged = seen is not None and matches(seen.decode("latin-1"), ready.etag)
        request_id = new_request_id()
        status = 304 if unchanged else 200
        head = [
            *(ready.unchanged if unchanged else ready.head),
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        try:
            await send({"type": "http.response.start", "status": status, "headers": head})
            await send({**(_BODY_304 if unchanged else ready.body)})
        finally:
            who = f'"user_agent":{_agent(headers.get(b"user-agent", b"")[:200])}'
            who = f'{who},"request_id":"{request_id}"'
            self._tell(scope, ready.route, status, who, time.perf_counter() - started)
        return True

    def _is_unusual(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Repeated headers, too many bytes of them, or no address to write down."""
        listed = scope["headers"]
        return (
            len(headers) != len(listed)
            or sum(map(len, headers)) + sum(map(len, headers.values())) > self._header_limit
            or not scope.get("client")
        )

    def _tell(self, scope: Scope, route: str, status: int, who: str, seconds: float) -> None:
        path = scope["path"]
        _requests(route, status).inc()
        _latency(route).observe(seconds)
        access.write_line(
            f'"method":"GET","path":{_path(path)},"status":{status}'
            f',"duration_ms":{round(seconds * 1000, 3)},"client_ip":"{scope["client"][0]}",{who}'
            f',"user_id":null,"context":"{self._owners[path.split("/", 2)[1]]}"'
        )


@lru_cache(maxsize=64)
def _requests(route: str, status: int):  # type: ignore[no-untyped-def]
    return REQUESTS.labels("GET", route, status)


_latency = lru_cache(maxsize=64)(LATENCY.labels)


@lru_cache(maxsize=4096)
def _path(path: str) -> str:
    return json.dumps(clean_text(path[:2000]), ensure_ascii=False)


@lru_cache(maxsize=1024)
def _agent(header: bytes) -> str:
    return json.dumps(clean_text(header.decode("latin-1")), ensure_ascii=False)
