from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from prometheus_client import Counter

from markethall.shared.idempotency.records import IdempotencyStore
from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import Event
from markethall.shared.messaging.inbox import Inbox
from markethall.shared.messaging.outbox import Outbox
from markethall.shared.messaging.wake_signal import WakeSignal

D_co = TypeVar("D_co", covariant=True)

OUTBOX_RETENTION: Final = timedelta(days=7)
# An inbox row detects a second delivery of its event. The event can be delivered again as long as
# it is in the outbox, so the inbox row must be kept longer.
INBOX_RETENTION: Final = 2 * OUTBOX_RETENTION
# a counter and the amount to add to it
CommitCount = tuple[Counter, int]
EventCounters = Mapping[type[Event], Counter]
NO_COUNTERS: Final[EventCounters] = MappingProxyType({})


@dataclass(frozen=True)
class ContextPersistence(Generic[D_co]):
    """The database of a context, its outbox, its inbox and its idempotency records.

    `outbox_signal` is set after a commit that published an event. `inbox_signal` is set by the
    transport that delivers events to this inbox. Each signal wakes the context worker.
    """

    database: D_co
    outbox: Outbox
    inbox: Inbox
    idempotency_store: IdempotencyStore
    outbox_signal: WakeSignal
    inbox_signal: WakeSignal = field(default_factory=WakeSignal)


def database_of(persistence: ContextPersistence[D_co]) -> D_co:
    return persistence.database


class RetentionJob:
    """Deletes expired idempotency records, and old rows of the inbox and the outbox."""

    def __init__(
        self, persistence: ContextPersistence[Any], clock: Clock, interval: timedelta
    ) -> None:
        self._persistence = persistence
        self._clock = clock
        self._interval = interval
        self._next_run_at = clock()

    async def run_once(self) -> None:
        """Delete expired rows in bounded steps, unless the last run was within the interval."""
        now = self._clock()
        # The second comparison detects a clock that has been set back: `_next_run_at` is then too
        # far in the future, and the job runs at once.
        if now < self._next_run_at <= now + self._interval:
            return
        self._next_run_at = now + self._interval
        while await self._persistence.idempotency_store.purge(now):
            continue
        while await self._persistence.inbox.purge(now - INBOX_RETENTION):
            continue
        while await self._persistence.outbox.purge(now - OUTBOX_RETENTION):
            continue


def count_committed(
    events: Sequence[Event], counters: EventCounters, counts: Iterable[CommitCount]
) -> None:
    """Count the events that have a counter, and add the amounts of the other counts."""
    for event in events:
        if counter := counters.get(type(event)):
            counter.inc()
    for counter, amount in counts:
        counter.inc(amount)
