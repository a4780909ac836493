"""What a context stores in: its database and the common queues beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from markethall.shared.clock import Clock
from markethall.shared.events import Inbox, Outbox
from markethall.shared.idempotency import Claims


class Publishing(Protocol):
    on_publish: Callable[[], None]


D = TypeVar("D", bound=Publishing)


@dataclass(frozen=True)
class Backend(Generic[D]):
    database: D
    outbox: Outbox
    inbox: Inbox
    claims: Claims


KEPT_EVENTS = timedelta(days=7)
# a done inbox row is what makes a late duplicate harmless: it outlives whatever could be sent again
KEPT_INBOX = 2 * KEPT_EVENTS


class Housekeeping:
    """Forgets keys that have expired, and events that all have taken a week or two ago."""

    def __init__(self, backend: Backend[D], clock: Clock, every: timedelta) -> None:
        self._backend = backend
        self._clock = clock
        self._every = every
        self._next = clock()

    async def sweep(self) -> None:
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._every
        # each forgets a bounded number at once
        while await self._backend.claims.purge(now):
            continue
        while await self._backend.inbox.purge(now - KEPT_INBOX):
            continue
        while await self._backend.outbox.purge(now - KEPT_EVENTS):
            continue
