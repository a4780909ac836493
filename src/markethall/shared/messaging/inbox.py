"""The inbox: the queue of events for the handlers of one context, in the store of that context."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from markethall.shared.kernel.model import Dto
from markethall.shared.messaging.events import Delivery, EventEnvelope


class DeadLetter(Dto):
    handler: str
    event_id: UUID
    type: str
    attempts: int
    error: str
    received_at: datetime


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

    async def requeue_dead_letters(self, event_id: UUID | None = None) -> int:
        """Make dead letters due again: those of one event, or all if `event_id` is None.

        Return how many.
        """

    async def replay(self, event_id: UUID) -> int:
        """Make the processed and dead deliveries of an event due again; return how many."""

    async def purge(self, before: datetime) -> int:
        """Delete a bounded number of deliveries processed before the time; return how many."""
