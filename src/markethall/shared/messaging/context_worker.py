"""The background work of one context: relay events, run event handlers and periodic jobs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import structlog

from markethall.shared.kernel.errors import Unavailable
from markethall.shared.messaging.inbox import InboxConsumer, WorkerConfig, is_being_cancelled
from markethall.shared.messaging.outbox import ClocksDiffer, LeaderSession, Outbox
from markethall.shared.messaging.outbox_relay import OutboxRelay
from markethall.shared.messaging.wake_signal import WakeSignal
from markethall.shared.observability.metrics import LEADER

log = structlog.get_logger("markethall.context_worker")

# Seconds. Events that follow in this time share the next notification, because each commit with a
# NOTIFY takes a lock of the whole Postgres server.
_MIN_NOTIFY_INTERVAL: Final = 0.02

PeriodicJob = Callable[[], Awaitable[None]]


class LongRunningTask(Protocol):
    async def run(self) -> None:
        """Run concurrently with the periodic jobs until cancelled."""


class ContextWorker:
    """Does the background work of a context while this process is its leader.

    Every process that serves the context runs a worker, and one of the workers is the leader. The
    signals make the loops start without waiting for the next poll: `outbox_signal` is set when this
    process publishes an event, `inbox_signal` when an event is delivered to the inbox.
    `count_writes` returns how often this process has written: without writes, jobs run less often.
    """

    def __init__(
        self,
        context: str,
        outbox: Outbox,
        relay: OutboxRelay,
        consumer: InboxConsumer,
        periodic_jobs: Sequence[PeriodicJob],
        config: WorkerConfig,
        long_running_tasks: Sequence[LongRunningTask] = (),
        *,
        outbox_signal: WakeSignal | None = None,
        inbox_signal: WakeSignal | None = None,
        count_writes: Callable[[], int] = lambda: 0,
    ) -> None:
        self.context = context
        self._outbox = outbox
        self._relay = relay
        self._consumer = consumer
        self._periodic_jobs = periodic_jobs
        self._config = config
        self._long_running_tasks = long_running_tasks
        self._outbox_signal = outbox_signal or WakeSignal()
        self._inbox_signal = inbox_signal or WakeSignal()
        self._count_writes = count_writes

    async def run(self) -> None:
        """Try to become the leader, and do the work as the leader, until cancelled."""
        while True:
            try:
                await self._lead_if_elected()
                await self._notify_leader()
            except ClocksDiffer as error:
                log.warning("worker.clocks_differ", context=self.context, **error.details)
            except Unavailable as error:
                log.warning("worker.unavailable", context=self.context, error=repr(error.details))
            except Exception:
                log.exception("worker.failed", context=self.context)
            else:
                continue
            await asyncio.sleep(self._config.leader_retry_interval)

    async def _lead_if_elected(self) -> None:
        async with self._outbox.acquire_leadership() as leader:
            if leader is not None:
                await leader.listen(self._outbox_signal.set, self._inbox_signal.set)
                await self._run_as_leader(leader)

    async def _notify_leader(self) -> None:
        """Notify the leader of events and deliveries of this process, until the next election."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._config.leader_retry_interval
        async with asyncio.TaskGroup() as tasks:
            for signal, notify in (
                (self._outbox_signal, self._outbox.notify_outbox),
                (self._inbox_signal, self._outbox.notify_inbox),
            ):
                tasks.create_task(_notify_until(ends_at, signal, notify))

    async def _run_as_leader(self, leader: LeaderSession) -> None:
        log.info("worker.leader_acquired", context=self.context)
        LEADER.labels(self.context).set(1)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_run_endless(self._run_heartbeat(leader)))
                tasks.create_task(_run_endless(self._run_relay_loop(leader)))
                if self._consumer.has_handlers:
                    tasks.create_task(_run_endless(self._run_consumer_loop()))
                tasks.create_task(_run_endless(self._run_periodic_jobs()))
                for task in self._long_running_tasks:
                    tasks.create_task(_run_endless(task.run()))
        except ExceptionGroup as group:
            unavailable, others = group.split(Unavailable)
            if others or unavailable is None:
                raise
            raise _first_error(unavailable) from group
        finally:
            LEADER.labels(self.context).set(0)

    async def _run_heartbeat(self, leader: LeaderSession) -> None:
        while True:
            if await leader.heartbeat():
                self._outbox_signal.set()
            await asyncio.sleep(self._config.heartbeat_interval)

    async def _run_relay_loop(self, leader: LeaderSession) -> None:
        """Relay now and whenever the signal is set; reconcile at the interval."""
        loop = asyncio.get_running_loop()
        self._relay.reset_transports()
        self._outbox_signal.set()
        reconcile_at = loop.time()
        while True:
            if self._outbox_signal.is_set:
                await self._relay_all(leader)
            if loop.time() >= reconcile_at:
                await self._relay.reconcile(leader)
                reconcile_at = loop.time() + self._config.reconcile_interval
            await self._outbox_signal.wait(reconcile_at - loop.time())

    async def _relay_all(self, leader: LeaderSession) -> None:
        """Relay batches until one is not full. An event that follows sets the signal again."""
        limit = self._config.relay_batch_size
        while True:
            self._outbox_signal.clear()
            if await self._relay.relay_batch(leader, limit) < limit:
                return

    async def _run_consumer_loop(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._inbox_signal.clear()
                await self._consumer.dispatch_due(tasks, wake=self._inbox_signal.set)
                await self._inbox_signal.wait(self._config.poll_interval)

    async def _run_periodic_jobs(self) -> None:
        """Run all jobs at an interval, which is longer while only jobs write."""
        loop, config = asyncio.get_running_loop(), self._config
        idle_at, writes = loop.time(), self._count_writes()
        while True:
            if self._count_writes() != writes:
                idle_at = loop.time() + config.idle_after
            for job in self._periodic_jobs:
                await self._run_job(job)
            writes = self._count_writes()
            is_idle = loop.time() >= idle_at
            await asyncio.sleep(
                config.idle_job_interval if is_idle else config.periodic_job_interval
            )

    async def _run_job(self, job: PeriodicJob) -> None:
        try:
            await job()
        except Unavailable:
            log.warning("periodic_job.unavailable", context=self.context, job=_name_of(job))
        except Exception:  # a failed job must not stop the other jobs
            log.exception("periodic_job.failed", context=self.context, job=_name_of(job))


async def _notify_until(
    ends_at: float, signal: WakeSignal, notify: Callable[[], Awaitable[None]]
) -> None:
    """Call `notify` when the signal is set, at most once in _MIN_NOTIFY_INTERVAL."""
    loop = asyncio.get_running_loop()
    while (seconds := ends_at - loop.time()) > 0:
        if await signal.wait(seconds):
            signal.clear()
            with suppress(Unavailable):  # the leader also polls
                await notify()
            await asyncio.sleep(_MIN_NOTIFY_INTERVAL)


def _name_of(job: PeriodicJob) -> str:
    """Return class and method, such as `PaymentJobs.reconcile`."""
    return getattr(job, "__qualname__", repr(job))


def _first_error(group: ExceptionGroup[Exception]) -> Exception:
    """Return the first error in the group that is not itself a group."""
    first = group.exceptions[0]
    return _first_error(first) if isinstance(first, ExceptionGroup) else first


async def _run_endless(loop: Awaitable[None]) -> None:
    """Await a loop that should never end, and raise RuntimeError if it ends.

    Without this check, a CancelledError raised inside the loop would end it without an error.
    """
    try:
        await loop
    except asyncio.CancelledError:
        if is_being_cancelled():
            raise
    raise RuntimeError("a loop of the background work has ended")
