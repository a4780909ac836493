"""HTTP API of orders: the stream of the status changes of an order."""

from typing import Annotated, Final

from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from markethall.orders.contract import OrderNotFound, OrderStatusEvent
from markethall.orders.router.dependencies import OrderViewer, StatusStreamsDep
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS
from markethall.shared.http.event_streams import (
    EventStreamResponse,
    actor_check,
    documented_event_stream,
)
from markethall.shared.http.problem_details import problems
from markethall.shared.kernel.errors import Overloaded, TooManyRequests
from markethall.shared.kernel.model import Id

router = APIRouter(tags=["orders"])

_MAX_VERSION: Final = 2**31 - 1
_EXAMPLE: Final = """\
id: 2
event: status
data: {"order_id":"0199c0de-0000-7000-8000-000000000001","status":"processing",\
"payment_status":"paid","fulfilment_status":"unfulfilled","updated_at":"2026-11-21T12:00:00Z",\
"version":2,"change":"paid"}

"""
LastEventId = Annotated[
    Annotated[int, Field(ge=0, le=_MAX_VERSION)] | SkipJsonSchema[None],
    Header(alias="Last-Event-ID", description="The `id` of the last event that was received"),
]


@router.get(
    "/orders/{order_id}/events",
    response_class=StreamingResponse,
    summary="Stream the status of an order",
    responses=problems(*AUTHENTICATED_ERRORS, OrderNotFound, TooManyRequests, Overloaded)
    | documented_event_stream("A `status` event for each change of the order", _EXAMPLE),
)
async def stream_order_events(
    request: Request,
    *,
    ctx: OrderViewer,
    order_id: Id,
    last_event_id: LastEventId = None,
    streams: StatusStreamsDep,
) -> StreamingResponse:
    """Stream the changes of an order as server-sent events. The `id` of an event is the version.

    The first event is the current status. With `Last-Event-ID`, the stream instead continues after
    that version, so that a client that connects again misses nothing. Each version is sent once. A
    comment is sent while nothing changes. The stream ends after a maximum time, soon after the
    access token has expired, and when the server stops; then connect again. An `EventSource` cannot
    send a token, so browsers read the stream with `fetch`.
    """
    check = actor_check(request, ctx.actor)
    events = await streams.open(ctx, order_id, last_event_id, check)
    return EventStreamResponse(events, _encode)


def _encode(event: OrderStatusEvent) -> bytes:
    return format_sse_event(id=str(event.version), event="status", data_str=event.model_dump_json())
