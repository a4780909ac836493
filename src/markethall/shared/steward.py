"""The background work of one context: relay its events, run its handlers, sweep its deadlines.

Every process that serves a context runs a steward for it; one of them leads.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from markethall.shared.clock import Clock
from markethall.shared.errors import Unavailable
from markethall.shared.events import Delivery, Handler, Inbox, Lead, Outbox, Pipe, Stream
from markethall.shared.metrics import EVENTS_HANDLED, EVENTS_RELAYED, LEADING

log = structlog.get_logger("markethall.steward")

Sweep = Callable[[], Awaitable[None]]


class Worker(Protocol):
    async def run(self) -> None:
        """What runs beside the sweeps, until cancelled: what comes from other processes is taken
        into the inbox, long work is done.
        """


@dataclass(frozen=True)
class Pace:
    """How often, how much, how long. Times in seconds."""

    poll: float = 0.25
    tend: float = 1.0
    sweep: float = 1.0
    retry_lead: float = 1.0
    batch: int = 100
    side_by_side: int = 8
    lease: float = 30.0
    attempts: int = 8
    longest_wait: float = 60.0


class Relay:
    """Takes what the outbox has not sent yet, in order, and sends it down every pipe."""

    def __init__(
        self, context: str, pipes: Sequence[Pipe], clock: Clock, streams: Sequence[Stream] = ()
    ) -> None:
        self.context = context
        self._pipes = pipes
        self._streams = streams
        self._clock = clock

    def begin(self) -> None:
        """This process leads from now on."""
        for stream in self._streams:
            stream.forget()

    async def run_once(self, lead: Lead, limit: int) -> int:
        """How many were relayed. What fails half-way is sent again: the inbox knows it."""
        envelopes = await lead.unpublished(limit)
        if envelopes:
            for pipe in (*self._pipes, *self._streams):
                await pipe.send(envelopes)
            awaited = {e.event_id for s in self._streams for e in envelopes if s.wants(e)}
            await lead.mark_published(envelopes, self._clock(), awaited)
            EVENTS_RELAYED.labels(self.context).inc(len(envelopes))
        return len(envelopes)

    async def tend(self, lead: Lead) -> None:
        for stream in self._streams:
            await stream.tend(lead)


class Processor:
    """Claims deliveries, the oldest of each key, and runs their handlers side by side."""

    def __init__(
        self, inbox: Inbox, handlers: Mapping[str, Handler], clock: Clock, pace: Pace
    ) -> None:
        self._inbox = inbox
        self._handlers = handlers
        self.listens = bool(handlers)
        self._clock = clock
        self._pace = pace
        self._running: set[asyncio.Task[None]] = set()

    async def start_due(
        self, tasks: asyncio.TaskGroup, on_end: Callable[[], None] = lambda: None
    ) -> int:
        """Begin what is due, as far as hands are free, so a slow one stops no other; how many."""
        free = self._pace.side_by_side - len(self._running)
        if free <= 0:
            return 0
        deliveries = await self._claimed(free)
        for delivery in deliveries:
            task = tasks.create_task(self._deliver(delivery))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            task.add_done_callback(lambda _: on_end())
        return len(deliveries)

    async def _claimed(self, limit: int) -> Sequence[Delivery]:
        """Who is told to end while asking gives back what it gets, so nobody waits for a lease."""
        lease = timedelta(seconds=self._pace.lease)
        claiming = asyncio.ensure_future(self._inbox.claim(self._clock(), lease, limit))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(Unavailable):
                for delivery in await claiming:
                    await self._hand_back(delivery)
            raise

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            if delivery.attempts > self._pace.attempts:
                await self._bury(delivery, RuntimeError("no try came to an end"))
                return
            event = delivery.envelope.open()
            await self._handlers[delivery.handler](delivery, event)
        except Unavailable as error:
            # somebody is away, that is not this event's fault: wait for as long as it takes
            await self._postpone(delivery, error, self._half_its_age(delivery), excused=True)
        except asyncio.CancelledError as error:
            if _is_ending():
                await self._hand_back(delivery)
                raise
            await self._give_up_or_postpone(delivery, error)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises must not stop the queue
            await self._give_up_or_postpone(delivery, error)
        else:
            EVENTS_HANDLED.labels(delivery.handler, "done").inc()

    async def _give_up_or_postpone(self, delivery: Delivery, error: BaseException) -> None:
        if delivery.attempts < self._pace.attempts:
            await self._postpone(delivery, error, 0.1 * 2 ** min(delivery.attempts, 20))
        else:
            await self._bury(delivery, error)

    async def _bury(self, delivery: Delivery, error: BaseException) -> None:
        log.error("event.dead", **_about(delivery), exc_info=error)
        EVENTS_HANDLED.labels(delivery.handler, "dead").inc()
        await self._inbox.bury(delivery, _words(error))

    async def _postpone(
        self, delivery: Delivery, error: BaseException, wait: float, *, excused: bool = False
    ) -> None:
        log.warning("event.postponed", **_about(delivery), error=_words(error))
        EVENTS_HANDLED.labels(delivery.handler, "postponed").inc()
        due_at = self._clock() + timedelta(seconds=min(wait, self._pace.longest_wait))
        await self._inbox.postpone(delivery, _words(error), due_at, excused=excused)

    def _half_its_age(self, delivery: Delivery) -> float:
        age = self._clock() - delivery.envelope.occurred_at
        return max(0.2, age.total_seconds() / 2)

    async def _hand_back(self, delivery: Delivery) -> None:
        """We are to end: whoever leads next need not wait for the lease."""
        with suppress(Unavailable):
            await self._inbox.postpone(delivery, "handed back", self._clock(), excused=True)


class Steward:
    """Leads one context's background work, or waits until it may."""

    def __init__(  # noqa: PLR0917 - the parts of a context's background work
        self,
        context: str,
        outbox: Outbox,
        relay: Relay,
        processor: Processor,
        sweeps: Sequence[Sweep],
        pace: Pace,
        workers: Sequence[Worker] = (),
    ) -> None:
        self.context = context
        self._outbox = outbox
        self._relay = relay
        self._processor = processor
        self._sweeps = sweeps
        self._pace = pace
        self._workers = workers
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
                tasks.create_task(_unending(self._keep_relaying(lead)))
                if self._processor.listens:
                    tasks.create_task(_unending(self._keep_processing()))
                tasks.create_task(_unending(self._keep_sweeping()))
                for worker in self._workers:
                    tasks.create_task(_unending(worker.run()))
        except ExceptionGroup as group:
            if group.split(Unavailable)[1]:
                raise
            raise Unavailable(dependency="postgres") from group
        finally:
            LEADING.labels(self.context).set(0)

    async def _keep_relaying(self, lead: Lead) -> None:
        loop = asyncio.get_running_loop()
        self._relay.begin()
        tend_at = loop.time()
        while True:
            self._published.clear()
            relayed = await self._relay.run_once(lead, self._pace.batch)
            if loop.time() >= tend_at:
                await self._relay.tend(lead)
                tend_at = loop.time() + self._pace.tend
            if not relayed:
                await _set_or_timeout(self._published, self._pace.poll)

    async def _keep_processing(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._delivered.clear()
                await self._processor.start_due(tasks, on_end=self._delivered.set)
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


def _words(error: BaseException) -> str:
    return repr(error)[:1000]


def _is_ending() -> bool:
    """True when this task was told to end, and not just something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _unending(work: Awaitable[None]) -> None:
    """A stray cancellation would end a loop, and nobody would see it."""
    try:
        await work
    except asyncio.CancelledError:
        if _is_ending():
            raise
    raise RuntimeError("a loop of the background work has ended by itself")


async def _set_or_timeout(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
