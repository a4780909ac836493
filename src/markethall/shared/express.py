"""The express lane: the reads that are asked for most, answered without the framework.

Finding the route and solving its dependencies costs several times the read itself. A lane calls
the very function that the route calls, so both ways give the same answer; a test compares them.
"""

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from markethall.shared.warm import Ready, Warm, is_anonymous

# the answer, or None: not for this lane
Lane = Callable[[Request], Awaitable[Response | None]]


class Express:
    """ASGI layer between the front and the framework. Only GET; everything else passes by."""

    def __init__(self, app: ASGIApp, lanes: Sequence[Lane], warm: Warm) -> None:
        self._app = app
        self._lanes = lanes
        self._warm = warm

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            if is_anonymous(scope["headers"]) and (ready := self._warm.find(scope)):
                await give(ready, scope, send)
                return
            for lane in self._lanes:
                response = await lane(Request(scope))
                if response is not None:
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)


async def give(ready: Ready, scope: Scope, send: Send) -> None:
    """The answer, or 304 to who has it already."""
    scope["state"]["route"] = ready.route
    seen = next((value for name, value in scope["headers"] if name == b"if-none-match"), None)
    if ready.is_known_by(seen):
        await send({"type": "http.response.start", "status": 304, "headers": ready.unchanged})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": ready.head})
    await send({"type": "http.response.body", "body": ready.body})
