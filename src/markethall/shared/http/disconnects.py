"""Stops the work for a response when the client disconnects, for responses that may take long."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from markethall.shared.kernel.errors import DomainError

T = TypeVar("T")


class ClientClosedRequest(DomainError):
    """The client has disconnected. Only the access log shows the status."""

    code = "request.client_closed"
    # an unregistered status that the access log of nginx has for the same case
    status = 499
    title = "The client has disconnected"


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, or cancel it and raise ClientClosedRequest when the client disconnects.

    The body of the request must not be read during or after this call, because this function
    discards the messages of the body while it waits for the disconnect.
    """
    task = asyncio.create_task(work)
    disconnect = asyncio.create_task(_receive_disconnect(request))
    try:
        await asyncio.wait([task, disconnect], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientClosedRequest
        return await task
    finally:
        task.cancel()
        disconnect.cancel()


async def _receive_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
