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

from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.messaging.events import (
    Delivery,
    EventHandler,
    EventTransport,
    Inbox,
    LeaderSession,
    LossyTransport,
    Outbox,
)
from markethall.shared.observability.metrics import EVENTS_HANDLED, EVENTS_RELAYED, LEADER

log = structlog.get_logger("markethall.context_worker")

PeriodicJob = Callable[[], Awaitable[None]]


class LongRunningTask(Protocol):
    async def run(self) -> None:
        """What runs beside the sweeps, until cancelled: what comes from other processes is taken
        into the inbox, long work is done.
        """


@dataclass(frozen=True)
class WorkerConfig:
    """How often, how much, how long. Times in seconds."""

    poll_interval: float = 0.25
    reconcile_interval: float = 1.0
    periodic_job_interval: float = 1.0
    leader_retry_interval: float = 1.0
    relay_batch_size: int = 100
    concurrency: int = 8
    delivery_lease: float = 30.0
    max_attempts: int = 8
    max_backoff: float = 60.0


class OutboxRelay:
    """Takes what the outbox has not sent yet, in order, and sends it down every pipe."""

    def __init__(
        self,
        context: str,
        transports: Sequence[EventTransport],
        clock: Clock,
        lossy_transports: Sequence[LossyTransport] = (),
    ) -> None:
        self.context = context
        self._transports = transports
        self._lossy_transports = lossy_transports
        self._clock = clock

    def reset_transports(self) -> None:
        """This process leads from now on."""
        for transport in self._lossy_transports:
            transport.reset()

    async def relay_batch(self, leader: LeaderSession, limit: int) -> int:
        """How many were relayed. What fails half-way is sent again: the inbox knows it."""
        envelopes = await leader.get_unpublished(limit)
        if envelopes:
            for transport in (*self._transports, *self._lossy_transports):
                await transport.deliver(envelopes)
            awaiting_confirmation = {
                e.event_id for s in self._lossy_transports for e in envelopes if s.accepts(e)
            }
            await leader.mark_published(envelopes, self._clock(), awaiting_confirmation)
            EVENTS_RELAYED.labels(self.context).inc(len(envelopes))
        return len(envelopes)

    async def reconcile(self, leader: LeaderSession) -> None:
        for transport in self._lossy_transports:
            await transport.reconcile(leader)


class InboxConsumer:
    """Claims deliveries, the oldest of each key, and runs their handlers side by side."""

    def __init__(
        self, inbox: Inbox, handlers: Mapping[str, EventHandler], clock: Clock, config: WorkerConfig
    ) -> None:
        self._inbox = inbox
        self._handlers = handlers
        self.has_handlers = bool(handlers)
        self._clock = clock
        self._config = config
        self._running: set[asyncio.Task[None]] = set()

    async def dispatch_due(
        self, tasks: asyncio.TaskGroup, on_finished: Callable[[], None] = lambda: None
    ) -> int:
        """Begin what is due, as far as hands are free, so a slow one stops no other; how many."""
        free_slots = self._config.concurrency - len(self._running)
        if free_slots <= 0:
            return 0
        deliveries = await self._claim(free_slots)
        for delivery in deliveries:
            task = tasks.create_task(self._run_handler(delivery))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            task.add_done_callback(lambda _: on_finished())
        return len(deliveries)

    async def _claim(self, limit: int) -> Sequence[Delivery]:
        """Who is told to end while asking gives back what it gets, so nobody waits for a lease."""
        lease = timedelta(seconds=self._config.delivery_lease)
        claim = asyncio.ensure_future(self._inbox.claim(self._clock(), lease, limit))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            with suppress(Unavailable):
                for delivery in await claim:
                    await self._release(delivery)
            raise

    async def _run_handler(self, delivery: Delivery) -> None:
        try:
            if delivery.attempts > self._config.max_attempts:
                await self._dead_letter(delivery, RuntimeError("no try came to an end"))
                return
            event = delivery.envelope.decode()
            await self._handlers[delivery.handler](delivery, event)
        except Unavailable as error:
            # somebody is away, that is not this event's fault: wait for as long as it takes
            await self._retry_later(
                delivery, error, self._age_based_backoff(delivery), count_attempt=False
            )
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                await self._release(delivery)
                raise
            await self._retry_or_dead_letter(delivery, error)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises must not stop the queue
            await self._retry_or_dead_letter(delivery, error)
        else:
            EVENTS_HANDLED.labels(delivery.handler, "done").inc()

    async def _retry_or_dead_letter(self, delivery: Delivery, error: BaseException) -> None:
        if delivery.attempts < self._config.max_attempts:
            await self._retry_later(delivery, error, 0.1 * 2 ** min(delivery.attempts, 20))
        else:
            await self._dead_letter(delivery, error)

    async def _dead_letter(self, delivery: Delivery, error: BaseException) -> None:
        log.error("event.dead_lettered", **_log_fields(delivery), exc_info=error)
        EVENTS_HANDLED.labels(delivery.handler, "dead").inc()
        await self._inbox.dead_letter(delivery, _error_text(error))

    async def _retry_later(
        self, delivery: Delivery, error: BaseException, delay: float, *, count_attempt: bool = True
    ) -> None:
        log.warning("event.retry_scheduled", **_log_fields(delivery), error=_error_text(error))
        EVENTS_HANDLED.labels(delivery.handler, "retried").inc()
        due_at = self._clock() + timedelta(seconds=min(delay, self._config.max_backoff))
        await self._inbox.retry_later(
            delivery, _error_text(error), due_at, count_attempt=count_attempt
        )

    def _age_based_backoff(self, delivery: Delivery) -> float:
        age = self._clock() - delivery.envelope.occurred_at
        return max(0.2, age.total_seconds() / 2)

    async def _release(self, delivery: Delivery) -> None:
        """We are to end: whoever leads next need not wait for the lease."""
        with suppress(Unavailable):
            await self._inbox.retry_later(
                delivery, "handed back", self._clock(), count_attempt=False
            )


