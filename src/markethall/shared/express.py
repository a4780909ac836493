"""The express lane: the reads that are asked for most, answered without the framework.

Finding the route and solving its dependencies costs several times the read itself. A lane calls
the very function that the route calls, so both ways give the same answer; a test compares them.
"""

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

# the answer, or None: not for this lane
Lane = Callable[[Request], Awaitable[Response | None]]


class Express:
    """ASGI layer between the front and the framework. Only GET; everything else passes by."""

    def __init__(self, app: ASGIApp, lanes: Sequence[Lane]) -> None:
        self._app = app
        self._lanes = lanes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            for lane in self._lanes:
                response = await lane(Request(scope))
                if response is not None:
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)
