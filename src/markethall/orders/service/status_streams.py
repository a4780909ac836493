"""Streams of the status changes of orders.

A stream holds no database connection, no lock and no slot of a bulkhead. StatusWaits wakes it after
a commit, in this process or in another one; it then reads the entries of the timeline that it has
not sent. So no event is lost or sent twice, even if a wake-up is late or lost. A stream reads only
when the client has taken the last event, so a slow client uses no memory.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from markethall.orders.contract import (
    ActorCheck,
    OrderNotFound,
    OrderStatusEvent,
    VersionedOrderStatus,
)
from markethall.orders.ports import ReadStore
from markethall.orders.service.status_waits import StatusWaits
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.client_network import client_network
from markethall.shared.kernel.errors import Overloaded, TooManyRequests, Unavailable
from markethall.shared.kernel.held_slots import leave_all_slots
from markethall.shared.kernel.scopes import ORDERS_MANAGE
from markethall.shared.persistence.database import ReadDatabase

# the maximum number of timeline entries that a stream reads at once
_PAGE_SIZE: Final = 100


@dataclass(frozen=True)
class StreamLimits:
    """The limits of streams: their times, and their number in this process and per client."""

    heartbeat_seconds: float
    max_seconds: float
    max_streams: int
    max_streams_per_client: int


class StatusStreams:
    """Implementation of `OrderStatusStreams`."""

    def __init__(
        self, database: ReadDatabase[ReadStore], waits: StatusWaits, limits: StreamLimits
    ) -> None:
        self._database = database
        self._waits = waits
        self._limits = limits
        self._by_client: Counter[str] = Counter()

    @property
    def open_streams(self) -> int:
        return self._by_client.total()

    async def open(
        self, ctx: CallContext, order_id: UUID, last_version: int | None, check_actor: ActorCheck
    ) -> AsyncGenerator[OrderStatusEvent | None, None]:
        stream = self._stream(ctx, order_id, last_version, check_actor)
        # Run the generator to its first `yield`. If the caller closes the generator without reading
        # it, its `with` blocks end only if the generator has started.
        await anext(stream)
        return stream

    async def _stream(
        self, ctx: CallContext, order_id: UUID, last_version: int | None, check_actor: ActorCheck
    ) -> AsyncGenerator[OrderStatusEvent | None, None]:
        """Yield None when the stream is counted, then yield the events and heartbeats of `open`."""
        loop, limits = asyncio.get_running_loop(), self._limits
        # register before the read, so that a change between the read and the wait is not missed
        with self._place(ctx), self._waits.watch(order_id) as wait:
            current = await self._get_status(ctx.actor, order_id)
            if current is None:
                raise OrderNotFound(order_id=str(order_id))
            leave_all_slots()
            yield None
            ends_at = loop.time() + limits.max_seconds
            version = _first_version(last_version, current.version)
            while not wait.is_over and (seconds := ends_at - loop.time()) > 0:
                actor = await check_actor()
                if actor is None:
                    return
                events = await self._list_news(actor, order_id, version)
                if events is None:
                    return
                for event in events:
                    yield event
                    version = event.version
                if len(events) < _PAGE_SIZE and not await wait.wait_for_wake(
                    version, min(limits.heartbeat_seconds, seconds)
                ):
                    yield None

    async def _list_news(
        self, actor: Actor, order_id: UUID, version: int
    ) -> Sequence[OrderStatusEvent] | None:
        """Return the changes after this version, or None if the actor may not see the order."""
        try:
            current = await self._get_status(actor, order_id)
            if current is None or current.version <= version:
                return None if current is None else ()
            async with self._database.read_session() as store:
                entries = await store.list_timeline_entries(order_id, version, _PAGE_SIZE)
        except Unavailable:
            return ()  # the stream calls this again after the next wake-up or heartbeat
        return [
            OrderStatusEvent(**vars(entry) | {"order_id": order_id, "updated_at": entry.at})
            for entry in entries
        ]

    async def _get_status(self, actor: Actor, order_id: UUID) -> VersionedOrderStatus | None:
        async with self._database.read_session() as store:
            found = await store.get_order_status(order_id)
        if found is None or not (
            actor.acts_for_owner(order_id, found[0]) or actor.has_scope(ORDERS_MANAGE)
        ):
            return None
        return found[1]

    @contextmanager
    def _place(self, ctx: CallContext) -> Iterator[None]:
        """Count the stream. Raises TooManyRequests, Overloaded."""
        client, limits = _client_of(ctx), self._limits
        if self._by_client[client] >= limits.max_streams_per_client:
            raise TooManyRequests(policy="event_streams", retry_after=10)
        if self.open_streams >= limits.max_streams:
            raise Overloaded(retry_after=10)
        self._by_client[client] += 1
        try:
            yield
        finally:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]


def _first_version(last_version: int | None, current_version: int) -> int:
    """Return the version after which the stream begins."""
    if last_version is None or last_version > current_version:
        return current_version - 1
    return last_version


def _client_of(ctx: CallContext) -> str:
    # streams of guests and of holders of order tokens are counted by network, because a client can
    # create any number of guests and orders
    if ctx.actor.user_id is None or ctx.actor.is_guest:
        return client_network(ctx.client_ip)
    return str(ctx.user_id)
