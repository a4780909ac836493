"""What a context stores in: its database and the common queues beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from markethall.shared.idempotency.records import IdempotencyStore
from markethall.shared.kernel.clock import Clock
from markethall.shared.messaging.events import Inbox, Outbox


class NotifiesOnPublish(Protocol):
    after_publish: Callable[[], None]


D = TypeVar("D", bound=NotifiesOnPublish)


@dataclass(frozen=True)
class ContextPersistence(Generic[D]):
    database: D
    outbox: Outbox
    inbox: Inbox
    idempotency_store: IdempotencyStore


OUTBOX_RETENTION = timedelta(days=7)
# a done inbox row is what makes a late duplicate harmless: it outlives whatever could be sent again
INBOX_RETENTION = 2 * OUTBOX_RETENTION


class RetentionJob:
    """Forgets keys that have expired, and events that all have taken a week or two ago."""

    def __init__(
        self, persistence: ContextPersistence[D], clock: Clock, interval: timedelta
    ) -> None:
        self._persistence = persistence
        self._clock = clock
        self._interval = interval
        self._next_run_at = clock()

    async def run_once(self) -> None:
        now = self._clock()
        if now < self._next_run_at:
            return
        self._next_run_at = now + self._interval
        # each forgets a bounded number at once
        while await self._persistence.idempotency_store.purge(now):
            continue
        while await self._persistence.inbox.purge(now - INBOX_RETENTION):
            continue
        while await self._persistence.outbox.purge(now - OUTBOX_RETENTION):
            continue