class ContextWorker:
    """Leads one context's background work, or waits until it may."""

    def __init__(
        self,
        context: str,
        outbox: Outbox,
        relay: OutboxRelay,
        consumer: InboxConsumer,
        periodic_jobs: Sequence[PeriodicJob],
        config: WorkerConfig,
        long_running_tasks: Sequence[LongRunningTask] = (),
    ) -> None:
        self.context = context
        self._outbox = outbox
        self._relay = relay
        self._consumer = consumer
        self._periodic_jobs = periodic_jobs
        self._config = config
        self._long_running_tasks = long_running_tasks
        self._outbox_notified = asyncio.Event()
        self._inbox_notified = asyncio.Event()

    def notify_outbox(self) -> None:
        """Something was published here; do not wait for the next poll."""
        self._outbox_notified.set()

    def notify_inbox(self) -> None:
        self._inbox_notified.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self._outbox.acquire_leadership() as leader:
                    if leader is not None:
                        await self._run_as_leader(leader)
            except Unavailable as error:
                log.warning("worker.unavailable", context=self.context, error=repr(error.details))
            except Exception:
                log.exception("worker.failed", context=self.context)
            await asyncio.sleep(self._config.leader_retry_interval)

    async def _run_as_leader(self, leader: LeaderSession) -> None:
        log.info("worker.leader_acquired", context=self.context)
        LEADER.labels(self.context).set(1)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_run_endless(self._run_relay_loop(leader)))
                if self._consumer.has_handlers:
                    tasks.create_task(_run_endless(self._run_consumer_loop()))
                tasks.create_task(_run_endless(self._run_periodic_jobs()))
                for task in self._long_running_tasks:
                    tasks.create_task(_run_endless(task.run()))
        except ExceptionGroup as group:
            if group.split(Unavailable)[1]:
                raise
            raise Unavailable(dependency="postgres") from group
        finally:
            LEADER.labels(self.context).set(0)

    async def _run_relay_loop(self, leader: LeaderSession) -> None:
        loop = asyncio.get_running_loop()
        self._relay.reset_transports()
        reconcile_at = loop.time()
        while True:
            self._outbox_notified.clear()
            relayed = await self._relay.relay_batch(leader, self._config.relay_batch_size)
            if loop.time() >= reconcile_at:
                await self._relay.reconcile(leader)
                reconcile_at = loop.time() + self._config.reconcile_interval
            if not relayed:
                await _wait_until_set(self._outbox_notified, self._config.poll_interval)

    async def _run_consumer_loop(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._inbox_notified.clear()
                await self._consumer.dispatch_due(tasks, on_finished=self._inbox_notified.set)
                await _wait_until_set(self._inbox_notified, self._config.poll_interval)

    async def _run_periodic_jobs(self) -> None:
        while True:
            for job in self._periodic_jobs:
                await self._run_job(job)
            await asyncio.sleep(self._config.periodic_job_interval)

    async def _run_job(self, job: PeriodicJob) -> None:
        try:
            await job()
        except Unavailable:
            log.warning("periodic_job.unavailable", context=self.context)
        except Exception:  # one bad row must not end the sweeping of the others
            log.exception("periodic_job.failed", context=self.context)


def _log_fields(delivery: Delivery) -> dict[str, object]:
    envelope = delivery.envelope
    return {
        "handler": delivery.handler,
        "event_id": str(envelope.event_id),
        "event_type": envelope.type,
        "attempts": delivery.attempts,
        "request_id": envelope.request_id,
    }


def _error_text(error: BaseException) -> str:
    return repr(error)[:1000]


def _is_being_cancelled() -> bool:
    """True when this task was told to end, and not just something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _run_endless(loop: Awaitable[None]) -> None:
    """A stray cancellation would end a loop, and nobody would see it."""
    try:
        await loop
    except asyncio.CancelledError:
        if _is_being_cancelled():
            raise
    raise RuntimeError("a loop of the background work has ended by itself")


async def _wait_until_set(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
