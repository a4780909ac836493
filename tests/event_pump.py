"""Relays and handles the events of orders and payments while commands run concurrently."""

from asyncio import gather, sleep
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, Final

from markethall.container import ApplicationContainer
from markethall.contexts import topology
from markethall.event_workers import bind_event_handlers
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.messaging.events import Delivery, RetryLater
from markethall.shared.messaging.outbox_relay import InProcessTransport, OutboxRelay
from tests.containers import orders_of, payments_of

LEASE: Final = timedelta(hours=1)
BATCH_SIZE: Final = 200
MAX_ATTEMPTS: Final = 50


class EventPump:
    """Handles all deliveries of the context `orders` concurrently, and retries them at once."""

    def __init__(self, container: ApplicationContainer, clock: Clock) -> None:
        self._clock = clock
        self._sources = (orders_of(container).persistence(), payments_of(container).persistence())
        self._inbox = self._sources[0].inbox
        self._transport = InProcessTransport(self._inbox, topology().handler_keys("orders"))
        self._handlers = bind_event_handlers(
            "orders", topology().subscriptions["orders"], orders_of(container).event_handlers()
        )

    async def race(self, *commands: Awaitable[Any]) -> list[Any]:
        """Run the commands while events are handled. Return their results or exceptions."""
        running = gather(*commands, return_exceptions=True)
        while not running.done():
            await self.drain()
            await sleep(0)
        results = await running
        await self.drain()
        return results

    async def drain(self) -> None:
        """Handle events until no event is left."""
        while await self._relay() + await self._handle_batch():
            pass

    async def _relay(self) -> int:
        return sum(await gather(*(self._relay_from(each.outbox) for each in self._sources)))

    async def _relay_from(self, outbox: Any) -> int:
        async with outbox.acquire_leadership() as leader:
            assert leader
            relay = OutboxRelay("test", [self._transport], self._clock)
            return await relay.relay_batch(leader, BATCH_SIZE)

    async def _handle_batch(self) -> int:
        deliveries = await self._inbox.claim(self._clock(), LEASE, BATCH_SIZE)
        await gather(*(self._handle(delivery) for delivery in deliveries))
        return len(deliveries)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            await self._handlers[delivery.handler](delivery, delivery.envelope.decode())
        except (RetryLater, Unavailable) as error:
            if delivery.attempts == MAX_ATTEMPTS:
                raise
            await self._inbox.retry_later(delivery, repr(error), self._clock())
