import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.types import Message, Receive, Scope, Send

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.errors import Unauthenticated, Unavailable

T = TypeVar("T")

EVENT_STREAM_MEDIA_TYPE: Final = "text/event-stream"
# a client that takes no data for this time is disconnected
SEND_TIMEOUT_SECONDS: Final = 20.0
# the time after which a client connects again when a stream has ended
_RECONNECT_MILLISECONDS: Final = 1000
_ABORT_SECONDS: Final = 1.0
_HEADERS: Final = {
    "cache-control": "no-store",
    # nginx would otherwise collect the events before it sends them
    "x-accel-buffering": "no",
}


def documented_event_stream(description: str, example: str) -> dict[int | str, dict[str, Any]]:
    """Return the entry of a route's `responses` that documents a stream of events."""
    content = {EVENT_STREAM_MEDIA_TYPE: {"example": example}}
    return {200: {"description": description, "content": content}}


class EventStreamResponse(StreamingResponse, Generic[T]):
    """Sends events until the generator ends, then closes the generator in any case.

    A client that does not read is disconnected after SEND_TIMEOUT_SECONDS. The response to HEAD
    ends at once.
    """

    send_timeout_seconds = SEND_TIMEOUT_SECONDS

    def __init__(
        self, events: AsyncGenerator[T | None, None], encode: Callable[[T], bytes]
    ) -> None:
        """`events` yields None for a heartbeat."""
        super().__init__(
            _encode_all(events, encode), media_type=EVENT_STREAM_MEDIA_TYPE, headers=_HEADERS
        )
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["state"].get("is_head"):
                await send(self._start_message())
                await send({"type": "http.response.body", "body": b""})
            else:
                await super().__call__(scope, receive, self._with_timeout(scope, send))
        except _ClientDoesNotRead:
            return
        finally:
            await self._events.aclose()

    def _start_message(self) -> Message:
        return {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }

    def _with_timeout(self, scope: Scope, send: Send) -> Send:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self.send_timeout_seconds):
                    await send(message)
            except TimeoutError:
                abort: Callable[[], None] | None = scope["state"].get("abort_connection")
                if abort:
                    abort()
                    # the server reports the disconnect within this time, which cancels this task
                    await asyncio.sleep(_ABORT_SECONDS)
                raise _ClientDoesNotRead from None

        return send_in_time


class _ClientDoesNotRead(Exception):
    """The client has not taken any data for SEND_TIMEOUT_SECONDS."""


async def _encode_all(
    events: AsyncGenerator[T | None, None], encode: Callable[[T], bytes]
) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=_RECONNECT_MILLISECONDS)
    async for event in events:
        yield KEEPALIVE_COMMENT if event is None else encode(event)


def actor_check(request: Request, actor: Actor) -> Callable[[], Awaitable[Actor | None]]:
    """Return a function that verifies the token of the request again.

    It returns the actor with its current scopes, or None if the token is not valid any more.
    """
    verify: Callable[[], Awaitable[Actor]] | None = request.scope["state"].get("verify_again")

    async def check() -> Actor | None:
        try:
            return await verify() if verify else actor
        except (Unauthenticated, Unavailable):
            return None

    return check
