"""The contract of streams of status changes."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol
from uuid import UUID

from markethall.orders.contract.status import OrderStatusView
from markethall.shared.kernel.call_context import Actor, CallContext

# returns the actor with its current scopes, or None when its token is not valid any more
ActorCheck = Callable[[], Awaitable[Actor | None]]


class OrderStatusEvent(OrderStatusView):
    """The status of an order after a change. Each change increases `version` by one."""

    version: int
    change: str


class OrderStatusStreams(Protocol):
    """Streams of the status changes of an order, across all processes."""

    async def open(
        self, ctx: CallContext, order_id: UUID, last_version: int | None, check_actor: ActorCheck
    ) -> AsyncGenerator[OrderStatusEvent | None, None]:
        """Return a generator of events, each version once, in order. None is a heartbeat.

        If `last_version` is None or a version that the order has not reached, the first event is
        the current status; otherwise the stream continues after this version. It ends after the
        maximum time, when the process stops, and when the actor may not see the order any more. The
        caller must close the generator. Raises OrderNotFound, TooManyRequests, Overloaded.
        """
