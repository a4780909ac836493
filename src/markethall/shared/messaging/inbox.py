"""The inbox: the queue of events for the handlers of one context, in the store of that context."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from markethall.shared.kernel.model import Dto
from markethall.shared.messaging.backlog import Backlog
from markethall.shared.messaging.events import Delivery, EventEnvelope, RetryLater

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
        """Return the backlog of deliveries that are not processed.

        `oldest_at` is when the oldest of them was received. It leaves out deliveries that wait on
        purpose: those whose handler has raised RetryLater, and those behind an earlier delivery of
        their key.
        """

    async def purge(self, before: datetime) -> int:
        """Delete a bounded number of deliveries processed before `before`; return how many."""
