"""The inbox: the queue of events for the handlers of one context, in the store of that context."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

import structlog

from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.model import Dto
from markethall.shared.messaging.backlog import Backlog
from markethall.shared.messaging.events import Delivery, EventEnvelope, EventHandler, RetryLater
from markethall.shared.observability.metrics import EVENTS_HANDLED

# the beginning of the stored error of a handler that has raised RetryLater
RETRY_LATER_PREFIX: Final = f"{RetryLater.__name__}("


class DeadLetter(Dto):
    handler: str
    event_id: UUID
    type: str
    attempts: int
    error: str
    received_at: datetime


class StuckDelivery(Dto):
    """A delivery that waits, although its handler should have processed it."""

    handler: str
    event_id: UUID
    type: str
    attempts: int
    error: str
    received_at: datetime
    due_at: datetime
    position: int


@dataclass(frozen=True)
class StuckLimits:
    """The limits that tell which waiting deliveries are stuck.

    A delivery is stuck in three cases: it was due before `due_before`, but no worker has claimed
    it; it is due after `due_after`, which is later than any back-off; or it was received before
    `failing_since` and its handler has failed. A handler that has raised RetryLater has not failed,
    because it waits on purpose. A delivery that waits for an earlier one of its key is not stuck.
    """

    due_before: datetime
    due_after: datetime
    failing_since: datetime

    def include(self, delivery: StuckDelivery) -> bool:
        is_failing = bool(delivery.error) and not delivery.error.startswith(RETRY_LATER_PREFIX)
        return (
            delivery.due_at < self.due_before
            or delivery.due_at > self.due_after
            or (is_failing and delivery.received_at < self.failing_since)
        )


class Inbox(Protocol):
    async def enqueue(self, handlers: Sequence[str], envelopes: Sequence[EventEnvelope]) -> None:
        """Insert a delivery for each handler and envelope, unless the inbox has it already."""

    async def enqueue_dead_letter(self, handler: str, envelope: EventEnvelope, error: str) -> None:
        """Insert a dead letter for an unreadable envelope, unless the inbox has it already."""

    async def claim(self, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        """Claim due deliveries for the time of the lease.

        Only the oldest waiting delivery of each event key can be claimed, so that order is kept.
        """

    async def retry_later(
        self, delivery: Delivery, error: str, due_at: datetime, *, count_attempt: bool = True
    ) -> None:
        """Schedule another attempt; `count_attempt=False` subtracts this attempt from the count."""

    async def dead_letter(self, delivery: Delivery, error: str) -> None:
        """Store the delivery as a dead letter, which is not tried again."""

    async def get_dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]: ...

    async def count_dead_letters(self) -> int: ...

    async def list_stuck(
        self, limits: StuckLimits, after_position: int | None, limit: int
    ) -> Sequence[StuckDelivery]:
        """Return stuck deliveries in the order of `position`."""

    async def make_due(self, limits: StuckLimits, now: datetime, lease: timedelta) -> int:
        """Make stuck deliveries due at `now`; return how many.

        Does not change a delivery that is due within the lease, because its handler may be running.
        """

    async def requeue_dead_letters(self, event_id: UUID | None = None) -> int:
        """Make dead letters due again: those of one event, or all if `event_id` is None.

        Return how many.
        """

    async def replay(self, event_id: UUID) -> int:
        """Make the processed and dead deliveries of an event due again; return how many."""

    async def measure_backlog(self) -> Backlog:
        """Return the number of waiting deliveries, and when the oldest was received.

        Dead letters are not included. `oldest_at` leaves out deliveries that wait on purpose: those
        whose handler has raised RetryLater, and those behind an earlier delivery of their key.
        `count` includes them.
        """

    async def purge(self, before: datetime) -> int:
        """Delete a bounded number of deliveries processed before `before`; return how many."""


log = structlog.get_logger("markethall.inbox_consumer")

_FIRST_BACKOFF_SECONDS: Final = 0.2
# more than enough to reach `max_backoff`, and far from the overflow of a float
_MAX_DOUBLINGS: Final = 20
# After RetryLater or Unavailable, the delay before the next attempt is a share of the age of the
# event, but at least this minimum. So an old event is tried less often.
_MIN_BACKOFF_SECONDS: Final = 0.2
_BACKOFF_PER_AGE: Final = 0.5


@dataclass(frozen=True)
class WorkerConfig:
    """Intervals, limits and timeouts of a ContextWorker. Times are in seconds.

    Notifications wake the relay and the consumer. The heartbeat also finds events in the outbox,
    and a poll of the inbox finds deliveries, if a notification is lost. Periodic jobs run at
    `idle_job_interval` when this process has written nothing for the time `idle_after`.
    """

    poll_interval: float = 5.0
    reconcile_interval: float = 1.0
    periodic_job_interval: float = 1.0
    idle_job_interval: float = 15.0
    idle_after: float = 60.0
    leader_retry_interval: float = 1.0
    heartbeat_interval: float = 5.0
    relay_batch_size: int = 100
    concurrency: int = 8
    delivery_lease: float = 30.0
    max_attempts: int = 8
    max_backoff: float = 60.0


class InboxConsumer:
    """Claims due deliveries and runs their handlers; deliveries of one key run one by one."""

    def __init__(
        self, inbox: Inbox, handlers: Mapping[str, EventHandler], clock: Clock, config: WorkerConfig
    ) -> None:
        self._inbox = inbox
        self._handlers = handlers
        self.has_handlers = bool(handlers)
        self._clock = clock
        self._config = config
        self._running: set[asyncio.Task[None]] = set()
        # other deliveries may become due when a running handler finishes
        self._may_have_more = False
        self._wake: Callable[[], None] = lambda: None

    async def dispatch_due(
        self, tasks: asyncio.TaskGroup, wake: Callable[[], None] = lambda: None
    ) -> int:
        """Start handlers for due deliveries, up to the concurrency limit; return how many.

        Does not wait for the handlers, so a slow one does not delay the others. Calls `wake` when
        deliveries are or may be due again: after a handler, if it has made others wait, and when
        the pause before another attempt is over.
        """
        self._wake = wake
        free_slots = self._config.concurrency - len(self._running)
        if free_slots <= 0:
            self._may_have_more = True
            return 0
        deliveries = await self._claim(free_slots)
        # if nothing was due, a running handler may block deliveries of its key
        self._may_have_more = deliveries[0].more_are_due if deliveries else bool(self._running)
        for delivery in deliveries:
            task = tasks.create_task(self._run_handler(delivery))
            self._running.add(task)
            task.add_done_callback(self._finish)
        return len(deliveries)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._may_have_more:
            self._wake()

    async def _claim(self, limit: int) -> Sequence[Delivery]:
        """Claim deliveries.

        If this task is cancelled meanwhile, the claimed deliveries are released, so that the next
        leader can claim them without waiting for the end of the lease.
        """
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
                await self._dead_letter(delivery, RuntimeError("no attempt has finished"))
                return
            event = delivery.envelope.decode()
            await self._handlers[delivery.handler](delivery, event)
        except (Unavailable, RetryLater) as error:
            # the event did not cause this error, so the number of attempts is not limited
            backoff = self._age_based_backoff(delivery)
            await self._retry_later(delivery, error, backoff, count_attempt=False)
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                await self._release(delivery)
                raise
            await self._retry_or_dead_letter(delivery, error)
        except Exception as error:  # noqa: BLE001 - no error of a handler may stop the queue
            await self._retry_or_dead_letter(delivery, error)
        else:
            EVENTS_HANDLED.labels(delivery.handler, "done").inc()

    async def _retry_or_dead_letter(self, delivery: Delivery, error: BaseException) -> None:
        if delivery.attempts < self._config.max_attempts:
            await self._retry_later(delivery, error, _exponential_backoff(delivery.attempts))
        else:
            await self._dead_letter(delivery, error)

    async def _dead_letter(self, delivery: Delivery, error: BaseException) -> None:
        log.error("event.dead_lettered", **_log_fields(delivery), exc_info=error)
        EVENTS_HANDLED.labels(delivery.handler, "dead").inc()
        await self._inbox.dead_letter(delivery, _error_text(error))

    async def _retry_later(
        self, delivery: Delivery, error: BaseException, delay: float, *, count_attempt: bool = True
    ) -> None:
        write = log.info if isinstance(error, RetryLater) else log.warning
        write("event.retry_scheduled", **_log_fields(delivery), error=_error_text(error))
        EVENTS_HANDLED.labels(delivery.handler, "retried").inc()
        seconds = min(delay, self._config.max_backoff)
        due_at = self._clock() + timedelta(seconds=seconds)
        await self._inbox.retry_later(
            delivery, _error_text(error), due_at, count_attempt=count_attempt
        )
        asyncio.get_running_loop().call_later(seconds, self._wake)

    def _age_based_backoff(self, delivery: Delivery) -> float:
        age = self._clock() - delivery.envelope.occurred_at
        return max(_MIN_BACKOFF_SECONDS, age.total_seconds() * _BACKOFF_PER_AGE)

    async def _release(self, delivery: Delivery) -> None:
        """Make the delivery due now, so that the next leader can claim it."""
        with suppress(Unavailable):
            await self._inbox.retry_later(delivery, "released", self._clock(), count_attempt=False)


def _exponential_backoff(attempts: int) -> float:
    return _FIRST_BACKOFF_SECONDS * float(2 ** min(attempts - 1, _MAX_DOUBLINGS))


def is_being_cancelled() -> bool:
    """Tell whether this task is being cancelled.

    If not, a CancelledError that the task catches comes from something that it awaits, for example
    from another task that was cancelled.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


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
