"""The background work of one context: relay its events, run its handlers, sweep its deadlines.

Every process that serves a context runs a steward for it; one of them leads.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from markethall.shared.clock import Clock
from markethall.shared.errors import Unavailable
from markethall.shared.events import Delivery, Handler, Inbox, Lead, Outbox, Pipe
from markethall.shared.metrics import EVENTS_HANDLED, EVENTS_RELAYED, LEADING

log = structlog.get_logger("markethall.steward")

Sweep = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Pace:
    """How often, how much, how long. Times in seconds."""

    poll: float = 0.25
    sweep: float = 1.0
    retry_lead: float = 1.0
    batch: int = 100
    lease: float = 30.0
    attempts: int = 8
    longest_wait: float = 60.0


class Relay:
    """Takes what the outbox has not sent yet, in order, and sends it down every pipe."""

    def __init__(self, context: str, pipes: Sequence[Pipe], clock: Clock) -> None:
        self.context = context
        self._pipes = pipes
        self._clock = clock

    async def run_once(self, lead: Lead, limit: int) -> int:
        """How many were relayed. What fails half-way is sent again: the inbox knows it."""
        envelopes = await lead.unpublished(limit)
        if envelopes:
            for pipe in self._pipes:
                await pipe.send(envelopes)
            await lead.mark_published(envelopes, self._clock())
            EVENTS_RELAYED.labels(self.context).inc(len(envelopes))
        return len(envelopes)


class Processor:
    """Claims deliveries, the oldest of each key, and runs their handlers side by side."""

    def __init__(
        self, inbox: Inbox, handlers: Mapping[str, Handler], clock: Clock, pace: Pace
    ) -> None:
        self._inbox = inbox
        self._handlers = handlers
        self._clock = clock
        self._pace = pace

    async def run_once(self) -> int:
        """How many were tried."""
        lease = timedelta(seconds=self._pace.lease)
        deliveries = await self._inbox.claim(self._clock(), lease, limit=16)
        await asyncio.gather(*(self._deliver(delivery) for delivery in deliveries))
        return len(deliveries)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            event = delivery.envelope.open()
            await self._handlers[delivery.handler](delivery, event)
        except Unavailable as error:
            # somebody is away, that is not this event's fault: wait for as long as it takes
            await self._postpone(delivery, error)
        except Exception as error:  # whatever a handler raises must not stop the queue
            await self._give_up_or_postpone(delivery, error)
        else:
            EVENTS_HANDLED.labels(delivery.handler, "done").inc()

    async def _give_up_or_postpone(self, delivery: Delivery, error: Exception) -> None:
        if delivery.attempts < self._pace.attempts:
            await self._postpone(delivery, error)
            return
        log.error("event.dead", **_about(delivery), exc_info=error)
        EVENTS_HANDLED.labels(delivery.handler, "dead").inc()
        await self._inbox.bury(delivery, repr(error))

    async def _postpone(self, delivery: Delivery, error: Exception) -> None:
        log.warning("event.postponed", **_about(delivery), error=repr(error))
        EVENTS_HANDLED.labels(delivery.handler, "postponed").inc()
        wait = min(0.1 * 2 ** min(delivery.attempts, 20), self._pace.longest_wait)
        due_at = self._clock() + timedelta(seconds=wait)
        await self._inbox.postpone(delivery, repr(error), due_at)


class Steward:
    """Leads one context's background work, or waits until it may."""

    def __init__(
        self,
        context: str,
        outbox: Outbox,
        relay: Relay,
        processor: Processor,
        sweeps: Sequence[Sweep],
        pace: Pace,
    ) -> None:
        self.context = context
        self._outbox = outbox
        self._relay = relay
        self._processor = processor
        self._sweeps = sweeps
        self._pace = pace
        self._published = asyncio.Event()
        self._delivered = asyncio.Event()

    def wake(self) -> None:
        """Something was published here; do not wait for the next poll."""
        self._published.set()

    def wake_processor(self) -> None:
        self._delivered.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self._outbox.lead() as lead:
                    if lead is not None:
                        await self._serve(lead)
            except Unavailable as error:
                log.warning("steward.waiting", context=self.context, error=repr(error.details))
            except Exception:
                log.exception("steward.failed", context=self.context)
            await asyncio.sleep(self._pace.retry_lead)

    async def _serve(self, lead: Lead) -> None:
        log.info("steward.leading", context=self.context)
        LEADING.labels(self.context).set(1)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_relaying(lead))
                tasks.create_task(self._keep_processing())
                tasks.create_task(self._keep_sweeping())
        except* Unavailable as group:
            raise Unavailable(dependency="postgres") from group
        finally:
            LEADING.labels(self.context).set(0)

    async def _keep_relaying(self, lead: Lead) -> None:
        while True:
            self._published.clear()
            if not await self._relay.run_once(lead, self._pace.batch):
                await _set_or_timeout(self._published, self._pace.poll)

    async def _keep_processing(self) -> None:
        while True:
            self._delivered.clear()
            if not await self._processor.run_once():
                await _set_or_timeout(self._delivered, self._pace.poll)

    async def _keep_sweeping(self) -> None:
        while True:
            for sweep in self._sweeps:
                await self._sweep(sweep)
            await asyncio.sleep(self._pace.sweep)

    async def _sweep(self, sweep: Sweep) -> None:
        try:
            await sweep()
        except Unavailable:
            log.warning("sweep.postponed", context=self.context)
        except Exception:  # one bad row must not end the sweeping of the others
            log.exception("sweep.failed", context=self.context)


def _about(delivery: Delivery) -> dict[str, object]:
    envelope = delivery.envelope
    return {
        "handler": delivery.handler,
        "event_id": str(envelope.event_id),
        "event_type": envelope.type,
        "attempts": delivery.attempts,
        "request_id": envelope.request_id,
    }


async def _set_or_timeout(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
